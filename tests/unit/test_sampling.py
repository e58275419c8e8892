"""Which hits are told of one by one, and what a record then stands for."""

import pytest

from app.telemetry import Sampling


def told(sampling: Sampling, hits: int, second: int) -> list[int]:
    """Let so many hits come evenly within a second; return what each record stands for."""
    times = (second + one / hits for one in range(hits))
    return [one_of for now_s in times if (one_of := sampling.takes(now_s))]


@pytest.mark.parametrize("hits", [1, 99, 100])
def test_as_many_as_are_wanted_are_all_told(hits: int) -> None:
    sampling = Sampling(100)
    for second in range(1, 4):
        assert told(sampling, hits, second) == [1] * hits
    assert sampling.left_out == 0


@pytest.mark.parametrize("hits", [101, 150, 300, 520, 1_000, 5_000, 12_345, 100_000])
def test_what_is_told_stands_for_what_is_left_out(hits: int) -> None:
    """Also while they become more: never for more than there were."""
    sampling = Sampling(100)
    stood_for = 0
    for second in (1, 2, 3):
        records = told(sampling, hits, second)
        assert len(records) <= 100 + 20
        stood_for += sum(records)
        assert stood_for <= second * hits
    assert stood_for + max(records) > 3 * hits
    assert len(records) >= 50


def test_a_burst_that_is_over_is_forgotten() -> None:
    sampling = Sampling(1_000)
    told(sampling, 50_000, 1)
    assert len(told(sampling, 40, 3)) == 40


def test_none_are_told_where_none_are_wanted() -> None:
    sampling = Sampling(0)
    assert told(sampling, 50, 1) == []
    assert sampling.left_out == 50
