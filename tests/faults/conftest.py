"""Servers for the faults of shared tiers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.redis_server import BINARIES, RedisServer


@pytest.fixture(params=BINARIES)
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """An empty server of each kind that is installed."""
    with RedisServer(tmp_path, request.param) as running:
        yield running
