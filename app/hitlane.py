"""The hit lane: questions are answered where their bytes arrive, before the framework wakes.

bytes ─ idle connection? ─ these very bytes? ──────────────────────yes──────► written at once
          │ no               └─ head understood? ─ body whole? ─ known? ─yes─► written at once
          │                        │ no              └ waits       │ no, and small
          ▼                        ▼                               ▼
        StrictProtocol ◄──── whole and unchanged          asked: `app.lane_flight`

A connection is the lane's only between requests: until the ordinary way has answered what it was
handed, or the lane what it asks, nothing that follows is looked at.
"""

import time
from asyncio import Task, TimerHandle
from typing import Any

from sanic.http.constants import Stage

from app.errors import ProxyError
from app.ids import new_request_id
from app.known_heads import END, Begun
from app.lane import HitLane
from app.lane_flight import Unknown, ask, written
from app.log import describe, warn_operator
from app.repeats import Digest
from app.strict_http import HALF_CLOSED_S, SMALL_BYTES, StrictHttp, StrictProtocol

PATIENCE_S = 0.5
"""For the rest of a body; the ordinary way then goes on waiting, by its own clock."""
MAX_BEHIND_BYTES = 64 * 1024
MAX_BODY_BYTES = 4 * 1024 * 1024
VIEWED_BYTES = 4096
"""From this size on a body is not copied to be digested."""


class Partial:
    """A request of which the rest has yet to come."""

    __slots__ = ("begun", "digest", "missing_bytes", "pieces", "timer")

    def __init__(self, begun: Begun, digest: Digest) -> None:
        self.begun = begun
        self.digest = digest
        self.pieces: list[bytes] = []
        self.missing_bytes = 0
        self.timer: TimerHandle | None = None


