"""The file that faults are done to."""

from pathlib import Path

import pytest

from cache.host import HostCache
from tests.host_file import MAX_BYTES, RECORDS, put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A healthy file of RECORDS records, its log written back."""
    path = tmp_path / "own" / "host.sqlite"
    cache = HostCache(path, MAX_BYTES)
    cache.open()
    for number in range(RECORDS):
        put(cache, number)
    cache.raise_generation("m", 3)
    cache.shut()
    return path
