"""What a command says: results on standard output, everything else on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

STEP = 500
"""The bar moves once in so many steps: drawing it must not be the work."""


def say(line: str) -> None:
    """Write a line of the result."""
    sys.stdout.write(f"{line}\n")


def remark(line: str) -> None:
    """Write a line beside the result."""
    sys.stderr.write(f"{line}\n")


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a bar while the block runs, on a terminal only; the block tells it each step."""
    console = Console(stderr=True)
    count = MofNCompleteColumn() if total is not None else TextColumn("{task.completed}")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), count)
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    waiting = 0
    with shown:
        task = shown.add_task(what, total=total)

        def advance(steps: int) -> None:
            nonlocal waiting
            waiting += steps
            if waiting >= min(STEP, total or STEP) or steps > 1:
                shown.advance(task, waiting)
                waiting = 0

        yield advance
