"""The machine's shared tier: what it keeps, for whom, how much of it, and who waits for whom."""

import asyncio
import contextlib
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiocache import SimpleMemoryCache
from aiocache.base import BaseCache
from aiocache.lock import RedLock
from aiocache.serializers import NullSerializer

from cache import _host_writer
from cache._host_file import WAL_MAX_BYTES
from cache._host_writer import QUEUE_BYTES, QUEUE_ENTRIES, Job
from cache.host import HostCache, HostFileError
from tests.host_file import eventually
from tests.peer import Peer

MAX_BYTES = 32 * 2**20
TTL_S = 1000


def value(asked_at_ns: int, rest: bytes = b"") -> bytes:
    """Bytes that look like a record, as far as the tier looks."""
    return b"TG\x01" + asked_at_ns.to_bytes(8) + rest


def peer(path: Path, more: str = "") -> Peer:
    return Peer(
        "from pathlib import Path; from cache.host import HostCache; import sqlite3, time\n"
        f"cache = HostCache(Path({str(path)!r}), {MAX_BYTES}); cache.open()\n"
        "def value(asked, rest=b''): return b'TG\\x01' + asked.to_bytes(8) + rest\n" + more
    )


@contextlib.contextmanager
def busy_writer(cache: HostCache) -> Iterator[None]:
    """Hold the thread that writes inside one job, so that whatever comes stays queued."""
    begun, end = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> int:
        begun.set()
        end.wait(30)
        return 0

    assert cache._writer.submit(Job(hold, done=lambda _: None))
    assert begun.wait(10)
    try:
        yield
    finally:
        end.set()


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own" / "host.sqlite"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(path: Path, clock: Clock) -> Iterator[HostCache]:
    cache = HostCache(path, MAX_BYTES, wall_clock=clock)
    cache.open()
    yield cache
    cache.shut()


def test_a_value_is_read_until_it_expires(cache: HostCache, clock: Clock) -> None:
    cache.put_soon(b"k", value(1), 10)
    assert cache.flush(5)
    clock.now += 9.9
    assert cache.look_up(b"k") == value(1)
    clock.now += 0.1
    assert cache.look_up(b"k") is None


def test_what_one_process_stores_another_reads(cache: HostCache, path: Path) -> None:
    with peer(path) as other:
        assert other.ask("(cache.put_soon(b'k', b'v', 1e9), cache.flush(5))") == (True, True)
        assert cache.look_up(b"k") == b"v"
        cache.delete_many([b"k"])
        assert other.ask("cache.look_up(b'k')") is None


def test_after_is_told_once_the_value_can_be_read_elsewhere(cache: HostCache, path: Path) -> None:
    told = threading.Event()
    results: list[bool] = []

    def after(ok: bool) -> None:
        results.append(ok)
        told.set()

    with peer(path) as other:
        assert cache.put_soon(b"k", b"v", math.inf, after)
        assert told.wait(5)
        assert other.ask("cache.look_up(b'k')") == b"v"
    assert results == [True]


def test_a_value_that_somebody_waits_for_starts_its_batch(
    cache: HostCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_host_writer, "BATCH_S", 3600)
    told = threading.Event()
    cache.put_soon(b"k", b"v", TTL_S)
    assert cache.look_up(b"k") is None
    cache.put_soon(b"j", b"v", TTL_S, lambda _: told.set())
    assert told.wait(5)
    assert cache.look_up(b"k") == b"v"


def test_an_after_that_raises_ends_nothing(cache: HostCache) -> None:
    def after(ok: bool) -> None:
        raise RuntimeError(ok)

    cache.put_soon(b"k", b"v", TTL_S, after)
    assert cache.flush(5)
    cache.put_soon(b"j", b"w", TTL_S)
    assert cache.flush(5)
    assert (cache.look_up(b"k"), cache.look_up(b"j")) == (b"v", b"w")


@pytest.mark.parametrize(
    ("first", "second", "stays"),
    [
        (value(1), value(2), value(2)),
        (value(2), value(1), value(2)),
        (value(255), value(256), value(256)),
        (value(7, b"old"), value(7, b"new"), value(7, b"new")),
        (b"v", b"w", b"w"),
    ],
)
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "two batches"])
def test_the_newer_count_stays(
    cache: HostCache, first: bytes, second: bytes, stays: bytes, together: bool
) -> None:
    cache.put_soon(b"k", first, TTL_S)
    if not together:
        assert cache.flush(5)
    cache.put_soon(b"k", second, TTL_S)
    assert cache.flush(5)
    assert cache.look_up(b"k") == stays


def test_an_expired_count_makes_way_for_any(cache: HostCache, clock: Clock) -> None:
    cache.put_soon(b"k", value(9), 10)
    clock.now += 11
    cache.put_soon(b"k", value(1), 10)
    assert cache.flush(5)
    assert cache.look_up(b"k") == value(1)


