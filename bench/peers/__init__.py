"""``python -m bench peers``: the same work asked of other gateways and of this proxy, in turn.

All stand in front of the same simulated provider. What is not installed is named.
"""

import argparse
from functools import partial
from pathlib import Path

from msgspec.structs import replace
from rich.progress import Progress

from bench import nginx, options, report
from bench.__main__ import Bench, measure
from bench.peers import installed
from bench.peers.conduct import observe
from bench.peers.scenarios import PEERS, chosen
from bench.peers.stage import PeersStage
from bench.scenarios import Scenario, Server

DEFAULTS = ("--seconds", "4", "--connections", "16")
"""Longer, and with fewer connections, than elsewhere: some answer a few hundred in a second."""
_OBSERVED = (Server.LITELLM, Server.PORTKEY, Server.NGINX_CACHE, Server.PROXY)


class PeersBench(Bench):
    """One run beside peers."""

    def __init__(
        self,
        options: argparse.Namespace,
        scratch: Path,
        progress: Progress,
        *,
        scenarios: dict[str, Scenario],
        missing: dict[str, str],
    ) -> None:
        super().__init__(
            options, scratch, progress, scenarios=scenarios, missing=missing, stage=PeersStage
        )

    def run(self) -> report.Result:
        """Measure, then look at what each does. Raises as the other."""
        result = super().run()
        seen = (
            f"{server}: {observe(server, self.stage.place)}"
            for server in _OBSERVED
            if server in self.stage.started
        )
        return replace(
            result, versions=result.versions | installed.versions(), notes=(*result.notes, *seen)
        )


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; what it does not say is as in ``python -m bench``."""
    usual = options.parse([*DEFAULTS])
    parser = argparse.ArgumentParser(
        prog="python -m bench peers",
        description=f"As python -m bench {' '.join(DEFAULTS)}, if nothing else is said.",
    )
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--seconds", type=float, help="for each slice")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--connections", type=int)
    parser.add_argument("--engine", choices=("auto", "own", "wrk"))
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="bench/peers/bars.json")
    return parser.parse_args(arguments, usual)


def missing(peers: list[str], absent: dict[str, str]) -> dict[str, str]:
    """Which scenarios of some peers cannot be measured, and why."""
    return {
        scenario.name: absent[peer] for peer in peers if peer in absent for scenario in PEERS[peer]
    }


def main(arguments: list[str]) -> None:
    """Run and print the table; exit with 1 below the bars."""
    said = parse(arguments)
    absent = installed.missing()
    if nginx.path() is None:
        absent |= dict.fromkeys(("nginx", "nginx-cache"), "nginx is not on PATH")
    scenarios = chosen(said.peer)
    said.scenario = list(scenarios)
    bench_for = partial(PeersBench, scenarios=scenarios, missing=missing(said.peer, absent))
    measure(said, bench_for, "-peers")
