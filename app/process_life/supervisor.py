"""The main process: sees that every worker serves, changes them all, and ends them.

One loop in the main thread, ten times a second and at every death of a worker; signals only set
a flag for it. So nothing here runs at the same time as anything else here.
"""

import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess, active_children
from types import FrameType
from typing import Protocol

from app.log import describe, logger
from app.process_life.board import Board
from app.process_life.farewell import Farewell
from app.process_life.leaving import RETIRE
from app.process_life.sanic_inside import LOST, MainProcess, process_of
from app.process_life.slot import Slot

TICK_S = 0.1
AWAKE_S = 0.5
"""At most so much of one tick counts as a worker's silence: a main process that was itself
stopped, or did not get the processor, has heard nobody."""
BEYOND_DRAIN_S = 5.0


class Change(Protocol):
    """A configuration that workers which start from now on are given."""

    def take_back(self) -> None:
        """Give workers that start from now on the one before again."""

    def finish(self) -> None:
        """No worker of the one before is left."""


class Supervisor:
    """Watches the workers of one server.

    ``reload`` reads the configuration again, and returns the change to it; None for none.
    """

    def __init__(
        self,
        main: MainProcess,
        board: Board,
        reload: Callable[[], Change | None],
        drain_s: Callable[[], float],
    ) -> None:
        self._main = main
        self._board = board
        self._reload = reload
        self._drain_s = drain_s
        self._slots = [Slot(handle, board) for handle in main.workers()]
        self._retiring: list[tuple[BaseProcess, float]] = []
        self._change: Change | None = None
        self._ends_asked = 0
        self._reload_asked = False

    def install(self, close_listening: Callable[[], None]) -> None:
        """Take the place of Sanic's own watch and of its signals."""
        self._close_listening = close_listening
        self._main.watch_with(self.watch)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_end)
        signal.signal(signal.SIGHUP, self._on_reload)

    def _on_end(self, _number: int, _frame: FrameType | None) -> None:
        self._ends_asked += 1

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reload_asked = True

    def watch(self) -> int:
        """Watch until the end, and return the exit code."""
        code = 0
        last_s = time.monotonic()
        try:
            while not (self._ends_asked or self._main.is_told_to_end()):
                wait([one.sentinel for one in active_children()], TICK_S)
                now_s = time.monotonic()
                self._look(now_s, min(now_s - last_s, AWAKE_S))
                last_s = now_s
        except CrashLoopError as error:
            logger.error("%s: the server ends", error)
            code = 1
        self._close_listening()
        for slot in self._slots:
            if slot.predecessor is not None:
                self._retire(slot.predecessor, last_s)
        retiring = [process for process, _until_s in self._retiring]
        farewell = Farewell(self._slots, retiring, lambda: self._ends_asked)
        farewell.say(self._drain_s() + BEYOND_DRAIN_S)
        return code

    def _look(self, now_s: float, awake_s: float) -> None:
        for slot in self._slots:
            if slot.start_at_s is not None:
                if now_s >= slot.start_at_s:
                    _start(slot)
            elif not slot.handle.is_alive():
                self._mourn(slot, now_s)
            elif not slot.listen(now_s, awake_s):
                logger.error("%s is stuck and is killed", slot.handle.name)
                slot.silent_s = 0.0
                os.kill(slot.handle.pid, signal.SIGKILL)
        self._roll(now_s)

    def _mourn(self, slot: Slot, now_s: float) -> None:
        if slot.predecessor is not None and self._change is not None:
            self._roll_back(self._change)
            slot.start_at_s = now_s
            return
        delay_s = slot.deaths.add(now_s, slot.served_s(now_s))
        name, code = slot.handle.name, slot.handle.exitcode
        # The one before still serves: a server that may not change is no server that is down.
        is_served = slot.predecessor is not None and slot.predecessor.is_alive()
        if slot.deaths.are_too_many() and not is_served:
            raise CrashLoopError(f"{name} does not stay up (it last ended with {code})")
        logger.error("%s has ended (%s); a new one starts in %g s", name, code, delay_s)
        slot.start_at_s = now_s + delay_s
        if not delay_s:
            _start(slot)

    def _roll(self, now_s: float) -> None:
        """Change one worker after the other: the new one serves before the old one leaves.

        slot 0  old ════════ serves ═══════╪ SIGUSR1 ── drains ── ends
                new     ┌── starts ── beats╛══════ serves ═════════════
        slot 1  old ═══════════════════════════════ serves ═══ …
        """
        for process, until_s in self._retiring:
            if now_s >= until_s and process.is_alive():
                process.kill()
        self._retiring = [one for one in self._retiring if one[0].is_alive()]
        changing = [slot for slot in self._slots if slot.predecessor is not None]
        for slot in changing:
            if slot.beats and slot.predecessor is not None:
                self._retire(slot.predecessor, now_s)
                slot.predecessor = None
                changing = []
        if changing:
            return
        old = [slot for slot in self._slots if slot.generation != self._board.generation]
        if old:
            self._succeed(old[0])
        elif self._retiring:
            return
        elif self._change is not None:
            self._change.finish()
            self._change = None
            logger.info("all workers serve the new configuration")
        elif self._reload_asked:
            self._reload_asked = False
            self._change = self._reload()
            self._board.generation += self._change is not None

    def _succeed(self, slot: Slot) -> None:
        if slot.start_at_s is not None:  # it starts anew anyway, then with what is new
            slot.generation = self._board.generation
            return
        slot.predecessor = process_of(slot.handle)
        _start(slot)

    def _retire(self, process: BaseProcess, now_s: float) -> None:
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, RETIRE)
            self._retiring.append((process, now_s + self._drain_s() + BEYOND_DRAIN_S))

    def _roll_back(self, change: Change) -> None:
        """Give every worker the old configuration again: with the new one they do not come up."""
        logger.error("a worker does not start with the new configuration: the old one is kept")
        change.take_back()
        self._change = None
        self._board.generation += 1


def _start(slot: Slot) -> None:
    """Start a process; one that cannot be started counts as one that has died."""
    try:
        slot.start()
    except LOST as error:
        logger.error("%s: no process can be started: %s", slot.handle.name, describe(error))


class CrashLoopError(Exception):
    """A worker dies however often it is started."""
