"""When a worker that dies again and again is started, and when no more."""

from app.process_life.crash_loop import LONGEST_DELAY_S, SETTLED_S, Deaths

PROMISE_S = 30.0


def test_a_worker_that_has_settled_is_replaced_at_once() -> None:
    deaths = Deaths()
    for hour in range(100):
        assert deaths.add(hour * 3600.0, SETTLED_S) == 0
        assert not deaths.are_too_many()


def test_starts_that_fail_wait_longer_each_time() -> None:
    deaths = Deaths()
    delays = [deaths.add(float(second), 0) for second in range(12)]
    assert delays == sorted(delays)
    assert delays[:2] == [0, 0]
    assert 0 < delays[2] < delays[3]
    assert delays[-1] == LONGEST_DELAY_S


def test_the_end_comes_in_time_however_long_a_start_takes() -> None:
    for start_s in (0.1, 1.0, 3.0, 7.0):
        deaths, now = Deaths(), 0.0
        while not deaths.are_too_many():
            now += start_s
            now += deaths.add(now, 0)
        assert now < PROMISE_S


def test_two_deaths_are_no_loop() -> None:
    deaths = Deaths()
    deaths.add(0, 0)
    deaths.add(20, 0)
    assert not deaths.are_too_many()
