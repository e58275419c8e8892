"""More questions a second than a budget allows, none asked before, and what became of them."""

import asyncio
import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Self
from uuid import uuid4

import msgspec
from msgspec import Struct

from tests.e2e.exchange import COUNT, request
from tests.server import KEY

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
MINUTE_S = 60.0
UNANSWERED_S = 40.0
"""Longer than any deadline: who is still out at the end after so long was never answered."""


class Answer(Struct, frozen=True):
    """One question: when it was answered, how long that took, by whom; status 0: not at all."""

    at_s: float
    took_s: float
    status: int = 0
    process: str = ""
    retry_after: str = ""


class Flood:
    """``rate`` questions a second about ``model``, whether or not those before are answered.

    A question takes a connection that is free, or opens one, of each port in turn.
    """

    def __init__(
        self, ports: Sequence[int], model: str, rate: float, *, key: str = KEY, most: int = 600
    ) -> None:
        self._ports = itertools.cycle(ports)
        self._model, self._rate, self._key, self._most = model, rate, key, most
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._free: deque[Client] = deque()
        self._all: list[Client] = []
        self._out: set[asyncio.Task[None]] = set()
        self.answers: list[Answer] = []

    def __enter__(self) -> Self:
        self.began_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended_s = time.monotonic()
        self._over.set()
        self._thread.join()

    def asked_per_s(self) -> float:
        """How many were really asked."""
        return len(self.answers) / (self.ended_s - self.began_s)

    def counted(self) -> list[Answer]:
        """Those that went to the provider."""
        return [one for one in self.answers if one.status == 200]

    def statuses(self) -> Counter[int]:
        """How many of each; 0: a connection that ended, or no answer at all."""
        return Counter(one.status for one in self.answers)

    async def _run(self) -> None:
        started = time.monotonic()
        for number in itertools.count():
            pause_s = started + number / self._rate - time.monotonic()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            if self._over.is_set():
                break
            if len(self._out) < self._most:
                task = asyncio.create_task(self._ask())
                self._out.add(task)
                task.add_done_callback(self._out.discard)
            elif not number % 100:
                await asyncio.sleep(0)
        for task in self._out:
            task.cancel()
        for _, writer in self._all:
            writer.close()

    async def _ask(self) -> None:
        content = uuid4().hex
        body = {"model": self._model, "messages": [{"role": "user", "content": content}]}
        wire = request(msgspec.json.encode(body), target=COUNT)
        wire = wire.replace(KEY.encode(), self._key.encode(), 1)
        started = time.monotonic()
        try:
            client = self._free.popleft() if self._free else await self._connect()
            reader, writer = client
            writer.write(wire)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            fields = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
            await reader.readexactly(int(fields["content-length"]))
            process = fields["request-id"][: len("req_") + 16]
            closes = fields["connection"] == "close"
        except (OSError, asyncio.IncompleteReadError, KeyError):
            self.answers.append(Answer(time.monotonic(), time.monotonic() - started))
            return
        except asyncio.CancelledError:
            if time.monotonic() - started > UNANSWERED_S:
                self.answers.append(Answer(time.monotonic(), time.monotonic() - started))
            raise
        if closes:
            writer.close()
        else:
            self._free.append(client)
        status, wait = int(head.split()[1]), fields.get("retry-after", "")
        now = time.monotonic()
        self.answers.append(Answer(now, now - started, status, process, wait))

    async def _connect(self) -> Client:
        client = await asyncio.open_connection("127.0.0.1", next(self._ports))
        self._all.append(client)
        return client


def most_in_a_minute(times: Iterable[float]) -> int:
    """The most that lie in any 60 s, both ends included."""
    most, window = 0, deque[float]()
    for one in sorted(times):
        window.append(one)
        while one - window[0] > MINUTE_S:
            window.popleft()
        most = max(most, len(window))
    return most


def fewest_in_a_minute(times: Iterable[float], began_s: float, ended_s: float) -> int:
    """The fewest that lie in any 60 s of the time between."""
    sorted_ = sorted(one for one in times if began_s <= one <= ended_s)
    fewest = len(sorted_)
    # Just after one that leaves the window, or up to just before one that comes into it.
    starts = [began_s, *sorted_, *(one - MINUTE_S for one in sorted_)]
    for start in starts:
        if began_s <= start <= ended_s - MINUTE_S:
            fewest = min(fewest, sum(start < one < start + MINUTE_S for one in sorted_))
    return fewest
