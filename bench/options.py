"""The command line."""

import argparse
from pathlib import Path

from bench import h2load, wrk
from bench.named import ALL, GROUPS, NAMED
from bench.scenarios import SCENARIOS


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the process where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_epilog(),
    )
    parser.add_argument("--seconds", type=float, default=1, help="for each slice (default 1)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--processes", type=int, default=1, help="of the own load generator")
    parser.add_argument(
        "--engine",
        choices=("auto", "own", "wrk", "h2load"),
        default="auto",
        help="what asks where it can: wrk or h2load, in whole seconds (auto: wrk if on PATH)",
    )
    parser.add_argument("--scenario", nargs="+", choices=(*ALL, *GROUPS), metavar="NAME")
    parser.add_argument("--soak-s", type=float, default=60, help="how long `soak` takes")
    parser.add_argument("--json", metavar="FILE", help="write the result there, not to results/")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write the page there, not beside the JSON"
    )
    parser.add_argument(
        "--baseline", type=Path, metavar="FILE", help="exit with 1 below these bars (bars.json)"
    )
    parser.add_argument(
        "--compare", type=Path, nargs=2, metavar="FILE", help="two results; measure nothing"
    )
    parser.add_argument("--target", metavar="URL", help="ask this server; start no proxy")
    parser.add_argument("--key", default="sk-bench-0123456789abcdef")
    parser.add_argument("--model", default="bench-model")
    options = parser.parse_args(arguments)
    programs = {"wrk": wrk.path, "h2load": h2load.path}
    if options.engine in programs and programs[options.engine]() is None:
        parser.error(f"{options.engine} is not on PATH")
    possible = [
        name for name, scenario in ALL.items() if not options.target or not scenario.is_ours
    ]
    named = options.scenario or [name for name in possible if name in SCENARIOS]
    chosen = {one for name in named for one in GROUPS.get(name, (name,))}
    if unfit := sorted(chosen - set(possible)):
        parser.error(
            "with --target nobody sets keys, and nobody counts the provider's calls: "
            + ", ".join(unfit)
        )
    if any(ALL[name].is_open for name in chosen):
        chosen.add("repeat")  # which says at what rate
    options.scenario = [name for name in ALL if name in chosen]
    return options


def _epilog() -> str:
    lines = [f"{name:21} {scenario.says}" for name, scenario in SCENARIOS.items()]
    lines += ["", "only when named:", ""]
    lines += [f"{name:21} {scenario.says}" for name, scenario in NAMED.items()]
    lines += ["", *(f"{group:21} {' '.join(names)}" for group, names in GROUPS.items())]
    return "\n".join(lines)
