"""A budget that several workers share, whatever they do and however often they look: no window
holds more than its pace allows, the oldest goes first, no slot is lost.
"""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.waiters import TooLateError, Waiter, Waiters
from cache.host_pace import STATE, HostPace, pace_cells
from cache.pace import MINUTE_S, Pace
from cache.shared_lock import LockFile

WORKERS = 3
NEARLY = 1e-6
workers = st.integers(0, WORKERS - 1)


class Turn:
    """One that waits in a worker, and what it was told."""

    def __init__(self, number: int, until: float) -> None:
        self.number = number
        self.told: list[float | None] = []
        self.hears = True
        self.waiter = Waiter(until, self._hear)

    def _hear(self, wait_s: float | None) -> bool:
        if self.hears:
            self.told.append(wait_s)
        return self.hears


class BudgetMachine(RuleBasedStateMachine):
    @initialize(rpm=st.sampled_from([0.5, 1, 2, 7, 19, 30, 100, 250]))
    def begin(self, rpm: float) -> None:
        self.rpm = rpm
        self.pace = Pace.per_minute(rpm)
        self.cells = [0.0] * pace_cells(WORKERS)
        file = LockFile()
        self.now = 1000.0
        self.paces = [HostPace(self.pace, self.cells, file, 0, row) for row in range(WORKERS)]
        self.lines = [Waiters(one, max_waiting=20) for one in self.paces]
        self.turns: list[deque[Turn]] = [deque() for _ in range(WORKERS)]
        self.left: list[float] = []
        self.in_vain = 0

    @rule(worker=workers)
    def come_when_free(self, worker: int) -> None:
        if self.lines[worker].go_at_once(self.now):
            assert not self.turns[worker]
            self.left.append(self.now)

    @rule(worker=workers, patience_s=st.floats(0, 90))
    def come(self, worker: int, patience_s: float) -> None:
        line = self.lines[worker]
        turn = Turn(len(self.left), self.now + patience_s)
        expected_s = line.wait_s(self.now)
        if expected_s > patience_s:
            with pytest.raises(TooLateError) as refused:
                line.join(turn.waiter, self.now)
            assert refused.value.wait_s <= expected_s
        else:
            line.join(turn.waiter, self.now)
            self.turns[worker].append(turn)

    @rule(worker=workers, place=st.integers(0, 5), deaf=st.booleans())
    def leave(self, worker: int, place: int, deaf: bool) -> None:
        """A client goes away; ``deaf``: its waiter has not woken up yet to say so."""
        turns = self.turns[worker]
        if place < len(turns):
            turn = turns[place]
            if deaf:
                turn.hears = False
            else:
                del turns[place]
                self.lines[worker].quit(turn.waiter, self.now)

    @rule(worker=workers)
    def look(self, worker: int) -> None:
        slots, pause_s = self.lines[worker].claim(self.now)
        assert slots or pause_s > 0
        self.lines[worker].go(slots, self.now)
        self.hear(worker, slots)

    @rule(worker=workers, used=st.integers(0, 3))
    def look_with_a_cluster(self, worker: int, used: int) -> None:
        """The cluster has fewer slots than this host."""
        slots, _ = self.lines[worker].claim(self.now)
        used = min(used, slots)
        if slots > used:
            self.paces[worker].give_back(slots - used)
        self.lines[worker].go(used, self.now)
        self.hear(worker, used)

    @rule(worker=workers)
    def go_away_with_the_slot(self, worker: int) -> None:
        """1 the slot is handed over; 2 the client leaves; 3 the next one goes in its place."""
        slots, _ = self.lines[worker].claim(self.now)
        self.lines[worker].go(slots, self.now)
        before = len(self.left)
        self.hear(worker, slots)
        if len(self.left) > before:
            self.left.pop()
            self.lines[worker].pass_on(self.now)
            self.hear(worker, 1)

    def hear(self, worker: int, slots: int) -> None:
        """Take out who was told something: those who went are the oldest that still listen."""
        turns = self.turns[worker]
        went = 0
        while turns and (turns[0].told == [None] or not turns[0].hears):
            turn = turns.popleft()
            if turn.hears:
                went += 1
                self.left.append(self.now)
            else:
                self.lines[worker].quit(turn.waiter, self.now)
        assert went <= slots
        while turns and (turns[-1].told or not turns[-1].hears):
            turn = turns.pop()
            if turn.hears:
                (wait_s,) = turn.told
                assert wait_s is not None
            else:  # it may have been refused, too
                self.lines[worker].quit(turn.waiter, self.now)
        assert not any(turn.told for turn in turns)
        assert len(turns) >= len(self.lines[worker])

    @rule(seconds=st.one_of(st.floats(0, 0.02), st.floats(0, 3), st.floats(0, 70)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def no_window_holds_more(self) -> None:
        if not hasattr(self, "left"):
            return
        most = max(MINUTE_S / self.pace.interval_s + self.pace.burst - 1, 1)
        for start in self.left[-300:]:
            held = sum(start <= one < start + MINUTE_S - NEARLY for one in self.left)
            assert held <= most + NEARLY

    @invariant()
    def no_slot_is_lost(self) -> None:
        """The shared state is that of the calls that left, and of nothing else."""
        if not hasattr(self, "left"):
            return
        state = 0.0
        for one in self.left:
            state = max(state, one) + self.pace.interval_s
        assert abs(max(state, self.now) - max(self.cells[STATE], self.now)) < NEARLY

    def teardown(self) -> None:
        """Whoever still waits goes as soon as the pace allows, if each worker looks when told."""
        if not hasattr(self, "left"):
            return
        waiting = sum(len(turns) for turns in self.turns)
        for turns in self.turns:
            for turn in turns:
                turn.waiter.until = float("inf")
        ends_s = self.now + (waiting + 1) * (self.pace.interval_s + 0.1) + 1
        at = [self.now] * WORKERS
        while any(self.lines):
            worker = min(range(WORKERS), key=at.__getitem__)
            self.now = max(self.now, at[worker])
            assert self.now <= ends_s
            slots, pause_s = self.lines[worker].claim(self.now)
            self.lines[worker].go(slots, self.now)
            self.hear(worker, slots)
            at[worker] = self.now + max(pause_s, 0.001)
            self.no_window_holds_more()


TestBudget = BudgetMachine.TestCase
TestBudget.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(rpm=st.floats(0.1, 100_000))
def test_a_burst_and_a_minute_are_at_most_a_tenth_over(rpm: float) -> None:
    """Counted in whole calls: whoever comes at every moment gets no more, the first minute too."""
    pace = Pace.per_minute(rpm)
    most = MINUTE_S / pace.interval_s + pace.burst - 1
    assert most <= 1.1 * rpm or pace.burst == 1
    assert pace.burst <= max(1, rpm / 10)


@given(
    demand=st.lists(st.integers(1, 4), min_size=WORKERS, max_size=WORKERS),
    rpm=st.sampled_from([60, 100, 600]),
)
@settings(max_examples=30, deadline=None)
def test_no_worker_gets_under_half_its_share(demand: list[int], rpm: int) -> None:
    """However unequal the demand, each worker that always has waiters is served as the others."""
    pace, cells, file, now = Pace.per_minute(rpm), [0.0] * pace_cells(WORKERS), LockFile(), 1000.0
    lines = [Waiters(HostPace(pace, cells, file, 0, row)) for row in range(WORKERS)]
    served, at = [0] * WORKERS, [now] * WORKERS

    def hear(worker: int) -> bool:
        served[worker] += 1
        return True

    while now < 1000 + 2 * MINUTE_S:
        worker = min(range(WORKERS), key=at.__getitem__)
        now = max(now, at[worker])
        line = lines[worker]
        while len(line) < 5 * demand[worker]:

            def told(_: float | None, worker: int = worker) -> bool:
                return hear(worker)

            line.join(Waiter(float("inf"), told), now)
        slots, pause_s = line.claim(now)
        line.go(slots, now)
        # Unequally late, too.
        at[worker] = now + pause_s * (1 + 0.01 * demand[worker]) + 0.0001
    assert min(served) >= sum(served) / WORKERS / 2
    assert sum(served) >= 0.95 * 2 * rpm
