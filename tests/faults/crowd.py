"""Clients that keep their connections and honour ``connection: close``, and what they met."""

import asyncio
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Self

from msgspec import Struct

from tests.e2e.herd import children


class Answer(Struct, frozen=True):
    """One request: when it ended, its status (0 where there was no answer), and why not."""

    at_s: float
    took_s: float
    status: int
    process: str
    fault: str = ""


class Crowd:
    """``clients`` connections, each asking again as soon as it is answered, until left.

    A refused connection is a fault too, except after ``may_be_refused``: then the client goes.
    """

    def __init__(self, port: int, wire: bytes, clients: int = 8, pause_s: float = 0) -> None:
        self._port, self._wire, self._clients, self._pause_s = port, wire, clients, pause_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._reconnects = 0
        self.may_be_refused = False
        self.answers: list[Answer] = []
        self.first_process: Counter[str] = Counter()
        """Which worker took each connection."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def faults(self) -> list[Answer]:
        """What was no answer with status 200."""
        return [one for one in self.answers if one.status != 200]

    def wait_for(self, answers: int, within_s: float = 60) -> None:
        """Wait until so many more answers have come."""
        wanted = len(self.answers) + answers
        until_s = time.monotonic() + within_s
        while len(self.answers) < wanted:
            assert time.monotonic() < until_s, f"{len(self.answers)} answers, wanted {wanted}"
            time.sleep(0.01)

    def wait_until_all_are_gone(self, within_s: float = 30) -> None:
        """Wait until every client has been refused."""
        self._thread.join(within_s)
        assert not self._thread.is_alive()

    def reconnect(self) -> None:
        """Let one client after the other open a new connection."""
        self._reconnects += 1

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _client in range(self._clients):
                group.create_task(self._client())

    async def _client(self) -> None:
        while not self._over.is_set():
            started = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError as error:
                if self.may_be_refused:
                    return
                self._note(started, 0, "", f"not connected: {error!r}")
                await asyncio.sleep(0.05)
                continue
            try:
                await self._ask(reader, writer)
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        process, asked = "", 0
        while not self._over.is_set():
            started = time.monotonic()
            try:
                writer.write(self._wire)
                await writer.drain()
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                fields = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
                await reader.readexactly(int(fields["content-length"]))
            except (OSError, asyncio.IncompleteReadError) as error:
                self._note(started, 0, process, f"request {asked} of a connection: {error!r}")
                return
            if not asked:
                process = fields["request-id"][: len("req_") + 16]
                self.first_process[process] += 1
            asked += 1
            self._note(started, int(head.split()[1]), process, "")
            if fields["connection"] == "close":
                return
            if self._reconnects:
                self._reconnects = 0
                return
            await asyncio.sleep(self._pause_s)

    def _note(self, started: float, status: int, process: str, fault: str) -> None:
        now = time.monotonic()
        self.answers.append(Answer(now, now - started, status, process, fault))


def workers(main: int) -> dict[str, int]:
    """Return the worker processes by name, the youngest of each; those that have ended are none."""
    found: dict[str, int] = {}
    for pid in sorted(children(main)):
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        name = next((one for one in environ if one.startswith(b"SANIC_WORKER_NAME=")), None)
        if name is not None and state != "Z":
            found[name.partition(b"=")[2].decode()] = pid
    return found
