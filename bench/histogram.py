"""A latency histogram with logarithmic buckets, after HdrHistogram.

Each power of two is cut into 1024 equal buckets, so a percentile is within 0.05 % of the recorded
value it stands for: three significant digits, from one nanosecond up, in a few thousand buckets.
"""

import math
from collections.abc import Iterable, Iterator

_SHARP_BITS = 11
_SHARP = 1 << _SHARP_BITS


def bucket(value: int) -> int:
    """The first value of the bucket that holds ``value``; values below 2048 have their own."""
    shift = value.bit_length() - _SHARP_BITS
    return value if shift <= 0 else value >> shift << shift


def _middle(first: int) -> int:
    shift = first.bit_length() - _SHARP_BITS
    return first if shift <= 0 else first + (1 << shift >> 1)


class Histogram:
    """Counts of latencies in nanoseconds; histograms of several processes add up with ``merge``."""

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        self._counts = counts or {}

    def record(self, value_ns: int) -> None:
        """Count one latency; negative ones are an error of the clock and raise ValueError."""
        if value_ns < 0:
            raise ValueError(f"a latency cannot be negative: {value_ns} ns")
        first = bucket(value_ns)
        self._counts[first] = self._counts.get(first, 0) + 1

    def merge(self, other: "Histogram") -> None:
        """Add the counts of ``other``; exact, in any order."""
        for first, count in other.items():
            self._counts[first] = self._counts.get(first, 0) + count

    def items(self) -> Iterator[tuple[int, int]]:
        """Buckets (their first value, ns) and counts, in ascending order."""
        return iter(sorted(self._counts.items()))

    def __len__(self) -> int:
        return sum(self._counts.values())

    def percentile_ns(self, percent: float) -> int:
        """The latency that ``percent`` of all recorded ones do not exceed (nearest rank).

        Raises ValueError when nothing was recorded.
        """
        return self.percentiles_ns([percent])[percent]

    def percentiles_ns(self, percents: Iterable[float]) -> dict[float, int]:
        """Several percentiles in one pass; see ``percentile_ns``."""
        total = len(self)
        if not total:
            raise ValueError("an empty histogram has no percentiles")
        ranks = {percent: max(1, math.ceil(total * percent / 100)) for percent in percents}
        found: dict[float, int] = {}
        seen = 0
        for first, count in self.items():
            seen += count
            for percent, rank in ranks.items():
                if rank <= seen and percent not in found:
                    found[percent] = _middle(first)
        return found
