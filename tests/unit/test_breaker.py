"""When the cluster stops being asked, and what lets it be asked again."""

import pytest

from cache.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fails(breaker: Breaker, clock: Clock, lasts_s: float = 0.05) -> bool:
    """One attempt after the other."""
    began = breaker.now()
    clock.now_s += lasts_s
    return breaker.failed(began)


def test_three_errors_in_a_row_open_it(clock: Clock) -> None:
    breaker = Breaker(clock=clock)
    assert [fails(breaker, clock) for _ in range(2)] == [False, False]
    assert not breaker.is_open
    assert fails(breaker, clock)
    assert breaker.is_open
    assert not fails(breaker, clock), "it is open already"
    assert (breaker.errors, breaker.openings) == (4, 1)


def test_a_success_ends_the_row(clock: Clock) -> None:
    breaker = Breaker(clock=clock)
    for _ in range(10):
        fails(breaker, clock)
        fails(breaker, clock)
        breaker.succeeded()
    assert not breaker.is_open
    assert breaker.errors == 20


def test_errors_that_overlap_in_time_are_one_step(clock: Clock) -> None:
    breaker = Breaker(clock=clock)
    for step in range(3):
        began = breaker.now()
        clock.now_s += 0.05
        assert not breaker.is_open, step
        opened = [breaker.failed(began) for _ in range(100)]
        assert opened == [step == 2, *[False] * 99]
    assert breaker.errors == 300


def test_errors_that_take_no_time_are_steps_of_their_own(clock: Clock) -> None:
    breaker = Breaker(clock=clock)
    assert [fails(breaker, clock, lasts_s=0) for _ in range(3)] == [False, False, True]


def test_only_closing_closes_it(clock: Clock) -> None:
    breaker = Breaker(clock=clock)
    assert breaker.open()
    assert not breaker.open()
    breaker.succeeded()
    clock.now_s += 2.5
    assert breaker.is_open
    assert breaker.open_s == 2.5
    assert breaker.close()
    assert not breaker.close()
    assert breaker.open_s == 0
    assert not fails(breaker, clock), "the row begins anew"
    assert breaker.openings == 1


def test_its_state_can_be_read(clock: Clock) -> None:
    breaker = Breaker(clock=clock)
    fails(breaker, clock)
    assert repr(breaker) == "<Breaker: closed, 1 in a row, 1 errors, 0 openings>"
    breaker.open()
    clock.now_s += 1
    assert repr(breaker) == "<Breaker: open for 1.0 s, 1 errors, 1 openings>"