class LaneProtocol(StrictProtocol):
    """Sanic's protocol, read strictly, with the lane on top."""

    __slots__ = ("_begun", "_behind", "_flight", "_head", "_lane", "_partial")
    _http: StrictHttp | None
    _lane: HitLane
    _head: bytes
    """The last head that was understood, with its empty line: clients say the same again."""
    _begun: Begun | None
    _partial: Partial | None
    _flight: Task[None] | None
    """A question that is being asked: until it is answered nothing else is."""
    _behind: bytes
    """What has come meanwhile."""

    def connection_made(self, transport: Any) -> None:
        """Begin without a head."""
        self._lane = self.app.ctx.lane
        self._begun = None
        self._head = b""
        self._partial = None
        self._flight = None
        self._behind = b""
        self._http = None
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Answer what can be answered here, one request after the other; hand on the rest."""
        if self._partial is not None:
            data = self._more(self._partial, data)
        while data:
            if self._flight is not None:
                self._keep(data)
                return
            try:
                used = (self._repeat(data) or self._take(data)) if self._is_free() else 0
            except Exception as error:  # noqa: BLE001 -- whatever it is, the ordinary way answers
                warn_operator(f"hit lane: {describe(error)}")
                used = 0
            if not used:
                super().data_received(data)
                return
            data = data[used:]

    def eof_received(self) -> bool:
        """Let what is being asked be answered; Sanic's task, which waits, must not hear of it."""
        if self._flight is None:
            return super().eof_received()
        self.has_ended = True
        self.loop.call_later(HALF_CLOSED_S, self._end)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was still to come, and leave what is still being asked."""
        if self._flight is not None:
            self._flight.cancel()
        if self._partial is not None:
            self._end_partial(self._partial)
        super().connection_lost(exc)  # type: ignore[no-untyped-call]

    def _is_free(self) -> bool:
        """Say whether the lane may answer: nothing of the ordinary way is under way."""
        http = self._http
        # At the very beginning the connection's task has not yet run: nothing can be under way.
        idle = http.is_idle if http is not None else self._task is not None and not self.recv_buffer
        return (
            idle
            and self._can_write.is_set()
            and not self.is_beyond
            # While the server ends, each answer has to say that its connection closes.
            and self.app.config["KEEP_ALIVE"]
        )

    def _repeat(self, data: bytes) -> int:
        """Answer a request that is known as a whole; return its length, 0 if it is not."""
        started_s = time.monotonic()
        written = self._lane.answer_again(data, started_s)
        if written is None or self.transport is None:
            return 0
        self.transport.write(written)
        self._time = started_s
        return len(data)

    def _take(self, data: bytes) -> int:
        """Answer a request, or begin to; return how many bytes of it have come, 0 if not ours."""
        started_s = time.monotonic()
        begun, start = self._begun, len(self._head)
        if begun is None or not data.startswith(self._head):
            start = data.find(END) + len(END)
            if not len(END) < start <= StrictHttp.HEADER_MAX_SIZE:
                return 0
            begun = self._lane.understand(data[: start - len(END)])
            if begun is None:
                return 0
            self._head, self._begun = data[:start], begun
        if begun.body_bytes > SMALL_BYTES and not self._has_room(begun.body_bytes):
            return 0
        digest = begun.digest()
        end = start + begun.body_bytes
        if end > len(data):
            return self._wait(begun, digest, data, start)
        if begun.body_bytes < VIEWED_BYTES:
            digest.update(data[start:end])
        else:
            digest.update(memoryview(data)[start:end])
        pieces = (data if end == len(data) else data[:end],)
        found = self._lane.answer(begun, digest.digest(), pieces, started_s)
        return end if self._say(found) else 0

    def _has_room(self, size_bytes: int) -> bool:
        try:
            if self._http is not None:
                self._http.check_room(size_bytes)
        except ProxyError:
            return False
        return self._http is not None

    def _say(self, found: bytes | Unknown | None) -> bool:
        """Answer, or begin to ask; False for what is the ordinary way's."""
        http = self._http
        if found is None or self.transport is None:
            return False
        if isinstance(found, bytes):
            self.transport.write(found)
        elif http is None:
            return False
        else:
            # Busy, as Sanic says it: while it ends it lets this request be answered, too.
            http.stage = Stage.HANDLER
            self._flight = self.loop.create_task(self._ask(http, found))
        self._time = time.monotonic()
        return True

    async def _ask(self, http: StrictHttp, unknown: Unknown) -> None:
        """Answer a question that nobody here remembers, and go on with what came behind it."""
        try:
            request_id = new_request_id()
            outcome = await ask(self.app.ctx.worker, unknown, request_id)
            stays_open = http.keep_alive and self.app.config["KEEP_ALIVE"]
            ip = self.conn_info.client_ip if self.conn_info is not None else ""
            answer = written(unknown, request_id, outcome, ip, stays_open=stays_open)
        except Exception as error:  # noqa: BLE001 -- a client is not left waiting, whatever it is
            warn_operator(f"hit lane: {describe(error)}")
            answer, stays_open = b"", False
        self._flight = None
        if self.transport is None or self.transport.is_closing():
            return
        self.transport.write(answer)
        self._time = time.monotonic()
        http.stage = Stage.IDLE
        if not stays_open:
            self.close()
            return
        behind, self._behind = self._behind, b""
        if behind:
            self.transport.resume_reading()
            self.data_received(behind)
        if self.has_ended and http.is_idle:
            self._end()

    def _keep(self, data: bytes) -> None:
        """Keep what comes before the answer to what came before it."""
        self._behind += data
        if self.transport is not None and len(self._behind) >= MAX_BEHIND_BYTES:
            self.transport.pause_reading()

    def _wait(self, begun: Begun, digest: Digest, data: bytes, start: int) -> int:
        """Keep the beginning of a request whose body comes in pieces."""
        http = self._http
        if http is None or begun.body_bytes > MAX_BODY_BYTES:
            return 0
        try:
            http.hold(len(data) - start)
        except ProxyError:
            return 0
        digest.update(memoryview(data)[start:])
        partial = self._partial = Partial(begun, digest)
        partial.pieces.append(data)
        partial.missing_bytes = start + begun.body_bytes - len(data)
        partial.timer = self.loop.call_later(PATIENCE_S, self._hand_on, partial)
        self._time = time.monotonic()
        return len(data)

    def _more(self, partial: Partial, data: bytes) -> bytes:
        """Add to a request; return what comes behind it."""
        started_s = time.monotonic()  # as the ordinary way, which begins when a body is whole
        piece, behind = data, b""
        if len(data) > partial.missing_bytes:
            piece, behind = data[: partial.missing_bytes], data[partial.missing_bytes :]
        partial.pieces.append(piece)
        partial.digest.update(piece)
        partial.missing_bytes -= len(piece)
        self._time = time.monotonic()
        if partial.missing_bytes:
            try:
                if self._http is not None:
                    self._http.hold(len(piece))
            except ProxyError:
                self._hand_on(partial)
            return b""
        found = self._complete(partial, started_s) if self._is_free() else None
        if self._say(found):
            self._end_partial(partial)
        else:
            self._hand_on(partial)
        return behind

    def _complete(self, partial: Partial, started_s: float) -> bytes | Unknown | None:
        """Answer a request of which all has come; None also for a fault of the lane."""
        try:
            digest = partial.digest.digest()
            return self._lane.answer(partial.begun, digest, partial.pieces, started_s)
        except Exception as error:  # noqa: BLE001 -- as in `data_received`
            warn_operator(f"hit lane: {describe(error)}")
            return None

    def _hand_on(self, partial: Partial) -> None:
        """Let the ordinary way have what has come."""
        self._end_partial(partial)
        super().data_received(b"".join(partial.pieces))

    def _end_partial(self, partial: Partial) -> None:
        self._partial = None
        if partial.timer is not None:
            partial.timer.cancel()
        if self._http is not None:
            self._http.let_go()
