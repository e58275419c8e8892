"""What the hit lane answers: repeats, and who is to be asked what is none.

It decides nothing. A head is judged and understood by the functions of the ordinary way, a body is
looked up in its memo and read by its reader.

bytes ─ the very bytes of a request that was answered here before? ──────────► written at once
 └─ head ─ digest ─ known bytes? ─ or a known question in other bytes? ──────► written, and kept
                     └─ a small question that nobody here remembers ─────────► `app.lane_flight`
"""

import time
from collections.abc import Sequence
from http import HTTPStatus

from msgspec import Struct
from msgspec.structs import replace

from app import answers
from app.errors import ProxyError
from app.ids import new_request_id
from app.keys import Answer
from app.known_heads import END, Begun, Known, KnownHeads
from app.lane_flight import Unknown
from app.leader import Journey
from app.question import Question, decode_after
from app.recent import Recent
from app.repeats import LARGE_BYTES, Repeat
from app.telemetry import CountEvent
from app.telemetry.metrics import Kind, Series
from app.telemetry.usage import Cell, Names
from app.telling import event_of
from app.workers import Worker
from cache.tiers import Record

MAX_READY = 8192
"""Answers that stay written; each takes about half a kilobyte."""
MAX_CELLS = 8
"""Who asks one question, for whom a prepared answer knows where their use is kept."""
MAX_WHOLE, MAX_WHOLE_BYTES = 8192, 4096
MAX_WHOLES_BYTES = 8 * 1024 * 1024
"""Whole requests that are known by their bytes, how long one may be, and all together."""


class Ready(Struct, frozen=True, gc=False):
    """An answer as it was written before."""

    repeat: Repeat
    record: Record
    tokens: int
    answer: Answer
    written: bytes
    series: Series
    """Where it is counted."""
    cells: dict[tuple[str, str], Cell]
    """Likewise in the ledger, by who asks: each holds until its minute ends."""


class Whole:
    """What a request that is known by its very bytes is, and where its use is kept."""

    __slots__ = ("begun", "cell", "ready")

    def __init__(self, begun: Begun, ready: Ready, cell: Cell) -> None:
        self.begun = begun
        self.ready = ready
        self.cell = cell


