"""Which hits are told of one by one, and what a record then stands for."""

import pytest

from app.telemetry import Sampling


def told(sampling: Sampling, hits: int, second: int) -> list[int]:
    """Let so many hits come evenly within a second; return what each record stands for."""
    times = (second + one / hits for one in range(hits))
    return [sampling.every for now_s in times if sampling.takes(now_s)]


@pytest.mark.parametrize("hits", [1, 99, 100])
def test_as_many_as_are_wanted_are_all_told(hits: int) -> None:
    sampling = Sampling(100)
    for second in range(1, 4):
        assert told(sampling, hits, second) == [1] * hits
    assert sampling.left_out == 0


@pytest.mark.parametrize("hits", [101, 150, 1_000, 12_345, 100_000])
def test_what_is_left_out_is_counted_and_what_is_told_stands_for_it(hits: int) -> None:
    sampling = Sampling(100)
    first = told(sampling, hits, 1)
    assert 100 <= len(first) <= 100 + 20
    before = sampling.left_out
    assert before == hits - len(first)
    second = told(sampling, hits, 2)
    assert len(second) <= 100
    assert len(set(second)) == 1
    assert hits - second[0] < sum(second) <= hits
    assert sampling.left_out == before + hits - len(second)


def test_a_burst_that_is_over_is_forgotten() -> None:
    sampling = Sampling(10)
    told(sampling, 10_000, 1)
    told(sampling, 5, 2)
    assert told(sampling, 5, 3) == [1] * 5


def test_none_are_told_where_none_are_wanted() -> None:
    sampling = Sampling(0)
    assert told(sampling, 50, 1) == []
    assert sampling.left_out == 50
