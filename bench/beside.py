"""What is asked beside the load: new questions about another model, at a steady rate."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from msgspec import Struct

from bench.answers import WrongAnswerError
from bench.questions import Message
from bench.scenarios import COUNT_PATH, SLOW_S, Fault
from bench.slice import STALL_S, Address
from bench.traffic import body

PER_SECOND = 40
_THREADS = 20
"""Enough for the rate where each answer takes SLOW_S."""


class _Refusal(Struct):
    type: str


class _Refused(Struct):
    error: _Refusal


class _Counted(Struct):
    input_tokens: int


class Beside:
    """Asks until it is told to end, and judges each answer."""

    def __init__(self, fault: Fault, at: Address, key: str, tokens: Callable[[bytes], int]) -> None:
        self._fault = fault
        self._at = at
        self._headers = {"x-api-key": key, "content-type": "application/json"}
        self._tokens = tokens
        asked, nonce_at = body(fault.alias, 300)
        self._message = Message(b"", asked, nonce_at)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.asked = 0
        self.wrong = ""

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask meanwhile. Raises WrongAnswerError at the end: a wrong answer, or none at all."""
        threads = [threading.Thread(target=self._ask_on, args=(one,)) for one in range(_THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        if self.wrong or not self.asked:
            raise WrongAnswerError(f"beside: {self.wrong or 'nothing was answered'}")

    def _ask_on(self, number: int) -> None:
        every_s = _THREADS / PER_SECOND
        due_s = time.perf_counter() + every_s * number / _THREADS
        kind = http.client.HTTPSConnection if self._at.tls else http.client.HTTPConnection
        connection = kind(self._at.host, self._at.port, timeout=STALL_S)
        nonces = self._message.nonces()
        try:
            while not self._over.wait(max(0, due_s - time.perf_counter())):
                due_s += every_s
                self._ask(connection, self._message.with_nonce(next(nonces)))
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            self.wrong = self.wrong or repr(error)
        finally:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, asked: bytes) -> None:
        started_s = time.perf_counter()
        connection.request("POST", COUNT_PATH, asked, self._headers)
        reply = connection.getresponse()
        said = reply.read()
        if not self._is_right(reply.status, said, asked, time.perf_counter() - started_s):
            self.wrong = self.wrong or f"{reply.status} {said.decode(errors='replace')}"

    def _is_right(self, status: int, said: bytes, asked: bytes, took_s: float) -> bool:
        with self._lock:
            self.asked += 1
        if self._fault is Fault.LIMITED:
            kind = msgspec.json.decode(said, type=_Refused).error.type if status == 429 else ""
            return kind == "rate_limit_error"
        is_slow = self._fault is not Fault.SLOW or took_s >= SLOW_S
        counted = msgspec.json.decode(said, type=_Counted) if status == 200 else None
        return is_slow and counted == _Counted(self._tokens(asked))
