"""What may happen to the machine's shared file, and what a process makes of it."""

import contextlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cache.host import HostCache, HostFileError
from tests.host_file import (
    MAX_BYTES,
    RECORDS,
    age,
    aside,
    count,
    cut_in_the_middle,
    cut_inside_a_page,
    drop_a_table,
    empty,
    eventually,
    fill_with_garbage,
    key_of,
    peer,
    scramble_a_tenth,
    scramble_pages,
    works,
    write_as_a_newer_version,
    write_no_text,
)

FAULTS = [
    fill_with_garbage,
    cut_in_the_middle,
    cut_inside_a_page,
    scramble_pages,
    drop_a_table,
    age,
    write_as_a_newer_version,
    write_no_text,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_c6_a_bad_file_is_put_aside_at_the_start(path: Path, fault: Callable[[Path], None]) -> None:
    fault(path)
    cache = HostCache(path, MAX_BYTES)
    with contextlib.suppress(HostFileError):
        cache.open()
    assert eventually(lambda: works(cache, RECORDS))
    found = {count(cache, number) for number in range(RECORDS)}
    assert found == {None}
    assert cache.repairs == 1
    assert len(aside(path)) == 1
    cache.shut()


def test_what_is_no_generation_is_none(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("INSERT INTO generations VALUES ('n', 'no number'), ('o', 5)")
        file.commit()
    cache = HostCache(path, MAX_BYTES)
    cache.open()
    assert cache.generations() == {"m": 3, "o": 5}
    cache.shut()


def test_c6_an_empty_file_is_begun(path: Path) -> None:
    empty(path)
    cache = HostCache(path, MAX_BYTES)
    cache.open()
    assert works(cache, 1)
    assert cache.repairs == 0
    cache.shut()


def test_c6_what_is_put_aside_is_bounded(path: Path) -> None:
    for _ in range(3):
        fill_with_garbage(path)
        cache = HostCache(path, MAX_BYTES)
        cache.open()
        cache.shut()
        time.sleep(1.1)  # The names are made of seconds.
    assert len(aside(path)) == 1
    assert len(list(path.parent.iterdir())) <= 7


def test_c5_partly_scrambled_pages_give_no_wrong_count(path: Path) -> None:
    scramble_a_tenth(path)
    cache = HostCache(path, MAX_BYTES)
    with contextlib.suppress(HostFileError):
        cache.open()
    for number in range(RECORDS):
        assert count(cache, number) in {None, number + 1}
    assert eventually(lambda: works(cache, RECORDS + 1))
    cache.shut()


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """Give a small file system of its own; skip where the tests may not mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here; the limit on file sizes is tried instead")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_c6_a_full_disk_costs_writes_only_and_only_while_it_is_full(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "3m") as disk:
        path = disk / "own" / "host.sqlite"
        cache = HostCache(path, MAX_BYTES)
        cache.open()
        assert works(cache, 1)
        (disk / "ballast").touch()
        with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        told: list[bool] = []
        for number in range(2, 20_000):
            cache.put_soon(key_of(number), bytes(2000), 1e9, told.append)
        cache.flush(5)
        assert False in told
        assert not cache.healthy
        assert cache.dropped > 0
        assert count(cache, 1) == 2
        (disk / "ballast").unlink()
        assert eventually(lambda: cache.healthy)
        assert works(cache, 20_001)
        cache.shut()


def test_c6_a_limit_on_file_sizes_costs_writes_only(tmp_path: Path) -> None:
    path = tmp_path / "own" / "host.sqlite"
    with peer(path) as other:
        assert other.ask("works(1)")
        other.ask("resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, -1))")
        other.ask("[cache.put_soon(b'%d' % n, bytes(2000), 1e9) for n in range(2000)]")
        assert other.ask("(cache.flush(5), cache.healthy)") == (False, False)
        assert other.ask("cache.dropped") > 0
        other.ask("resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))")
        assert eventually(lambda: other.ask("cache.healthy"))
        assert other.ask("(works(2), count(1))") == (True, 2)


def test_c6_a_read_only_disk_is_refused_until_it_can_be_written(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "8m") as disk:
        path = disk / "own" / "host.sqlite"
        cache = HostCache(path, MAX_BYTES)
        cache.open()
        cache.shut()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        cache = HostCache(path, MAX_BYTES)
        with pytest.raises(HostFileError):
            cache.open()
        assert not works(cache, 1)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert eventually(lambda: cache.healthy)
        assert works(cache, 2)
        cache.shut()


@contextlib.contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """Take the right to write to a file or folder away; root needs the file system's help."""
    if os.geteuid() != 0:
        mode = path.stat().st_mode
        path.chmod(mode & ~0o222)
        yield
        path.chmod(mode)
        return
    if subprocess.run(["chattr", "+i", path], capture_output=True, check=False).returncode:
        pytest.skip("this file system cannot make a file unwritable for root")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_c6_an_unwritable_file_or_folder_is_refused_until_it_can_be_written(
    path: Path, what: str
) -> None:
    for suffix in ("-wal", "-shm", ".lock"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    cache = HostCache(path, MAX_BYTES)
    with unwritable(path if what == "file" else path.parent):
        with pytest.raises(HostFileError):
            cache.open()
        assert not works(cache, 1)
        assert aside(path) == []
    assert eventually(lambda: cache.healthy)
    assert (works(cache, 2), count(cache, 7)) == (True, 8)
    cache.shut()


def test_c6_without_descriptors_it_goes_on_and_it_opens_when_there_are_some(path: Path) -> None:
    with peer(path) as running, peer(path, opened=False) as starting:
        for each in (running, starting):
            each.ask(
                "resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')) - 1,"
                " resource.getrlimit(resource.RLIMIT_NOFILE)[1]))"
            )
        assert running.ask(f"works({RECORDS})")
        assert starting.ask("opens()") != "open"
        assert starting.ask("(cache.healthy, count(1), put(1))")[:2] == (False, None)
        starting.ask(
            "resource.setrlimit(resource.RLIMIT_NOFILE,"
            " (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)"
        )
        assert eventually(lambda: starting.ask("cache.healthy"))
        assert starting.ask(f"count({RECORDS})") == RECORDS + 1
