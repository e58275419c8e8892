"""The machine's shared file in tests: in this process, in others, and what can happen to it."""

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from cache.host import HostCache
from cache.record import BadRecordError, Codec, Record
from tests.peer import Peer

MAX_BYTES = 64 * 2**20
HEALS_S = 15.0
RECORDS = 3000
CODEC = Codec(b"a secret")

SETUP = """
from pathlib import Path
from cache.host import HostCache, HostFileError
from cache.record import BadRecordError, Codec, Record
import contextlib, os, resource, sqlite3, threading, time
codec = Codec(b"a secret")
cache = HostCache(Path({path!r}), {max_bytes})

def put(number, **more):
    key = b"%032d" % number
    return cache.put_soon(key, codec.encode(key, Record(number + 1, 0, **more)), 1e9)

def count(number):
    key = b"%032d" % number
    with contextlib.suppress(sqlite3.Error, BadRecordError):
        data = cache.look_up(key)
        return None if data is None else codec.decode(key, data).input_tokens

def works(number):
    put(number)
    return cache.flush(2) and count(number) == number + 1

def opens():
    try:
        cache.open()
    except HostFileError as error:
        return str(error)
    return "open"
"""


def peer(path: Path, *, max_bytes: int = MAX_BYTES, opened: bool = True) -> Peer:
    setup = SETUP.format(path=str(path), max_bytes=max_bytes)
    return Peer(setup + ("cache.open()" if opened else ""))


def key_of(number: int) -> bytes:
    return b"%032d" % number


def put(cache: HostCache, number: int) -> bool:
    key = key_of(number)
    return cache.put_soon(key, CODEC.encode(key, Record(number + 1, 0)), 1e9)


def count(cache: HostCache, number: int) -> int | None:
    """Give the count, None for a miss; a record that the codec refuses is one, as for the tiers."""
    with contextlib.suppress(sqlite3.Error, BadRecordError):
        data = cache.look_up(key_of(number))
        return None if data is None else CODEC.decode(key_of(number), data).input_tokens
    return None


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + HEALS_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def works(cache: HostCache, number: int) -> bool:
    put(cache, number)
    return cache.flush(2) and count(cache, number) == number + 1


def aside(path: Path) -> list[Path]:
    """Give the files that were put aside, SQLite's own beside them left out."""
    found = path.parent.glob(f"{path.name}.corrupt-*")
    return [file for file in found if not file.name.endswith(("-wal", "-shm"))]


def fill_with_garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def cut_in_the_middle(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_inside_a_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 1000)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def scramble_pages(path: Path) -> None:
    """Keep the first page, with its header and the schema."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(random.Random(2).randbytes(path.stat().st_size - 4096))


def scramble_a_tenth(path: Path) -> None:
    dice = random.Random(3)
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            if dice.random() < 0.1:
                file.seek(4096 * page + dice.randrange(2000))
                file.write(dice.randbytes(2000))


def drop_a_table(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("DROP TABLE counts")
        file.commit()


def age(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 0")


def write_as_a_newer_version(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 99")


def write_no_text(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE generations SET model = CAST(x'ff' AS TEXT)")
        file.commit()
