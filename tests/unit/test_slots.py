"""Records in shared memory: what is half written is no record, what is kept is bounded."""

import multiprocessing
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import UpstreamError
from app.last_errors import ErrorMemory, LastErrors
from app.slots import Slots, slots_memory
from app.telemetry import CountEvent
from app.telemetry.recent_errors import SLOTS_PER_ROW, RecentErrors, recent_errors_memory

BYTES = 64


def refusal(number: int, **fields: Any) -> CountEvent:
    event = CountEvent(
        time_s=float(number),
        request_id=f"req_{number}",
        status=404,
        duration_ms=1.0,
        route="messages",
        error_type="not_found_error",
    )
    return msgspec.structs.replace(event, **fields)


def test_a_record_comes_back_and_is_replaced() -> None:
    slots = Slots(slots_memory(3, BYTES), BYTES)
    assert [slots.read(slot) for slot in range(len(slots))] == [None, None, None]
    slots.write(1, b"the longer one")
    slots.write(1, b"short")
    assert [slots.read(slot) for slot in range(3)] == [None, b"short", None]


def test_a_record_that_is_too_long_is_refused_and_harms_nobody() -> None:
    slots = Slots(slots_memory(2, BYTES), BYTES)
    slots.write(1, b"neighbour")
    with pytest.raises(ValueError, match="bytes"):
        slots.write(0, b"x" * BYTES)
    assert (slots.read(0), slots.read(1)) == (None, b"neighbour")


@given(old=st.binary(min_size=1, max_size=50), new=st.binary(min_size=1, max_size=50), at=st.data())
def test_what_is_half_written_is_no_record(old: bytes, new: bytes, at: Any) -> None:
    """At every point of a write a reader finds the old record, the new one, or none."""
    memory = multiprocessing.RawArray("B", BYTES)
    slots = Slots(memory, BYTES)
    slots.write(0, old)
    before = bytes(memory)
    slots.write(0, new)
    after = bytes(memory)
    written = at.draw(st.integers(0, BYTES))
    memory[:] = list(after[:written] + before[written:])
    assert slots.read(0) in (old, new, None)


def test_all_workers_read_the_newest_first_and_the_oldest_make_room() -> None:
    memory = recent_errors_memory(rows=2)
    first, second = RecentErrors(memory, 0), RecentErrors(memory, 1)
    second.emit(refusal(1))
    for number in range(2, 2 + 2 * SLOTS_PER_ROW):
        first.emit(refusal(number))
    first.emit(refusal(99, error_type="", status=200))
    for one in (first, second):
        times = [kept.time_s for kept in one.newest()]
        assert times == [*range(1 + 2 * SLOTS_PER_ROW, 1 + SLOTS_PER_ROW, -1), 1]


def test_a_worker_goes_on_where_the_one_before_has_ended() -> None:
    memory = recent_errors_memory(rows=1)
    worker = RecentErrors(memory, 0)
    for number in range(1, 2 + SLOTS_PER_ROW):
        worker.emit(refusal(number))
    RecentErrors(memory, 0).emit(refusal(100))
    assert [one.time_s for one in worker.newest()] == [100, *range(SLOTS_PER_ROW + 1, 2, -1)]


def test_the_longest_texts_are_cut_to_what_there_is_room_for() -> None:
    worker = RecentErrors(recent_errors_memory(rows=1), 0)
    long = "€\x1b[31m" * 100_000
    worker.emit(refusal(1, reason=long, alias=long, deployment=long, caller=long, error_type=long))
    (kept,) = worker.newest()
    assert kept.reason.startswith("€")
    assert len(kept.reason.encode()) <= 80


def test_whoever_may_read_an_error_is_named_as_a_whole() -> None:
    worker = RecentErrors(recent_errors_memory(rows=1), 0)
    names = [f"{95 * 'k'}{number}" for number in range(2)]
    for at, name in enumerate(names):
        worker.emit(refusal(at + 1, caller=name, alias="a" * 999, reason="r" * 999))
    assert [one.caller for one in reversed(worker.newest())] == names


def upstream_error(**fields: Any) -> UpstreamError:
    return UpstreamError(
        **{
            "status": 502,
            "type": "api_error",
            "message": "what the provider says",
            "reason": "status 500",
            **fields,
        }
    )


def test_the_last_error_is_that_of_whichever_worker_saw_it_last() -> None:
    shared = ErrorMemory.make(("a", "b"), rows=2)
    now = [10.0]
    first, second = (LastErrors(shared, row, lambda: now[0]) for row in range(2))
    first.note("a", upstream_error())
    now[0] = 20.0
    second.note("a", upstream_error(status=429, type="made up by the provider"))
    for one in (first, second):
        last = one.of("a")
        assert last is not None
        assert (last.time_s, last.status, last.type) == (20.0, 429, "other")
        assert "says" not in str(last)
        assert one.of("b") is None


def test_a_reload_keeps_the_errors_of_deployments_that_stay() -> None:
    before = ErrorMemory.make(("a", "b"), rows=2)
    LastErrors(before, 1, lambda: 5.0).note("b", upstream_error(status=529))
    assert ErrorMemory.make(("a", "b"), 2, before) is before
    after = LastErrors(ErrorMemory.make(("c", "b", "a"), 2, before), 0, lambda: 6.0)
    kept = after.of("b")
    assert kept is not None
    assert (kept.time_s, kept.status) == (5.0, 529)
    assert after.of("a") is None
    assert after.of("c") is None
