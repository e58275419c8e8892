"""What workers share about limits, and its lock: whoever dies frees it, whoever is stopped is
passed over."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import cast

import pytest

from cache.host_pace import HostPace, pace_cells
from cache.miss_log import Bounds, Full, MissLog, log_cells
from cache.pace import MINUTE_S, Pace
from cache.shared_lock import STUCK_S, Guard, LockFile

TURN = 0
ALIVE = 10_000


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _hold(file: LockFile, cells: MutableSequence[float], pipe: Connection) -> None:
    """In a process of its own: take the lock, say so, and write when told to."""
    with Guard(file, 0, cells, TURN).hold() as still_holds:
        pipe.send(still_holds is not None)
        pipe.recv()
        pipe.send(still_holds is not None and still_holds())


def _live(file: LockFile, pipe: Connection) -> None:
    file.hold(ALIVE)
    pipe.send("alive")
    pipe.recv()


Holder = tuple[SpawnProcess, Connection]


@contextmanager
def _process(target: object, *arguments: object) -> Iterator[Holder]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=cast("None", target), args=(*arguments, there), daemon=True)
    process.start()
    try:
        assert here.recv()
        yield process, here
    finally:
        process.kill()
        process.join()


@pytest.fixture
def cells() -> MutableSequence[float]:
    return cast("MutableSequence[float]", multiprocessing.RawArray("d", 64))


def _takes(guard: Guard) -> bool:
    with guard.hold() as still_holds:
        return still_holds is not None and still_holds()


def test_one_at_a_time_and_a_dead_one_never(cells: MutableSequence[float]) -> None:
    file, clock = LockFile(), Clock()
    guard = Guard(file, 0, cells, TURN, clock)
    assert _takes(guard)
    with _process(_hold, file, cells) as (process, _):
        assert not _takes(guard)
        assert _takes(Guard(file, 1, cells, TURN + 1, clock))
        process.kill()
        process.join()
        assert _takes(guard)


def test_a_stopped_one_is_passed_over_and_sees_it(cells: MutableSequence[float]) -> None:
    """It has read what others have changed since: it must not write."""
    file, clock = LockFile(), Clock()
    guard = Guard(file, 0, cells, TURN, clock)
    with _process(_hold, file, cells) as (process, pipe):
        os.kill(process.pid or 0, signal.SIGSTOP)
        assert not _takes(guard)
        clock.now += 0.6 * STUCK_S
        assert not _takes(guard)
        clock.now += 0.6 * STUCK_S
        assert _takes(guard)
        assert _takes(guard)
        os.kill(process.pid or 0, signal.SIGCONT)
        pipe.send("write now")
        assert pipe.recv() is False
        assert _takes(guard)


def test_one_that_is_met_now_and_then_is_not_taken_for_stopped(
    cells: MutableSequence[float],
) -> None:
    file, clock = LockFile(), Clock()
    guard = Guard(file, 0, cells, TURN, clock)
    with _process(_hold, file, cells):
        for _meeting in range(5):
            assert not _takes(guard)
            clock.now += STUCK_S


def test_a_budget_goes_on_beside_a_stopped_worker(cells: MutableSequence[float]) -> None:
    """It takes no slot along, and no more leave because of it."""
    pace, file = Pace.per_minute(60), LockFile()
    shared = cast("MutableSequence[float]", multiprocessing.RawArray("d", pace_cells(1)))
    host = HostPace(pace, shared, file, 0, 0)
    del cells
    with _process(_hold, file, shared):
        taken = [host.take(1000.0, 9) for _attempt in range(3)]
        assert taken == [None] * 3
    assert host.take(1000.0, 9) == pace.burst


def test_the_minute_of_a_key_is_exact() -> None:
    """The wait that is told is the wait that it takes; nothing that was refused is counted."""
    bounds = Bounds(per_minute=3)
    log = MissLog(bounds, [0.0] * log_cells(1, bounds), LockFile(), 0, row=0, is_gone=bool)
    assert [log.enter(one, again=False) for one in (100.0, 110.0, 159.0)] == [None] * 3
    refused = log.enter(159.5, again=False)
    assert isinstance(refused, Full)
    assert (refused.bound, refused.wait_s) == ("per_minute", 0.5)
    assert log.enter(159.5, again=True) is None
    assert isinstance(log.enter(159.9, again=False), Full)
    assert log.enter(100.0 + MINUTE_S, again=False) is None
    refused = log.enter(161.0, again=False)
    assert isinstance(refused, Full)
    assert refused.wait_s == pytest.approx(9.0)


def test_what_is_in_flight_is_the_sum_of_the_workers_that_live(
    cells: MutableSequence[float],
) -> None:
    bounds, file = Bounds(in_flight=3), LockFile()

    def is_gone(row: int) -> bool:
        assert row == 1
        gone = file.hold(ALIVE)
        if gone:
            file.release(ALIVE)
        return gone

    shared = [0.0] * log_cells(2, bounds)
    del cells
    first, second = (MissLog(bounds, shared, file, 0, row=row, is_gone=is_gone) for row in range(2))
    with _process(_live, file):
        assert [second.enter(0.0, again=False) for _miss in range(2)] == [None] * 2
        assert first.enter(0.0, again=False) is None
        refused = first.enter(0.0, again=False)
        assert isinstance(refused, Full)
        assert refused.bound == "in_flight"
        first.leave()
        assert first.enter(0.0, again=False) is None
    assert first.enter(0.0, again=False) is None


def test_a_host_that_hears_nothing_keeps_to_the_share_that_it_had() -> None:
    """Two hosts, and a cluster that is gone: together they make as many calls as before."""
    pace = Pace.per_minute(60)
    host = HostPace(pace, [0.0] * pace_cells(1), LockFile(), 0, 0)
    now, left = 1000.0, 0
    host.hear(now, 2)
    while now < 1000.0 + 2 * MINUTE_S:
        free_in_s, _ = host.look(now)
        if free_in_s:
            now += free_in_s
            continue
        slots = host.take(now, 1) or 0
        host.miss(now, slots)
        left += slots
    assert 58 <= left <= 60 + pace.burst
