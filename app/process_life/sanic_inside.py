"""All that process life touches of Sanic's own inside; written against 25.12.1.

What is public is used as it is. The rest stands here and nowhere else, and
tests/unit/test_sanic_inside.py fails when a release moves it.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator, MutableSet
from functools import partial
from multiprocessing.process import BaseProcess, active_children
from typing import Any

from sanic import Sanic
from sanic.exceptions import ServerKilled
from sanic.http.constants import Stage
from sanic.worker.constants import ProcessState

LOST = (OSError, EOFError)
"""What it raises when the process that keeps Sanic's own state has died."""


class MainProcess:
    """Sanic's worker manager, with our own watch in place of its own."""

    def __init__(self, app: Sanic[Any, Any]) -> None:
        self._manager: Any = app.manager

    def watch_with(self, watch: Callable[[], int]) -> None:
        """Let ``watch`` run while workers do; what it returns is the exit code.

        Sanic's own loop marks a dead worker as failed and does no more; it kills the whole process
        group when one does not come up, and again at a second SIGTERM.
        """

        def run() -> None:
            self._manager.start()
            code = watch()
            self._manager._shutting_down = True  # noqa: SLF001
            with contextlib.suppress(*LOST):
                self._manager.cleanup()
            if code:
                raise ServerKilled  # Sanic's way to exit code 1

        vars(self._manager)["run"] = run

    def workers(self) -> list[Any]:
        """List Sanic's handles of the workers; each starts one process after the other."""
        return [one for one in self._manager.transient_processes if "Server" in one.name]

    def is_told_to_end(self) -> bool:
        """Say whether a signal came before our handlers, or a worker has said the word.

        Any other message is Sanic's own affair: ``sanic --reload`` restarts workers so.
        """
        ends = bool(self._manager._shutting_down)  # noqa: SLF001
        while self._manager.monitor_subscriber.poll():
            message = self._manager.monitor_subscriber.recv()
            if not message or message == "__TERMINATE__":
                ends = True
            elif message != "__TERMINATE_EARLY__":  # its death is seen anyway
                self._manager._handle_message(message)  # noqa: SLF001
        return ends


def start_again(worker: Any) -> None:
    """Start a new process under the handle's name; one that still runs is left alone."""
    worker.set_state(ProcessState.RESTARTING, force=True)
    worker.spawn()
    worker.start()


def process_of(worker: Any) -> BaseProcess | None:
    """Return the process that the handle has started last, while it is alive."""
    return next((one for one in active_children() if one.pid == worker.pid), None)


def hand_over(app: Sanic[Any, Any], name: str, value: object) -> None:
    """Put into ``shared_ctx`` what its own setter warns of: it is pickled for every new worker."""
    vars(app.shared_ctx)[name] = value


def handed_over(app: Sanic[Any, Any], name: str) -> Any:
    """Take what the main process has handed over; None where there is no main process."""
    return vars(app.shared_ctx).get(name)


def is_served() -> bool:
    """Say whether this process serves and listens to signals, rather than being under test."""
    return os.environ.get("SANIC_WORKER_PROCESS") == "true"


class Connections:
    """The connections of one server, and how to end them without losing a request."""

    def __init__(self, protocol_factory: partial[asyncio.Protocol]) -> None:
        self._app: Sanic[Any, Any] = protocol_factory.keywords["app"]
        self._all: MutableSet[Any] = protocol_factory.keywords["connections"]

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Any]:
        return iter(tuple(self._all))

    def announce_close(self) -> None:
        """Let every answer from now on carry ``connection: close``, those in flight too."""
        self._app.config.KEEP_ALIVE = False
        for one in self:
            if one.http is not None and one.http.stage is not Stage.IDLE:
                one.http.keep_alive = False

    def close_idle(self, silent_s: float) -> None:
        """Close the connections on which no request is under way, and nothing came for long."""
        now = time.monotonic()
        for one in self:
            # No time yet: the connection was accepted in this very turn of the loop.
            if one._time and now - one._time >= silent_s:  # noqa: SLF001
                one.close_if_idle()

    def no_more_waiting(self) -> None:
        """Let Sanic, which waits for connections once more, cut what is left instead."""
        self._app.config.GRACEFUL_SHUTDOWN_TIMEOUT = 0