def test_of_two_processes_the_newest_count_stays(cache: HostCache, path: Path) -> None:
    put = "[cache.put_soon(b'%d' % (n % 20), value(1 + n * 2 + {}), 1e9) for n in {}]"
    with peer(path) as one, peer(path) as two:
        one.tell(f"({put.format(0, 'range(2000)')}, cache.flush(20))[1]")
        two.tell(f"({put.format(1, 'reversed(range(2000))')}, cache.flush(20))[1]")
        assert (one.listen(), two.listen()) == (True, True)
    found = [cache.look_up(b"%d" % key) for key in range(20)]
    assert found == [value(1 + (1980 + key) * 2 + 1) for key in range(20)]


def test_a_full_queue_drops_and_says_so(cache: HostCache) -> None:
    results: list[bool] = []
    with busy_writer(cache):
        taken = sum(cache.put_soon(b"%d" % n, b"v", TTL_S) for n in range(2 * QUEUE_ENTRIES))
        assert not cache.put_soon(b"one more", b"v", TTL_S, results.append)
        assert results == [False]
        assert taken == QUEUE_ENTRIES
        assert cache.dropped == QUEUE_ENTRIES + 1


def test_a_lock_held_too_long_costs_writes_only_and_only_until_it_is_free(
    cache: HostCache, path: Path
) -> None:
    told: list[bool] = []
    cache.put_soon(b"kept", b"v", TTL_S)
    assert cache.flush(5)
    with peer(path, "lock = sqlite3.connect(cache._file.path, isolation_level=None)") as other:
        other.ask("str(lock.execute('BEGIN IMMEDIATE'))")
        cache.put_soon(b"k", b"v", TTL_S, told.append)
        assert not cache.flush(10)
        assert told == [False]
        assert not cache.healthy
        assert cache.look_up(b"kept") == b"v"
        other.ask("str(lock.execute('COMMIT'))")
        assert eventually(lambda: cache.healthy)
        cache.put_soon(b"k", b"w", TTL_S)
        assert cache.flush(5)
        assert cache.repairs == 0


def test_the_queue_is_bounded_in_bytes(cache: HostCache) -> None:
    with busy_writer(cache):
        taken = sum(cache.put_soon(b"%d" % n, bytes(60_000), TTL_S) for n in range(500))
        assert QUEUE_BYTES - 60_100 < taken * 60_000 <= QUEUE_BYTES


def test_before_it_is_open_and_after_it_is_shut_it_misses(path: Path) -> None:
    results: list[bool] = []
    cache = HostCache(path, MAX_BYTES)
    assert not cache.healthy
    assert cache.look_up(b"k") is None
    assert not cache.put_soon(b"k", b"v", TTL_S, results.append)
    cache.open()
    assert cache.healthy
    cache.shut()
    cache.shut()
    assert not cache.healthy
    assert cache.look_up(b"k") is None
    assert not cache.put_soon(b"k", b"v", TTL_S, results.append)
    assert results == [False, False]


def test_shut_writes_what_is_queued(path: Path) -> None:
    cache = HostCache(path, MAX_BYTES)
    cache.open()
    for number in range(3000):
        cache.put_soon(b"%d" % number, b"v", TTL_S)
    cache.shut()
    again = HostCache(path, MAX_BYTES)
    again.open()
    assert all(again.look_up(b"%d" % number) == b"v" for number in range(3000))
    again.shut()


def test_shut_waits_a_bounded_time_for_a_lock(cache: HostCache, path: Path) -> None:
    with peer(path, "lock = sqlite3.connect(cache._file.path, isolation_level=None)") as other:
        other.ask("str(lock.execute('BEGIN IMMEDIATE'))")
        for number in range(3000):
            cache.put_soon(b"%d" % number, b"v", TTL_S)
        started = time.monotonic()
        cache.shut()
        assert time.monotonic() - started < 4


