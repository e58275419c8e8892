"""The overhead that the local tier reckons with is what an entry really takes."""

import os
import tracemalloc

from cache.local import LocalTier
from cache.record import Record


def test_the_tier_takes_no_more_memory_than_it_says() -> None:
    keys = [os.urandom(32) for _ in range(20_000)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tier = LocalTier(100_000, 1 << 30)
    for index, key in enumerate(keys):
        tier.put(
            bytes(bytearray(key)),
            Record(1000 + index, 1_700_000_000 + index, asked_at_ns=10**18 + index),
            0.5 + index,
        )
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before <= tier.size_bytes
    assert after - before >= tier.size_bytes / 2
