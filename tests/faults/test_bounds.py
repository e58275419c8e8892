"""A million distinct questions leave memory and file as large as they were configured."""

import hashlib
import time
from pathlib import Path

import pytest

from cache.generations import Generations
from cache.host import HostCache
from cache.leases import HostLeases
from cache.local import LocalTier
from cache.memo import Memo
from cache.record import Codec, Record
from cache.tiers import Tiers

QUESTIONS = 1_000_000
WARM = 200_000
FILE_BYTES = 64 * 2**20
LOG_BYTES = 16 * 2**20
"""What SQLite's log may take beside the file (docs/decisions/0008-host-tier.md)."""
SLOPE_BYTES = 12 * 2**20


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.timeout(600)
def test_c8_a_million_questions_leave_memory_and_file_flat(tmp_path: Path) -> None:
    host = HostCache(tmp_path / "own" / "counts", FILE_BYTES)
    host.open()
    tiers = Tiers(
        local=LocalTier(20_000, 16 * 2**20),
        codec=Codec(b"secret"),
        generations=Generations(time.time),
        host=host,
        leases=HostLeases(tmp_path / "own" / "leases"),
        cluster=None,
        keep_s=86_400,
        wall_clock=time.time,
        observe=lambda _tier, _result: None,
    )
    memo: Memo[int] = Memo(20_000, 8 * 2**20, lambda _: 320)
    warm_bytes = 0
    for number in range(QUESTIONS):
        key = hashlib.sha256(number.to_bytes(8)).digest()
        record = Record(1 + number, int(time.time()), asked_at_ns=number, upstream_model="m")
        tiers.store(key, record, None)
        memo.put(key, number)
        if number % 5_000 == 0:
            assert host.flush(30)
        if number == WARM:
            warm_bytes = resident_bytes()
    assert host.flush(30)
    assert len(tiers.local) <= 20_000
    assert tiers.local.size_bytes <= 16 * 2**20
    assert len(memo) == 20_000
    assert resident_bytes() - warm_bytes < SLOPE_BYTES
    sizes = [one.stat().st_size for one in (tmp_path / "own").glob("counts*")]
    assert sum(sizes) <= FILE_BYTES + LOG_BYTES
    # Full, and still of use: the newest are there, the oldest have made room.
    assert host.look_up(hashlib.sha256((QUESTIONS - 1).to_bytes(8)).digest()) is not None
    assert host.look_up(hashlib.sha256((0).to_bytes(8)).digest()) is None
    host.shut()