def sizes(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.with_name(path.name + "-wal").stat().st_size


def test_distinct_keys_never_outgrow_the_file(path: Path) -> None:
    max_bytes = 2**22
    cache = HostCache(path, max_bytes)
    cache.open()
    largest, largest_log = 0, 0
    for batch in range(40):
        for number in range(1000):
            cache.put_soon(b"%32d" % (batch * 1000 + number), value(batch, bytes(80)), TTL_S)
        assert cache.flush(10)
        main, log = sizes(path)
        largest, largest_log = max(largest, main), max(largest_log, log)
    assert largest <= max_bytes
    assert largest_log <= WAL_MAX_BYTES
    assert cache.dropped == 0
    assert cache.look_up(b"%32d" % 39_999) == value(39, bytes(80))
    assert cache.look_up(b"%32d" % 0) is None
    assert 8000 < len(list(cache.items())) < 25_000
    cache.shut()


def test_a_smaller_bound_begins_the_file_anew_and_keeps_the_generations(path: Path) -> None:
    cache = HostCache(path, MAX_BYTES)
    cache.open()
    cache.raise_generation("m", 5)
    for number in range(9000):
        cache.put_soon(b"%32d" % number, bytes(1000), TTL_S)
    cache.shut()
    smaller = HostCache(path, 2**22)
    smaller.open()
    assert sizes(path)[0] <= 2**22
    assert smaller.generations() == {"m": 5}
    assert smaller.repairs == 0
    smaller.shut()


def test_a_generation_only_rises_and_is_shared(cache: HostCache, path: Path) -> None:
    assert cache.generations() == {}
    cache.raise_generation("m", 3)
    cache.raise_generation("m", 2)
    cache.raise_generation("n", 1)
    assert cache.flush(5)
    with peer(path) as other:
        assert other.ask("cache.generations()") == {"m": 3, "n": 1}
        other.ask("(cache.raise_generation('m', 4), cache.flush(5))")
    assert cache.generations() == {"m": 4, "n": 1}


def test_items_are_walked_and_deleted(cache: HostCache, clock: Clock) -> None:
    keys = [b"%d" % number for number in range(1234)]
    for key in keys:
        cache.put_soon(key, b"v" + key, 100)
    cache.put_soon(b"expires", b"v", 1)
    assert cache.flush(5)
    clock.now += 2
    assert list(cache.items()) == [(key, b"v" + key, 1_000_100) for key in keys]
    assert cache.stats()["entries"] == 1235
    assert cache.delete_many([*keys[:700], b"none"]) == 700
    assert [key for key, _, _ in cache.items()] == keys[700:]


def test_items_are_walked_while_rows_come_and_go(cache: HostCache) -> None:
    for number in range(1200):
        cache.put_soon(b"%d" % number, b"v", TTL_S)
    assert cache.flush(5)
    walk = cache.items()
    seen = [next(walk)[0] for _ in range(400)]
    assert cache.delete_many([b"%d" % number for number in range(700)]) == 700
    seen += [key for key, _, _ in walk]
    assert len(seen) == len(set(seen))
    assert set(seen) >= {b"%d" % number for number in range(700, 1200)}


def test_stats_say_how_full_it_is(cache: HostCache) -> None:
    cache.put_soon(b"k", value(5_000_000_000), TTL_S)
    assert cache.flush(5)
    stats = cache.stats()
    assert stats["entries"] == 1
    assert stats["oldest_asked_s"] == 5
    assert stats["max_bytes"] == MAX_BYTES
    assert 0 < int(stats["file_bytes"] or 0) < 100_000
    assert (stats["dropped"], stats["errors"], stats["trouble"]) == (0, 0, None)


def test_files_are_private(cache: HostCache, path: Path) -> None:
    assert cache.healthy
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def refusal(path: Path) -> str:
    cache = HostCache(path, MAX_BYTES)
    try:
        with pytest.raises(HostFileError) as refused:
            cache.open()
        assert not cache.healthy
        assert cache.look_up(b"k") is None
    finally:
        cache.shut()
    return str(refused.value)


def test_what_others_could_tamper_with_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    (own / "target").touch()
    (own / "link").symlink_to(own / "target")
    assert "not a regular file" in refusal(own / "link")
    os.mkfifo(own / "pipe")
    assert "not a regular file" in refusal(own / "pipe")
    (tmp_path / "linked").symlink_to(own)
    assert "not a folder" in refusal(tmp_path / "linked" / "host.sqlite")
    own.chmod(0o777)
    assert "others may write" in refusal(own / "host.sqlite")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_and_folder_are_refused(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    (own / "host.sqlite").touch()
    os.chown(own / "host.sqlite", 12345, -1)
    assert "belongs to another user" in refusal(own / "host.sqlite")
    (own / "host.sqlite").unlink()
    os.chown(own, 12345, -1)
    assert "belongs to another user" in refusal(own / "host.sqlite")


def memory() -> BaseCache:
    return SimpleMemoryCache(serializer=NullSerializer(), timeout=None)


async def walk_through(cache: BaseCache) -> list[Any]:
    """Use every operation of aiocache's interface."""
    found: list[Any] = [
        await cache.set(b"k", b"v", ttl=100),
        await cache.get(b"k"),
        await cache.get(b"none"),
        await cache.get(b"none", default=7),
        await cache.exists(b"k"),
        await cache.exists(b"none"),
        await cache.multi_set([(b"a", b"1"), (b"b", b"2")], ttl=100),
        await cache.multi_get([b"a", b"none", b"b"]),
        await cache.add(b"new", b"v"),
        await cache.delete(b"new"),
        await cache.delete(b"new"),
        await cache.expire(b"k", 50),
        await cache.expire(b"none", 50),
        await cache.increment(b"counter", 2),
        await cache.increment(b"counter", -5),
    ]
    with pytest.raises(ValueError, match="already exists"):
        await cache.add(b"k", b"w")
    await cache.set(b"text", b"no number")
    with pytest.raises(TypeError):
        await cache.increment(b"text")
    found += [await cache.get(b"k"), await cache.clear(), await cache.exists(b"k")]
    async with RedLock(cache, "lock", lease=5):
        found.append(await cache.exists("lock-lock"))
    found.append(await cache.exists("lock-lock"))
    return found


def test_it_answers_as_aiocaches_own_backend_does(cache: HostCache) -> None:
    assert asyncio.run(walk_through(cache)) == asyncio.run(walk_through(memory()))


def test_aiocaches_names_keep_apart(cache: HostCache) -> None:
    async def run() -> list[Any]:
        await cache.set(b"k", b"one", namespace="x")
        await cache.set(b"k", b"two", namespace="y")
        await cache.clear(namespace="x")
        return [await cache.get(b"k", namespace=name) for name in "xy"]

    assert asyncio.run(run()) == [None, b"two"]


def test_aiocaches_compare_and_swap(cache: HostCache) -> None:
    async def run() -> list[Any]:
        await cache.set(b"k", b"one")
        return [
            await cache.set(b"k", b"two", _cas_token=b"one"),
            await cache.set(b"k", b"three", _cas_token=b"one"),
            await cache.get(b"k"),
        ]

    assert asyncio.run(run()) == [1, 0, b"two"]


def test_aiocaches_operations_raise_when_the_file_is_away(path: Path) -> None:
    cache = HostCache(path, MAX_BYTES)

    async def run() -> None:
        await cache.set(b"k", b"v")

    with pytest.raises(sqlite3.OperationalError):
        asyncio.run(run())


def test_only_bytes_are_values(cache: HostCache) -> None:
    async def run() -> None:
        await cache.set(b"k", 17)

    with pytest.raises(TypeError):
        asyncio.run(run())


def test_closing_as_aiocache_does_shuts_the_file(path: Path) -> None:
    cache = HostCache(path, MAX_BYTES)

    async def run() -> None:
        async with cache:
            cache.open()
            await cache.set(b"k", b"v")

    asyncio.run(run())
    assert not cache.healthy


def longest_wait_s(cache: HostCache, until: Callable[[], bool]) -> float:
    """Look up and put on an event loop until the time comes; the longest that it stood still."""

    async def run() -> float:
        longest, number, before = 0.0, 0, time.perf_counter()
        while not until():
            number += 1
            assert cache.look_up(b"kept") == b"v"
            cache.put_soon(b"%d" % (number % 500), b"v", TTL_S)
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, before = max(longest, now - before), now
        return longest

    return asyncio.run(run())


HOLD = """
lock = sqlite3.connect(cache._file.path, isolation_level=None)
def work():
    lock.execute("BEGIN IMMEDIATE")
    time.sleep(0.5)
    lock.execute("COMMIT")
"""
CHECKPOINT = """
log = sqlite3.connect(cache._file.path, isolation_level=None)
log.execute("PRAGMA wal_autocheckpoint = 0")
def work():
    log.execute("BEGIN IMMEDIATE")
    log.executemany("INSERT INTO counts (key, value, expires_s) VALUES (?, ?, 9)",
                    ((b"big%d" % n, bytes(20000)) for n in range(700)))
    log.execute("COMMIT")
    for _ in range(3):
        log.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
"""
WRITE = """
def work():
    for n in range(15000):
        cache.put_soon(b"w%d" % n, value(n, bytes(100)), 1e9)
        if n % 5000 == 0:
            cache.flush(5)
    cache.flush(5)
"""


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param(HOLD, id="a held lock"),
        pytest.param(CHECKPOINT, id="a large checkpoint"),
        pytest.param(WRITE, id="heavy writing"),
    ],
)
def test_the_event_loop_waits_for_no_other_process(
    cache: HostCache, path: Path, setup: str
) -> None:
    cache.put_soon(b"kept", b"v", 1e9)
    assert cache.flush(5)
    with peer(path, setup) as other:
        other.tell("work()")
        done = threading.Thread(target=other.listen)
        done.start()
        # What would wait for the lock or for the disk would wait for half a second.
        assert longest_wait_s(cache, lambda: not done.is_alive()) < 0.25
        done.join()
    assert any(cache.flush(5) for _ in range(3))
    assert cache.healthy
    assert cache.repairs == 0
