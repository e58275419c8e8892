"""``python -m bench``: starts the proxy, a bare Sanic and a simulated provider, measures, reports.

The rounds alternate over the scenarios (A B A B), so that a ratio pairs figures taken within
seconds of each other; on a shared machine it says more than any absolute figure.
"""

import argparse
import importlib
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec.structs import replace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import gates, html, machine, nginx, report, table, wrk
from bench.answers import WrongAnswerError
from bench.load import Run
from bench.named import ALL
from bench.options import parse
from bench.play import Engine, How, play, slices
from bench.scenarios import HERD_CONNECTIONS, LARGE_BYTES, Scenario, Server, Upstream
from bench.servers import ServerFailedError
from bench.slice import Address
from bench.stage import As, Stage

RESULTS = machine.ROOT / "bench" / "results"
_COMMANDS = {
    "micro": "bench.micro",
    "peers": "bench.peers",
    "report": "bench.html",
    "simulate": "bench.simulate",
}
"""Modules with a ``main(arguments)``: each loads what only it needs."""
CEILING_S = 0.5
OPEN_SHARE = 0.5
"""Of what ``repeat`` reached, or the own generator's ceiling: the rate of the open loop."""


class Bench:
    """One run: its servers and its rounds."""

    def __init__(
        self,
        options: argparse.Namespace,
        scratch: Path,
        progress: Progress,
        *,
        scenarios: Mapping[str, Scenario] = ALL,
        missing: Mapping[str, str] = {},
        stage: type[Stage] = Stage,
    ) -> None:
        """``missing`` says which of the ``scenarios`` cannot be measured here, and why."""
        self._options = options
        self._progress = progress
        self._scenarios = scenarios
        self._missing = dict(missing)
        if nginx.path() is None and "nginx" in options.scenario:
            self._missing["nginx"] = "nginx is not on PATH"
        if not machine.allow_descriptors(HERD_CONNECTIONS) and "herd" in options.scenario:
            self._missing["herd"] = "too few descriptors"
        self._chosen = {
            name: scenarios[name] for name in options.scenario if name not in self._missing
        }
        self._ceilings: dict[str, float] = {}
        target = Address.of(options.target) if options.target else None
        self.stage = stage(As(options.key, options.model), target, scratch, progress.console)

    def run(self) -> report.Result:
        """Measure. Raises WrongAnswerError and ServerFailedError."""
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        facts = machine.machine()
        self.stage.begin()
        for scenario in self._chosen.values():
            self._tell(f"start what {scenario.name} asks")
            self.stage.prepare(scenario.server, is_large=scenario.body_bytes >= LARGE_BYTES)
        self._measure_ceilings()
        scenarios = report.summarise(self._rounds(), self._ceilings, self._scenarios)
        return report.Result(
            format=report.FORMAT,
            started_at=started_at,
            commit=machine.commit(),
            machine=facts,
            versions=machine.versions(),
            settings={name: value for name, value in vars(self._options).items() if name != "key"},
            servers={
                server: report.ServerFacts(started.first_answer_s, started.rss_bytes())
                for server, started in self.stage.started.items()
            },
            scenarios=scenarios,
            missing=self._missing,
            warnings=tuple(report.warnings(scenarios)),
        )

    def _tell(self, doing: str) -> None:
        for task in self._progress.task_ids:
            self._progress.update(task, description=doing)
        if not self._progress.console.is_terminal:
            self._progress.console.print(doing)

    def _engine(self, scenario: Scenario) -> Engine:
        wanted = self._options.engine
        fits = scenario.fits_wrk and not (self._options.target or "").startswith("https")
        if wanted == "h2load":
            return Engine.H2LOAD if fits and not scenario.traffic.is_mix else Engine.OWN
        if wanted == "own" or not fits or wrk.path() is None:
            return Engine.OWN
        return Engine.WRK

    def _measure_ceilings(self) -> None:
        """What the own generator can do at most with each kind of load: asked of a raw socket."""
        own = {
            name: scenario
            for name, scenario in self._chosen.items()
            if self._engine(scenario) is Engine.OWN and not scenario.at_once
        }
        if not own:
            return
        self.stage.prepare(Server.RAW, is_large=False)
        seconds = min(CEILING_S, self._options.seconds)
        found: dict[tuple[object, ...], float] = {}
        for name, scenario in own.items():
            kind = scenario.traffic, scenario.body_bytes, scenario.connections
            if kind not in found:
                self._tell(f"ceiling of the own load generator: {name}")
                asked = replace(
                    scenario,
                    server=Server.RAW,
                    upstream=Upstream.NONE,
                    is_open=False,
                    beside=None,
                )
                how = self._how(seconds)
                found[kind] = max(play(asked, self.stage.place, how).rate for _ in range(2))
            self._ceilings[name] = found[kind]

    def _rounds(self) -> dict[str, list[Run]]:
        runs: dict[str, list[Run]] = {name: [] for name in self._chosen}
        rounds = self._options.rounds
        for task in self._progress.task_ids:
            self._progress.update(task, total=rounds * len(runs))
        for turn in range(1, rounds + 1):
            for name, done in runs.items():
                self._tell(f"round {turn} of {rounds}: {name}")
                scenario = self._scenarios[name]
                if scenario.is_long and turn > 1:
                    continue
                how = replace(self._how(self._options.seconds), engine=self._engine(scenario))
                if scenario.is_open:
                    reached = min(runs["repeat"][-1].rate, self._ceilings[name])
                    how = replace(how, rate=OPEN_SHARE * reached)
                try:
                    done.extend(slices(scenario, self.stage.place, how))
                except WrongAnswerError as error:
                    raise WrongAnswerError(f"{name}, round {turn}: {error}") from error
                for task in self._progress.task_ids:
                    self._progress.advance(task)
        return runs

    def _how(self, seconds: float) -> How:
        options = self._options
        return How(
            connections=options.connections,
            seconds=seconds,
            processes=options.processes,
            soak_s=options.soak_s,
        )


