"""What is told as left of a budget is what can be taken, and telling takes nothing."""

from hypothesis import given
from hypothesis import strategies as st

from cache.host_pace import NOT_BEFORE, STATE, HostPace, pace_cells
from cache.pace import Pace
from cache.shared_lock import LockFile

MOMENT_S = 1e-6


@given(
    rpm=st.integers(1, 10_000),
    steps=st.lists(st.tuples(st.integers(0, 600), st.floats(0, 90)), max_size=6),
)
def test_what_is_left_can_leave_and_no_more(rpm: int, steps: list[tuple[int, float]]) -> None:
    pace, now, state = Pace.per_minute(rpm), 100_000.0, 0.0
    for taken, pause_s in steps:
        _, state = pace.take(state, now, taken)
        now += pause_s
        least, after = pace.take(state, now, 1_000)
        # One that comes free in this very moment may be told of a moment before.
        most = least + pace.take(after, now + MOMENT_S, 1_000)[0]
        assert least <= pace.free(state, now) <= most


def test_all_workers_say_what_is_left() -> None:
    pace, file = Pace.per_minute(200), LockFile()
    cells = [0.0] * pace_cells(2)
    one, other = (HostPace(pace, cells, file, 0, row) for row in range(2))
    assert (one.left(1000.0), other.left(1000.0)) == (10, 10)
    one.take(1000.0, 4)
    other.beat(1000.0, 3)
    state = cells[STATE]
    assert (one.left(1000.0), other.left(1000.0)) == (6, 6)
    assert (one.waiting(1000.0), other.waiting(1000.0)) == (3, 3)
    assert one.waiting(1002.0) == 0  # who has not been heard of for so long is gone
    assert cells[STATE] == state
    cells[NOT_BEFORE] = 1001.0  # the cluster has no slot before
    assert one.left(1000.5) == 0
    assert one.left(1001.5) > 0
