"""What a stage is, and how it is judged before it is timed."""

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from bench.micro.house import House


class Timed(Struct, frozen=True):
    """What is timed: ``call`` with one of ``inputs`` after the other."""

    call: Callable[[Any], object]
    inputs: Iterator[Any]
    is_right: Callable[[Any], bool]
    """Judges what the first call has returned."""


class Stage(Struct, frozen=True):
    """A part of the way; ``make`` prepares it in a worker of the proxy."""

    name: str
    says: str
    make: Callable[[House], Timed]


class BrokenStageError(Exception):
    """A stage does not do what it says: its time would mean nothing."""


def prepared(stage: Stage, house: House) -> Timed:
    """Make a stage ready to be timed. Raises BrokenStageError when its result is wrong."""
    timed = stage.make(house)
    result = timed.call(next(timed.inputs))
    try:
        right = timed.is_right(result)
    except (AttributeError, TypeError):  # nothing, or another thing
        right = False
    if not right:
        raise BrokenStageError(f"{stage.name} gave what it should not: {str(result)[:200]}")
    return timed
