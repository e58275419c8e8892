"""The histogram of the load generator says what the recorded latencies themselves would say."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.histogram import Histogram

LATENCIES_NS = st.lists(st.integers(min_value=0, max_value=10**12), min_size=1, max_size=300)
PERCENTS = (0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0)


def exact_ns(latencies_ns: list[int], percent: float) -> int:
    rank = max(1, math.ceil(len(latencies_ns) * percent / 100))
    return sorted(latencies_ns)[rank - 1]


def histogram(latencies_ns: list[int]) -> Histogram:
    recorded = Histogram()
    for latency_ns in latencies_ns:
        recorded.record(latency_ns)
    return recorded


@given(LATENCIES_NS)
def test_percentiles_have_three_significant_digits(latencies_ns: list[int]) -> None:
    for percent, found_ns in histogram(latencies_ns).percentiles_ns(PERCENTS).items():
        right_ns = exact_ns(latencies_ns, percent)
        assert abs(found_ns - right_ns) <= right_ns / 2000


@given(LATENCIES_NS, LATENCIES_NS)
def test_merged_histograms_equal_one_of_everything(one: list[int], other: list[int]) -> None:
    merged = histogram(one)
    merged.merge(histogram(other))
    together = histogram(one + other)
    assert list(merged.items()) == list(together.items())
    assert len(merged) == len(one) + len(other)


def test_a_million_latencies_take_few_buckets() -> None:
    rng = random.Random(1)
    recorded = histogram([int(rng.lognormvariate(13, 2)) for _ in range(1_000_000)])
    assert len(recorded) == 1_000_000
    assert len(list(recorded.items())) < 30_000


def test_an_empty_histogram_has_no_percentiles() -> None:
    with pytest.raises(ValueError, match="empty"):
        Histogram().percentile_ns(50)


def test_a_negative_latency_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Histogram().record(-1)
