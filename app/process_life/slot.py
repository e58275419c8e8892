"""One worker's place: it stays, whichever process is in it."""

from multiprocessing.process import BaseProcess
from typing import Any

from app.process_life.board import Board
from app.process_life.crash_loop import Deaths
from app.process_life.sanic_inside import start_again

STUCK_S = 10.0
START_S = 30.0


class Slot:
    """One worker's place: Sanic's handle, and what is known of the process in it."""

    def __init__(self, handle: Any, board: Board) -> None:
        self.handle = handle
        self._board = board
        self.deaths = Deaths()
        self.predecessor: BaseProcess | None = None
        """The process of the old configuration, until this one serves."""
        self.start_at_s: float | None = None
        """When the next start is due; None while a process lives."""
        self._born()

    def _born(self) -> None:
        self.generation = self._board.generation
        self.row = self._board.row(self.handle.name)
        self.beats = self.silent_s = 0.0
        self.serves_since_s: float | None = None

    def start(self) -> None:
        """Put a new process into the place."""
        self._born()
        self.start_at_s = None
        if self.row is not None:
            self._board.clear(self.row)
        start_again(self.handle)

    def listen(self, now_s: float, awake_s: float) -> bool:
        """Hear the heart; False when it has been silent for too long."""
        beats = 0.0 if self.row is None else self._board.beats(self.row)
        if beats != self.beats:
            self.beats, self.silent_s = beats, 0.0
            self.serves_since_s = self.serves_since_s or now_s
        elif self.row is not None:
            self.silent_s += awake_s
        return self.silent_s < (STUCK_S if self.beats else START_S)

    def served_s(self, now_s: float) -> float:
        """Say how long the process has served."""
        return now_s - self.serves_since_s if self.serves_since_s else 0.0

    def is_leaving(self) -> bool:
        """Say whether the worker has heard that it shall end."""
        return self.row is not None and self._board.is_leaving(self.row)