class HitLane:
    """One worker's answers to repeats."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._heads = KnownHeads(worker.settings, worker.authenticator, worker.repeats)
        self.understand = self._heads.understand
        self._ready: Recent[Ready] = Recent(MAX_READY)
        self._whole: Recent[Whole] = Recent(MAX_WHOLE, MAX_WHOLES_BYTES)
        self._local = worker.tiers.local
        self._generations = worker.tiers.generations

    def answer_again(self, whole: bytes, started_s: float) -> bytes | None:
        """Answer a request that has come before in these very bytes; None for all else.

        Who asks, and whether they may, was judged then: no configuration outlives its process.
        """
        found = self._whole.get(whole) if len(whole) <= MAX_WHOLE_BYTES else None
        if found is None:
            return None
        ready = found.ready
        repeat = ready.repeat
        if repeat.changes != self._generations.changes:
            return None
        if self._local.get(repeat.key, repeat.max_age_s) is not ready.record:
            return None
        cell = found.cell
        if started_s >= cell.until_s:
            cell = found.cell = self._cell(found.begun, ready, started_s)
        return self._write(found.begun, ready, cell, (whole,), started_s)

    def answer(
        self, begun: Begun, digest: bytes, pieces: Sequence[bytes], started_s: float
    ) -> bytes | Unknown | None:
        """Answer what this worker remembers, and tell of it; say what is asked where it does not.

        None for what the ordinary way is to read: large questions, and what it refuses. ``pieces``
        are the whole request, ``started_s`` is on the clock of ``time.monotonic``.
        """
        worker = self._worker
        found = worker.repeats.find(digest, begun.known.caller)
        if found is None:
            read = self._find(begun, digest, pieces, started_s)
            if not isinstance(read, tuple):
                return read
            found = read
        repeat, record = found
        ready = self._ready.get(digest)
        is_new = ready is None or ready.record is not record or ready.repeat is not repeat
        if ready is None or is_new:
            ready = self._ready.put(digest, self._prepare(repeat, record))
        cell = self._cell(begun, ready, time.monotonic())
        if not is_new and begun.is_plain and len(pieces) == 1 and len(pieces[0]) <= MAX_WHOLE_BYTES:
            # Not the first time: what comes once does not push out what comes again and again.
            self._whole.put(pieces[0], Whole(begun, ready, cell))
        return self._write(begun, ready, cell, pieces, started_s)

    def _write(
        self, begun: Begun, ready: Ready, cell: Cell, pieces: Sequence[bytes], started_s: float
    ) -> bytes:
        """Give the bytes of an answer, and tell of it."""
        worker = self._worker
        request_id = new_request_id()
        now_s = time.monotonic()
        worker.metrics.add(ready.series, now_s - started_s, ready.tokens)
        cell.hits += 1
        cell.tokens += ready.tokens
        if one_of := worker.sampling.takes(now_s):
            event = _event(begun, ready, request_id, started_s)
            worker.telemetry.record(replace(event, one_of=one_of))
        if now_s >= worker.sentinel.next_s and worker.sentinel.wants(ready.answer, now_s):
            known = begun.known
            worker.sentinel.recount(lambda: _read(pieces, known), known.caller, ready.answer)
        return answers.begin(request_id, begun.echo) + ready.written

    def _find(
        self, begun: Begun, digest: bytes, pieces: Sequence[bytes], started_s: float
    ) -> tuple[Repeat, Record] | Unknown | None:
        """Look up a question that was asked before in other bytes."""
        if begun.body_bytes >= LARGE_BYTES:
            return None
        known = begun.known
        counter, caller = self._worker.counter, known.caller
        try:
            question = _read(pieces, known)
            route = counter.route(question, caller)
        except ProxyError:
            return None
        found = counter.known(question, caller, route)
        if isinstance(found, Answer):
            repeat = self._worker.repeats.learn(digest, question, route, found)
            return None if repeat is None else (repeat, found.record)
        return Unknown(begun, digest, question, route, found, started_s)

    def _cell(self, begun: Begun, ready: Ready, now_s: float) -> Cell:
        """Find where the ledger keeps who asks this; add to it before anything else is awaited."""
        caller, end_user = who = begun.known.who
        cell = ready.cells.get(who)
        if cell is not None and now_s < cell.until_s:
            return cell
        repeat, answer = ready.repeat, ready.answer
        deployment = answer.deployment
        names = Names(
            caller,
            end_user or repeat.body_end_user,
            repeat.route.alias,
            deployment.endpoint.upstream_model,
            deployment.provider,
            answer.source,
        )
        cell = self._worker.usage.cell(names, now_s)
        if len(ready.cells) >= MAX_CELLS:
            ready.cells.clear()
        ready.cells[who] = cell
        return cell

    def _prepare(self, repeat: Repeat, record: Record) -> Ready:
        answer, alias = repeat.answer(record), repeat.route.alias
        kind = Kind(alias, HTTPStatus.OK, answer.source, answer.tier, by_lane=True)
        series = self._worker.metrics.series(kind)
        tokens = record.input_tokens
        return Ready(
            repeat, record, tokens, answer, answers.rest(answer, stays_open=True), series, {}
        )


def _read(pieces: Sequence[bytes], known: Known) -> Question:
    """Decode a request whose head is known. Raises ProxyError."""
    raw = b"".join(pieces)
    return decode_after(known.said, raw[raw.index(END) + len(END) :], known.query)


def _event(begun: Begun, ready: Ready, request_id: str, started_s: float) -> CountEvent:
    repeat = ready.repeat
    end_user = begun.known.said.end_user or repeat.body_end_user
    alias, model = repeat.route.alias, repeat.model
    asker = begun.asker(request_id, end_user=end_user, alias=alias, model=model)
    return event_of(asker, Journey(), started_s, ready.answer)
