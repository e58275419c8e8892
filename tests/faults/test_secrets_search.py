"""The search for canaries finds what is there: in each form, in each place."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.exchange import until
from tests.faults.canaries import Canaries, forms
from tests.faults.left_behind import GuardedRedis, LeftBehind

HOLDER = """
import mmap, os, sys
data = os.read(0, 65536)
os.write(os.memfd_create("nameless"), data)
shared = mmap.mmap(-1, len(data))
shared.write(data)
print("held", flush=True)
os.read(0, 1)
"""
"""Holds what it reads in a file without a name and in shared memory, until its input ends."""


@pytest.mark.parametrize("text", ["cq0123456789abcdef", "MIIEv/gIBADAN+gkqhkiG9w0BAQEF"])
def test_each_form_is_found_by_itself(text: str) -> None:
    """Whatever stands around it; and nothing is found where nothing is."""
    canaries = Canaries()
    canaries.add("planted", text)
    for form, written in forms(text):
        assert f"planted: {form}" in canaries.found(b"before" + written + b"after")
    assert not canaries.found(b"cq012345 789abcde MIIEv gIBADAN+gkqh")


def test_each_form_is_found_in_each_place(tmp_path: Path) -> None:
    """Files, an open database, Redis' contents and commands, answers, processes, commands."""
    canaries, left = Canaries(), LeftBehind()
    core = canaries.of("planted", after="")
    data = b" ".join(written for _, written in forms(core))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(data)
    with sqlite3.connect(tmp_path / "database") as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t (v BLOB)")
        database.execute("INSERT INTO t VALUES (?)", (data,))
        database.commit()
        left.files(tmp_path)
    left.answers("a header", [httpx.Response(200, headers=[(b"x", data)])])
    left.answers("a body", [httpx.Response(200, content=data)])
    _hold(left, data)
    path = data.decode().replace("/", "|")
    left.commands("check", environ={"TALLYGATE_CONFIG": path})
    _remember(left, data, tmp_path)
    every = {f"planted: {form}" for form, _ in forms(core)}
    wanted = {"deep/file", "database-wal", "a header", "a body", "open files", "shared memory"}
    wanted |= {"process list", "app check", "a key", "a value", "a hash", "commands"}
    missed = {place: every - canaries.found(left.places[place]).keys() for place in wanted}
    assert not any(missed.values()), missed


def _hold(left: LeftBehind, data: bytes) -> None:
    command = [sys.executable, "-c", HOLDER, data.decode()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin
        assert holder.stdout
        holder.stdin.write(data)
        holder.stdin.flush()
        assert holder.stdout.readline() == b"held\n"
        left.processes(holder.pid)
        holder.stdin.close()


def _remember(left: LeftBehind, data: bytes, folder: Path) -> None:
    """What is gone again was heard when it came; then one place at a time."""
    with GuardedRedis(folder, "password") as cluster:
        cluster.do("SET", "k", data, "PX", "1")
        until(lambda: b'"PX"' in cluster.heard())
        left.keep("commands", cluster.heard())
        commands: dict[str, tuple[str | bytes, ...]] = {
            "a key": ("SET", data, "1"),
            "a value": ("SET", "k", data),
            "a hash": ("HSET", "k", "field", data),
        }
        for place, command in commands.items():
            cluster.do(*command)
            left.keep(place, cluster.contents())
            cluster.do("FLUSHALL")
