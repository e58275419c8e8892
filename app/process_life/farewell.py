"""The end of all workers: told once, waited for, hurried at a second signal, killed at last."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from app.log import logger
from app.process_life.leaving import HURRY
from app.process_life.sanic_inside import process_of

TICK_S = 0.1
HURRY_S = 3.0
"""How long a hurried worker may still write what it remembers."""


class Place(Protocol):
    """What is to be known of a worker."""

    handle: object

    def is_leaving(self) -> bool:
        """Say whether the worker has heard that it shall end."""


class Farewell:
    """Ends the workers in their places, and those that were about to leave anyway."""

    def __init__(
        self,
        places: Iterable[Place],
        retiring: Iterable[BaseProcess],
        asked: Callable[[], int],
    ) -> None:
        self._places = {
            process: place for place in places if (process := process_of(place.handle)) is not None
        }
        self._all = [*self._places, *retiring]
        self._asked = asked

    def say(self, patience_s: float) -> None:
        """Return when no worker is left, after ``patience_s`` at most."""
        until_s = time.monotonic() + patience_s
        hurried = False
        while alive := [one for one in self._all if one.is_alive()]:
            now_s = time.monotonic()
            if now_s >= until_s:
                logger.warning("%d workers did not end in time and are killed", len(alive))
                for process in alive:
                    process.kill()
            elif self._asked() > 1 and not hurried:
                hurried = True
                until_s = min(until_s, now_s + HURRY_S)
                self._hurry(alive)
            else:
                self._tell(alive)
            wait([one.sentinel for one in alive], TICK_S)

    def _tell(self, alive: list[BaseProcess]) -> None:
        """Say it until it is heard: for some moments of its start a worker hears no signal.

        One that has heard is not told again: late in its end it would die of it.
        """
        for process in alive:
            place = self._places.get(process)
            if place is not None and not place.is_leaving():
                _send(process, signal.SIGTERM)

    def _hurry(self, alive: list[BaseProcess]) -> None:
        for process in alive:
            _send(process, HURRY)


def _send(process: BaseProcess, number: signal.Signals) -> None:
    if process.pid is not None:  # not waited for yet, so the number is still its own
        os.kill(process.pid, number)
