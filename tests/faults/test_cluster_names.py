"""A name of the cluster's server that cannot be looked up, or not in time. Row C4.

The look-ups of this process end after thirty seconds: whoever waited for them would be noticed.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from bench.provider import SimulatedProvider
from cache.names import MAX_HANGING, Names
from tests.e2e.exchange import anthropic, model_list, question
from tests.faults.cluster_checks import PATIENT_S, enters
from tests.faults.name_server import (
    LOOPBACK,
    NO_SUCH_NAME,
    SERVER_FAILURE,
    NameServer,
    with_name_server,
)
from tests.faults.redis_server import BINARIES, RedisServer, connect, in_loop
from tests.faults.upstream_checks import Asker
from tests.server import Tallygate

MODEL = "claude-named"
HANGS_S = 20.0
"""Long enough for every thread of a small pool to hang, and for many to wait behind them."""
RECOVERY_S = 8.0
MISS_S = 0.05
SLACK_S = 0.25
"""What a busy machine may add."""

Started = Callable[..., Tallygate]


@pytest.fixture(scope="module")
def names() -> Iterator[NameServer]:
    with NameServer() as running:
        yield running


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as running:
        yield running


@pytest.fixture
def asker(
    start: Started,
    provider: SimulatedProvider,
    redis: RedisServer,
    names: NameServer,
    tmp_path: Path,
) -> Iterator[Asker]:
    """One worker, whose cluster's server has a name that hangs from the start."""
    names.code = None
    config = {
        "model_list": model_list(**{MODEL: anthropic("claude-x", provider.url)}),
        "cache": {"cluster": {"url": f"redis://cache.example:{redis.port}/0"}},
    }
    with Asker(start(config, command=with_name_server(tmp_path))) as one:
        yield one


def miss_s(asker: Asker) -> float:
    began = time.perf_counter()
    asker.answers(question(MODEL))
    return time.perf_counter() - began


def until_said(asker: Asker, text: str, within_s: float) -> float:
    """Wait for a line of the log; return how long that took."""
    began = time.monotonic()
    while text not in asker.server.err.read_text():
        took_s = time.monotonic() - began
        assert took_s < within_s, asker.server.err.read_text()
        asker.answers(question(MODEL))
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.parametrize("server", BINARIES[:1], indirect=True)
@in_loop
async def test_c4_a_name_with_an_address_that_refuses(server: RedisServer) -> None:
    """The next address is tried."""
    found = [(0, 0, 0, "", (address, 0)) for address in ("127.0.0.9", "127.0.0.1")]
    with patch("socket.getaddrinfo", return_value=found):
        await enters(connect(f"redis://cache.example:{server.port}/0", timeout_s=PATIENT_S))


def test_c4_no_thread_for_a_look_up() -> None:
    """However often there was none: with the next that can be had the name is found."""
    none = patch("threading.Thread.start", side_effect=RuntimeError("no thread"))
    found = [(0, 0, 0, "", ("127.0.0.1", 0))]

    async def look_up() -> None:
        names = Names()
        for _ in range(2 * MAX_HANGING):
            with none, pytest.raises(RuntimeError):
                await names.find("cache.example", 1)
        with patch("socket.getaddrinfo", return_value=found):
            assert await names.find("cache.example", 1) == ["127.0.0.1"]

    asyncio.run(asyncio.wait_for(look_up(), 10))


@pytest.mark.timeout(120)
def test_c4_a_name_that_hangs(asker: Asker, names: NameServer, redis: RedisServer) -> None:
    """Misses wait 50 ms at most, and then not at all; the tier comes back with the name server."""
    known, times_s = question(MODEL), []
    asker.answers(known)
    ends_s = time.monotonic() + HANGS_S
    while time.monotonic() < ends_s:
        times_s.append(miss_s(asker))
        began = time.perf_counter()
        asker.answers(known, "cache")
        times_s.append(time.perf_counter() - began)
        time.sleep(0.02)
    assert names.asked
    worst_ms, median_ms = max(times_s) * 1000, statistics.median(times_s) * 1000
    names.code = LOOPBACK
    back_s = until_said(asker, "asked again after", RECOVERY_S)
    print(
        f"c4: a name that hangs: {len(times_s)} counts, at most {worst_ms:.0f} ms, "
        f"median {median_ms:.1f} ms; back after {back_s:.1f} s"
    )
    assert max(times_s) < MISS_S + SLACK_S
    remembered = redis.do("DBSIZE")
    asker.answers(question(MODEL))
    ends_s = time.monotonic() + RECOVERY_S
    while redis.do("DBSIZE") <= remembered:
        assert time.monotonic() < ends_s
        asker.answers(question(MODEL))


@pytest.mark.timeout(60)
def test_c4_the_end_waits_for_no_name(asker: Asker) -> None:
    """SIGTERM while look-ups hang: nothing of them is waited for."""
    until_said(asker, "not asked until it answers", RECOVERY_S)
    time.sleep(5)
    began = time.monotonic()
    assert asker.server.stop() == 0
    assert time.monotonic() - began < 5


@pytest.mark.timeout(60)
@pytest.mark.parametrize("code", [NO_SUCH_NAME, SERVER_FAILURE])
def test_c4_a_name_that_is_not_found(asker: Asker, names: NameServer, code: int) -> None:
    """It is a server that cannot be reached, until it has an address."""
    names.code = code
    until_said(asker, "not asked until it answers", RECOVERY_S)
    assert miss_s(asker) < MISS_S + SLACK_S
    names.code = LOOPBACK
    until_said(asker, "asked again after", RECOVERY_S)
