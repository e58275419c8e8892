"""A real Redis or Valkey server: a process of its own on loopback, ended by its pid."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import redis

from tests.server import free_port

START_S = 10.0

# Redis must be here (a skip otherwise, which CI takes for a failure); Valkey joins where it is.
BINARIES = ["redis-server", *(["valkey-server"] if shutil.which("valkey-server") else [])]


def in_loop(
    test: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """Run a test's coroutine in a loop of its own; whatever the loop complains of fails it."""

    def run(server: "RedisServer") -> None:
        complaints: list[str] = []

        async def guarded() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
            await asyncio.wait_for(test(server), 50)

        asyncio.run(guarded())
        assert not complaints, complaints

    run.__name__ = test.__name__
    return run


class RedisServer:
    """Keeps nothing on disk; ``options`` are its own command line's."""

    def __init__(self, folder: Path, binary: str = "redis-server", *options: str) -> None:
        path = shutil.which(binary)
        if path is None:
            pytest.skip(f"{binary} is missing: the cluster's cache cannot be tested")
        self._command = [path, *options]
        self._folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start it, on the same port as before, and wait until it answers."""
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *fixed, "--save", "", "--appendonly", "no"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            self.do("PING")
        except (redis.AuthenticationError, redis.exceptions.ResponseError):
            return True
        except redis.ConnectionError:
            return False
        return True

    def do(self, *command: str | bytes | int) -> Any:
        """Run a command as the operator."""
        with redis.Redis(port=self.port, socket_timeout=10) as client:
            return client.execute_command(*command)

    def pause(self) -> None:
        """Let it keep its connections and answer nothing."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again."""
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; what it held is gone."""
        self.resume()
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.kill()
