"""How a worker lives and leaves: it beats while its loop turns, and ends without losing a request.

signal ── notice ────────── listener closes ── idle ends ── last answer ── exit 0
  │    still listening,          │                               │
  │    readiness says 503        └── at most drain_s ────────────┘
  └── every answer from here on carries ``connection: close``
"""

import asyncio
import contextlib
import os
import signal
import time
from multiprocessing import parent_process
from typing import Any

from sanic import Sanic

from app.config import Settings
from app.log import logger
from app.process_life.board import Board, own_name
from app.process_life.listening import Listener
from app.process_life.sanic_inside import handed_over, is_served

BOARD = "board"
BEAT_S = 0.5
LOOK_S = 0.05
SILENT_S = 1.0
"""A connection on which nothing came for so long is closed without an answer that says so."""

END = (signal.SIGTERM, signal.SIGINT)
RETIRE = signal.SIGUSR1
"""To a worker whose successor serves already: end, but the server goes on."""
HURRY = signal.SIGUSR2


class WorkerLife:
    """The life of one worker process, from its first answer to its last."""

    def __init__(self, app: Sanic[Any, Any]) -> None:
        self._app = app
        self._settings: Settings = app.ctx.settings
        self._board: Board | None = handed_over(app, BOARD)
        self._row = self._board.row(own_name()) if self._board else None
        self._parent = parent_process()
        self._leaving: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    def begin(self) -> None:
        """Listen to signals, and beat. After the listener is open: a beat says that it serves."""
        if not is_served():
            return
        loop = asyncio.get_running_loop()
        for number in END:
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(RETIRE, self._retire)
        loop.add_signal_handler(HURRY, self._hurry.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._beat()

    def _beat(self) -> None:
        if self._board is not None and self._row is not None:
            self._board.beat(self._row)
        if self._parent is not None and os.getppid() != self._parent.pid:
            logger.error("the main process has died; this worker ends too")
            self._retire()
            return
        asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def _reload(self) -> None:
        if self._board is None:
            logger.warning("SIGHUP: a single process does not reload; the configuration stays")

    def _end(self) -> None:
        self._app.ctx.shutting_down = True
        alone = self._board is None
        if alone and self._leaving is not None:
            self._hurry.set()
        self._leave(notice_s=self._settings.server.drain_notice_s)

    def _retire(self) -> None:
        self._leave(notice_s=None)

    def _leave(self, notice_s: float | None) -> None:
        """Begin to end, once; a repeated signal changes nothing."""
        self._app.ctx.leaving.set()
        if self._leaving is None:
            if self._board is not None and self._row is not None:
                self._board.leave(self._row)
            self._leaving = asyncio.get_running_loop().create_task(self._drain(notice_s))

    async def _drain(self, notice_s: float | None) -> None:
        listener: Listener | None = getattr(asyncio.get_running_loop(), "listener", None)
        try:
            if listener is not None:
                await self._empty(listener, notice_s)
        finally:
            self._app.stop(terminate=False)

    async def _empty(self, listener: Listener, notice_s: float | None) -> None:
        connections = listener.connections
        connections.announce_close()
        until = time.monotonic() + self._settings.server.drain_s
        if notice_s is None:
            listener.close()
        else:
            await self._pause(notice_s)
            await listener.close_after_all()
            until += notice_s
        while connections and not self._hurry.is_set() and time.monotonic() < until:
            connections.close_idle(SILENT_S)
            await self._pause(LOOK_S)
        connections.no_more_waiting()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()


def outlive_hangup() -> None:
    """From before the first answer on: SIGHUP would end a process that has not asked for it."""
    with contextlib.suppress(ValueError):  # served from another thread, as tests do
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def hear_no_more() -> None:
    """From here on nothing may cut short what is still written. Sanic takes its handlers off.

    Whoever is stuck here is killed by the main process.
    """
    if is_served():
        for number in (*END, RETIRE, HURRY):
            signal.signal(number, signal.SIG_IGN)
