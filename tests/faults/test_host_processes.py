"""Several processes on one shared file, when it goes bad or away, or when they are killed."""

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.host import HostCache
from tests.host_file import (
    CODEC,
    MAX_BYTES,
    RECORDS,
    SETUP,
    aside,
    count,
    cut_in_the_middle,
    empty,
    eventually,
    peer,
    put,
    scramble_pages,
    works,
)
from tests.peer import Peer


@pytest.mark.parametrize("fault", [cut_in_the_middle, empty, scramble_pages])
def test_processes_that_notice_at_once_repair_once(
    path: Path, fault: Callable[[Path], None]
) -> None:
    with peer(path) as one, peer(path) as two, peer(path) as three:
        peers = [one, two, three]
        assert all(each.ask(f"count({RECORDS - 1})") == RECORDS for each in peers)
        one.ask("(cache.raise_generation('n', 8), cache.flush(5))")
        fault(path)
        for each in peers:
            each.tell(f"[count(n) for n in range({RECORDS})]")
        for each in peers:
            found = each.listen()
            assert all(tokens in {None, n + 1} for n, tokens in enumerate(found))
        for number, each in enumerate(peers):
            assert eventually(lambda each=each, n=number: each.ask(f"works({n})"))  # type: ignore[misc]
        assert eventually(lambda: all(each.ask("cache.healthy") for each in peers))
        # They are on one file again: what one writes the others read.
        for number, each in enumerate(peers):
            assert eventually(
                lambda each=each, n=number: each.ask(f"works({RECORDS + n})")  # type: ignore[misc]
            )
            assert all(
                other.ask(f"count({RECORDS + number})") == RECORDS + number + 1 for other in peers
            )
        assert sum(each.ask("cache.repairs") for each in peers) == 1
        assert len(aside(path)) == 1
        assert {"m", "n"} == set(three.ask("cache.generations()"))


def test_a_deleted_file_is_begun_anew_by_all(path: Path) -> None:
    with peer(path) as one, peer(path) as two:
        one.ask("(cache.raise_generation('m', 9), cache.flush(5))")
        for file in path.parent.iterdir():
            file.unlink()
        assert eventually(lambda: path.exists() and one.ask("works(1)"))
        assert eventually(lambda: two.ask("count(1)") == 2)
        assert two.ask("works(2)")
        assert one.ask("count(2)") == 3
        assert one.ask("cache.generations()")["m"] == 9
        assert one.ask("cache.repairs") == 0


def test_a_replaced_file_is_taken_as_it_is(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "host.sqlite"
    cache = HostCache(other, MAX_BYTES)
    cache.open()
    put(cache, 7_000_000)
    cache.shut()
    with peer(path) as one, peer(path) as two:
        # Not yet written back: this log must not be replayed into the other file.
        assert one.ask("works(1)")
        other.rename(path)
        assert eventually(lambda: one.ask("count(7_000_000)") == 7_000_001)
        assert eventually(lambda: two.ask("count(7_000_000)") == 7_000_001)
        assert one.ask("works(2)")
        assert two.ask("count(2)") == 3
        with contextlib.closing(sqlite3.connect(path)) as file:
            assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert file.execute("SELECT count(*) FROM counts").fetchone() == (2,)


def test_who_leaves_an_old_file_takes_nothing_from_the_new_one(path: Path) -> None:
    with peer(path) as old, peer(path) as new:
        # It does not look at the path any more, and so still has the old file open at the end.
        old.ask("setattr(cache._writer, '_watch_at', float('inf'))")
        path.rename(path.with_name("away"))
        assert eventually(lambda: new.ask("cache._file.moved()") is False and path.exists())
        assert new.ask("works(1)")
        old.ask("cache.shut()")
        assert path.with_name(path.name + "-wal").exists()
        with peer(path) as late:
            assert late.ask("count(1)") == 2
            assert late.ask("works(2)")
            assert new.ask("count(2)") == 3


def test_an_older_program_leaves_the_file_to_a_newer_one(path: Path) -> None:
    with peer(path) as old:
        newer = path.with_name("newer")
        with contextlib.closing(sqlite3.connect(newer)) as file:
            file.execute("CREATE TABLE other (x)")
            file.execute("PRAGMA user_version = 99")
        inode = newer.stat().st_ino
        newer.rename(path)
        assert eventually(lambda: "newer version" in str(old.ask("cache.trouble")))
        assert not old.ask("works(1)")
        assert path.stat().st_ino == inode
        assert aside(path) == []


def test_a_log_that_cannot_be_written_back_stays_bounded(path: Path) -> None:
    with peer(path, max_bytes=2**30) as writer, contextlib.closing(sqlite3.connect(path)) as reader:
        # A reader that never ends its transaction keeps the log from being begun anew.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM counts").fetchone()
        for part in range(6):
            writer.ask(
                f"[cache.put_soon(b'%d' % n, bytes(20_000), 1e9)"
                f" for n in range({part * 300}, {part * 300 + 300})]"
            )
            writer.ask("cache.flush(5)")
        assert writer.ask("cache._file.wal_bytes()") < 24 * 2**20
        assert writer.ask("cache.dropped") > 0
        reader.rollback()
        assert eventually(lambda: writer.ask("cache.healthy and works(1)"))


KILLED = """
import random, signal
def crash_later(seed):
    # A process of its own, forked before anything is open here.
    child = os.fork()
    if child == 0:
        cache.open()
        dice = random.Random(seed)
        while True:
            put(dice.randrange(5000), asked_at_ns=time.time_ns(), extra=bytes(dice.randrange(400)))
            if dice.random() < 0.02:
                cache.flush(1)
    return child
"""


def test_c7_a_hundred_killed_writers_leave_no_bad_record_and_block_nobody(path: Path) -> None:
    dice = random.Random(4)
    survivor = HostCache(path, MAX_BYTES)
    survivor.open()
    slowest_s = 0.0
    with Peer(SETUP.format(path=str(path), max_bytes=MAX_BYTES) + KILLED) as forks:
        for round_ in range(50):
            pids = [forks.ask(f"crash_later({2 * round_ + n})") for n in range(2)]
            until = time.monotonic() + 0.01 + dice.random() * 0.05
            while time.monotonic() < until:
                started = time.perf_counter()
                number = dice.randrange(5000)
                assert count(survivor, number) in {None, number + 1}
                slowest_s = max(slowest_s, time.perf_counter() - started)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                forks.ask(f"os.waitpid({pid}, 0)[0]")
            assert works(survivor, 5000 + round_)
    assert slowest_s < 0.5
    assert (survivor.errors, survivor.repairs) == (0, 0)
    records = list(survivor.items())
    assert len(records) > RECORDS
    for key, data, _ in records:
        assert CODEC.decode(key, data).input_tokens == int(key) + 1
    survivor.shut()
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