def _measure(
    options: argparse.Namespace, bench_for: Callable[[argparse.Namespace, Path, Progress], Bench]
) -> report.Result:
    """Run, with live progress. Exits with 1 and the offending answer when a figure would lie."""
    console = Console(stderr=True, highlight=False)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with (
        tempfile.TemporaryDirectory(prefix="tallygate-bench-") as scratch,
        Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as progress,
    ):
        progress.add_task("start", total=None)
        bench = bench_for(options, Path(scratch), progress)
        try:
            return bench.run()
        except (WrongAnswerError, ServerFailedError, OSError) as error:
            bench.stage.show_output()
            console.print(f"FAILED: {error}", markup=False, soft_wrap=True)
            sys.exit(1)
        finally:
            bench.stage.stop()


def _compare(before: Path, after: Path) -> None:
    try:
        changes = gates.compare(gates.read_result(before), gates.read_result(after))
    except (OSError, msgspec.DecodeError) as error:
        sys.exit(f"FAILED: {error}")
    Console().print(gates.comparison(changes, (before.name, after.name)))


def main() -> None:
    """Run and print the table; exit with 1 below the bars."""
    if sys.argv[1:] and sys.argv[1] in _COMMANDS:
        importlib.import_module(_COMMANDS[sys.argv[1]]).main(sys.argv[2:])
        return
    options = parse()
    if options.compare:
        _compare(*options.compare)
        return
    measure(options, Bench)


def measure(
    options: argparse.Namespace,
    bench_for: Callable[[argparse.Namespace, Path, Progress], Bench],
    kind: str = "",
) -> None:
    """Measure, write the result, print the table, judge; ``kind`` ends the name of the file."""
    try:
        bars = gates.read_bars(options.baseline) if options.baseline else None
    except (OSError, msgspec.DecodeError) as error:
        sys.exit(f"FAILED: {error}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped too
    result = _measure(options, bench_for)
    name = f"{result.started_at[:10]}-{result.commit.replace('+', '-changed')}{kind}.json"
    file = Path(options.json or RESULTS / name)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(result, enc_hook=str), indent=2))
    table.show(result)
    shown = html.write(result, file, options.html)
    print(f"written to {file} and {shown}")
    if bars is not None:
        verdicts = gates.judge(result, bars)
        print(*gates.verdict_lines(verdicts, bars.noise), sep="\n")
        sys.exit(not gates.passes(verdicts))


if __name__ == "__main__":
    main()
