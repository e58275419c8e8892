"""``python -m bench report RESULT.json …``: the page of each result, written beside it."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from bench import gates, machine
from bench.html.page import page
from bench.report import Result

BARS = machine.ROOT / "bench" / "bars.json"


def main(arguments: list[str]) -> None:
    """Write a page for each file named. Exits with 1 where one cannot be read, after the rest."""
    parser = argparse.ArgumentParser(prog="python -m bench report", description=__doc__)
    parser.add_argument("result", type=Path, nargs="+", metavar="RESULT.json")
    failed = False
    for file in parser.parse_args(arguments).result:
        try:
            print(f"written to {write(gates.read_result(file), file)}")
        except (OSError, msgspec.DecodeError) as error:
            print(f"FAILED: {error}", file=sys.stderr)
            failed = True
    sys.exit(failed)


def write(result: Result, source: Path, to: Path | None = None) -> Path:
    """Write the page of a result and of the earlier ones beside its ``source``; say where it is.

    That is beside the source too, unless ``to`` says otherwise. Raises OSError.
    """
    earlier, left_out = _earlier(result, sorted(source.parent.glob("*.json")))
    to = to or source.with_suffix(".html")
    to.write_text(page(result, gates.read_bars(BARS), earlier, left_out), encoding="utf-8")
    return to


def _earlier(result: Result, files: Iterable[Path]) -> tuple[list[Result], list[str]]:
    """Read what was measured before, the oldest first, and name what cannot be read."""
    found, left_out = [], []
    for file in files:
        try:
            one = gates.read_result(file)
        except (OSError, msgspec.DecodeError):
            left_out.append(file.name)
            continue
        if one.started_at < result.started_at:
            found.append(one)
    return sorted(found, key=lambda one: one.started_at), left_out
