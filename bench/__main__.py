"""``python -m bench``: starts the proxy, a bare Sanic and a simulated provider, measures, reports.

The rounds alternate over the scenarios (A B A B), so that a ratio pairs figures taken within
seconds of each other; on a shared machine it says more than any absolute figure.
"""

import argparse
import signal
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace
from rich.console import Console

from bench import report
from bench.load import Address, Run, WrongAnswerError
from bench.scenarios import (
    BARE_TOKENS,
    PROVIDER_VARIABLE,
    SCENARIOS,
    Always,
    Place,
    Scenario,
    Server,
    Upstream,
    play,
)
from bench.servers import (
    Process,
    ServerFailedError,
    SimulatedProvider,
    Started,
    count,
    free_port,
    simulated_tokens,
)

CEILING_S = 0.5
OUTPUT_LINES = 30
UPSTREAM_MODEL = "claude-bench"
UPSTREAM_KEY = "sk-ant-bench"
CONFIG = """\
model_list:
  - model_name: {model}
    litellm_params:
      model: anthropic/{upstream_model}
      api_key: {upstream_key}
      api_base: {provider}
general_settings:
  master_key: {key}
"""


class Bench:
    """One run: its servers and its rounds."""

    def __init__(self, options: argparse.Namespace, scratch: Path, progress: Console) -> None:
        self._options = options
        self._scratch = scratch
        self._progress = progress
        self._processes: list[Process] = []
        self._started: dict[Server, Started] = {}

    def run(self) -> report.Result:
        """Measure. Raises WrongAnswerError and ServerFailedError."""
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        machine = report.machine()
        place = self._target() if self._options.target else self._own()
        ceilings = self._ceilings()
        runs = self._rounds(place)
        scenarios = report.summarise(runs, ceilings)
        return report.Result(
            format=report.FORMAT,
            started_at=started_at,
            commit=report.commit(),
            machine=machine,
            versions=report.versions(),
            settings={name: value for name, value in vars(self._options).items() if name != "key"},
            servers={
                server: report.ServerFacts(started.first_answer_s, started.rss_bytes())
                for server, started in self._started.items()
            },
            scenarios=scenarios,
            warnings=tuple(report.warnings(scenarios)),
        )

    def _own(self) -> Place:
        """The proxy of this checkout in front of the simulated provider."""
        simulated = self._start("provider", "bench.provider", "--port", "0").announced()
        options = self._options
        config = self._scratch / "config.yaml"
        config.write_text(
            CONFIG.format(
                model=options.model,
                upstream_model=UPSTREAM_MODEL,
                upstream_key=UPSTREAM_KEY,
                provider=simulated.url,
                key=options.key,
            )
        )
        return Place(
            addresses={
                Server.BARE: self._start_sanic(
                    Server.BARE, "bench.bare:app", **{PROVIDER_VARIABLE: simulated.url}
                ),
                Server.PROXY: self._start_sanic(
                    Server.PROXY,
                    "app.main",
                    TALLYGATE_CONFIG=str(config),
                    XDG_CACHE_HOME=str(self._scratch),
                ),
            },
            key=options.key,
            model=options.model,
            tokens=simulated_tokens,
            provider=SimulatedProvider(simulated),
        )

    def _target(self) -> Place:
        """A server that runs already; its own answer to a question is taken for the right one."""
        options = self._options
        target = Address.of(options.target)
        return Place(
            addresses={
                Server.BARE: self._start_sanic(Server.BARE, "bench.bare:app"),
                Server.PROXY: target,
            },
            key=options.key,
            model=options.model,
            tokens=partial(count, target, options.key),
            provider=None,
        )

    def _start(self, name: str, *module: str, **variables: str) -> Process:
        process = Process(name, *module, scratch=self._scratch, environ=variables)
        self._processes.append(process)
        return process

    def _start_sanic(self, server: Server, target: str, **variables: str) -> Address:
        port = free_port()
        process = self._start(
            server, "sanic", target, "--workers", "1", "--port", str(port), **variables
        )
        at = Address("127.0.0.1", port)
        first_s = process.first_answer_s(at, self._options.key, self._options.model)
        self._started[server] = Started(first_s, report.workers(process.pid, port))
        return at

    def _ceilings(self) -> dict[int, float]:
        """What the load generator can do at most, by size of body: asked of a raw socket."""
        raw = self._start("raw", "bench.bare")
        place = Place(
            addresses={Server.BARE: raw.announced()},
            key=self._options.key,
            model=self._options.model,
            tokens=Always(BARE_TOKENS),
            provider=None,
        )
        ceilings = {}
        for size in sorted({SCENARIOS[name].body_bytes for name in self._options.scenario}):
            self._progress.print(f"ceiling of the load generator, {size} B")
            scenario = replace(SCENARIOS["bare"], body_bytes=size)
            seconds = min(CEILING_S, self._options.seconds)
            ceilings[size] = max(self._play(scenario, place, seconds).rate for _ in range(2))
        raw.stop()
        return ceilings

    def _rounds(self, place: Place) -> dict[str, list[Run]]:
        runs: dict[str, list[Run]] = {name: [] for name in self._options.scenario}
        for turn in range(1, self._options.rounds + 1):
            for name, done in runs.items():
                self._progress.print(f"round {turn} of {self._options.rounds}: {name}")
                try:
                    done.append(self._measure(SCENARIOS[name], place))
                except WrongAnswerError as error:
                    raise WrongAnswerError(f"{name}, round {turn}: {error}") from error
        return runs

    def _measure(self, scenario: Scenario, place: Place) -> Run:
        """Play a slice and see what it cost the server."""
        started = self._started.get(scenario.server)
        before_s = started.cpu_s() if started else None
        run = self._play(scenario, place, self._options.seconds)
        after_s = started.cpu_s() if started else None
        if before_s is not None and after_s is not None:
            run.server_cpu_s = after_s - before_s
        return run

    def _play(self, scenario: Scenario, place: Place, seconds: float) -> Run:
        options = self._options
        return play(
            scenario,
            place,
            connections=options.connections,
            seconds=seconds,
            processes=options.processes,
        )

    def show_output(self) -> None:
        """The end of what each server printed."""
        for process in self._processes:
            lines = process.output().splitlines()[-OUTPUT_LINES:]
            printed = "\n".join((f"--- {process.name} printed:", *lines))
            self._progress.print(printed, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Stop what was started, in reverse."""
        for process in reversed(self._processes):
            process.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{name:16} {scenario.says}" for name, scenario in SCENARIOS.items()),
    )
    parser.add_argument("--seconds", type=float, default=2, help="for each slice (default 2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--processes", type=int, default=1, help="of the load generator")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, metavar="NAME")
    parser.add_argument("--json", metavar="FILE", help="write the whole result there")
    parser.add_argument("--target", metavar="URL", help="ask this server; start no proxy")
    parser.add_argument("--key", default="sk-bench-0123456789abcdef")
    parser.add_argument("--model", default="bench-model")
    options = parser.parse_args()
    checkable = [
        name
        for name, scenario in SCENARIOS.items()
        if not options.target or scenario.upstream is Upstream.NONE
    ]
    options.scenario = options.scenario or checkable
    if unfit := set(options.scenario) - set(checkable):
        parser.error(f"with --target nobody counts the provider's calls: {', '.join(unfit)}")
    return options


def main() -> None:
    """Run and print the table. Exits with 1 and the offending answer when a figure would lie."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped too
    progress = Console(stderr=True, highlight=False)
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as scratch:
        bench = Bench(options, Path(scratch), progress)
        try:
            result = bench.run()
        except (WrongAnswerError, ServerFailedError, OSError) as error:
            bench.show_output()
            progress.print(f"FAILED: {error}", markup=False, soft_wrap=True)
            sys.exit(1)
        finally:
            bench.stop()
    if options.json:
        Path(options.json).write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2))
    report.show(result)


if __name__ == "__main__":
    main()
