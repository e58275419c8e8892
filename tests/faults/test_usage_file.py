"""The ledger's file is locked, full, broken, gone or somebody else's: no count fails or is delayed.

What could not be written waits in memory, within bounds, and is written when it can be.
"""

import os
import resource
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import BEARER, COUNT, MODEL, anthropic, model_list, question, until
from tests.e2e.ledger import Command, ledger
from tests.faults.crowd import workers
from tests.server import KEY, Tallygate

LOCKED_S = 3.0
SLOW_S = 0.5
"""No answer takes as long, whatever the file does."""
Begin = Callable[..., Tallygate]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the file will be."""
    (tmp_path / "tallygate").mkdir(mode=0o700)
    return tmp_path / "tallygate"


@pytest.fixture
def begin(tmp_path: Path, provider: SimulatedProvider) -> Iterator[Begin]:
    """Start servers one after the other in one folder."""
    running: list[Tallygate] = []

    def start(**options: Any) -> Tallygate:
        models = model_list(**{MODEL: anthropic("claude-x", provider.url)})
        running.append(Tallygate(tmp_path, {"model_list": models}, **options))
        return running[-1]

    yield start
    for one in running:
        one.stop()


class Asking:
    """Asks two workers one after the other; every answer is right, and none is slow."""

    def __init__(self, server: Tallygate) -> None:
        self._server = server
        self._body = question()
        self.asked = 0

    def ask(self, seconds: float = 0.0) -> None:
        """Ask what is remembered, and a few that are not, for so long."""
        until_s = time.monotonic() + seconds
        with httpx.Client(base_url=self._server.url, headers=BEARER, timeout=30) as client:
            while self.asked < 20 or time.monotonic() < until_s or not seconds:
                body = self._body if self.asked % 10 else question()
                answer = client.post(COUNT, json=body)
                assert answer.status_code == 200
                assert answer.elapsed.total_seconds() < SLOW_S
                self.asked += 1
                if not seconds and not self.asked % 50:
                    break


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Write to the file, and take one's time."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=5)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def counted(tmp_path: Path) -> int:
    total = Command(tmp_path).total()
    return total["requests"]


def errors(server: Tallygate) -> list[str]:
    told = server.err.read_text().splitlines()
    return [line for line in told if "telemetry.usage" in line]


def test_a_file_that_another_process_locks_loses_nothing(
    begin: Begin, folder: Path, tmp_path: Path
) -> None:
    server = begin(workers=2)
    asking = Asking(server)
    asking.ask(0.5)
    with locked(folder / "usage.sqlite3"):
        asking.ask(LOCKED_S)
        stuck = ledger(server)["complete_until"]
    until(lambda: ledger(server)["complete_until"] > stuck)
    asking.ask(0.5)
    assert server.stop() == 0
    assert counted(tmp_path) == asking.asked > 500
    assert "locked; counting goes on" in errors(server)[0]
    assert "written again" in "".join(errors(server))


def test_a_file_that_stays_locked_is_left_when_the_server_ends(
    begin: Begin, folder: Path, tmp_path: Path
) -> None:
    """In time, and it is told how many are lost."""
    server = begin()
    asking = Asking(server)
    asking.ask()
    until(lambda: ledger(server)["data"][0]["requests"] == asking.asked)
    written = asking.asked
    with locked(folder / "usage.sqlite3"):
        asking.ask()
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 8
    assert counted(tmp_path) == written
    assert f"{asking.asked - written} requests are not in it" in errors(server)[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="limits a running process as Linux does")
def test_a_full_disk_loses_nothing(begin: Begin, tmp_path: Path) -> None:
    """In that the server's processes may not make a file longer, which is then lifted."""
    server = begin()
    asking = Asking(server)
    asking.ask()
    until(lambda: ledger(server)["data"][0]["requests"] == asking.asked)
    (worker,) = workers(server.pid).values()
    unlimited = resource.prlimit(worker, resource.RLIMIT_FSIZE)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (1024, unlimited[1]))
    asking.ask(1.5)
    until(lambda: bool(errors(server)))
    resource.prlimit(worker, resource.RLIMIT_FSIZE, unlimited)
    until(lambda: "written again" in errors(server)[-1])
    assert server.stop() == 0
    assert counted(tmp_path) == asking.asked


def test_a_place_that_is_no_folder_costs_nothing_and_is_taken_when_it_is_one(
    begin: Begin, folder: Path, tmp_path: Path
) -> None:
    folder.rmdir()
    folder.write_text("in the way")
    server = begin(workers=2)
    asking = Asking(server)
    asking.ask(1.0)
    told = errors(server)
    assert len(told) == 2, told  # one for each worker
    refused = httpx.get(f"{server.url}/usage", headers={"x-api-key": KEY})
    assert refused.status_code == 500
    assert str(tmp_path) not in refused.text
    folder.unlink()
    until(lambda: len(errors(server)) >= 5)  # one of them of GET /usage
    assert server.stop() == 0
    assert counted(tmp_path) == asking.asked


@pytest.mark.parametrize("while_it_runs", [False, True])
def test_a_broken_file_is_put_aside(
    begin: Begin, folder: Path, tmp_path: Path, *, while_it_runs: bool
) -> None:
    file = folder / "usage.sqlite3"
    if not while_it_runs:
        file.write_bytes(b"no database " * 1000)
    server = begin(workers=2)
    asking = Asking(server)
    if while_it_runs:
        asking.ask(1.0)
        until(lambda: ledger(server)["data"][0]["requests"] == asking.asked)
        with file.open("r+b") as opened:
            opened.write(os.urandom(file.stat().st_size))
        Path(f"{file}-wal").write_bytes(b"")
        while not [*folder.glob("usage.sqlite3.corrupt-*")]:
            asking.ask()
            time.sleep(0.6)
        time.sleep(1.2)  # both workers have written the rest
        asking.asked = 0
        before = ledger(server)["data"][0]["requests"]
    else:
        before = 0
    asking.ask(1.0)
    assert server.stop() == 0
    assert counted(tmp_path) == before + asking.asked
    assert [one for one in errors(server) if "was broken and is now" in one]
    aside = {one.name.split("-")[1] for one in folder.glob("usage.sqlite3.corrupt-*")}
    assert len(aside) == 1


def test_a_file_that_is_deleted_is_made_again(begin: Begin, folder: Path, tmp_path: Path) -> None:
    server = begin()
    asking = Asking(server)
    asking.ask()
    until(lambda: ledger(server)["data"][0]["requests"] == asking.asked)
    for one in folder.glob("usage.sqlite3*"):
        one.unlink()
    again = Asking(server)
    again.ask()
    until(lambda: ledger(server)["data"][0]["requests"] == again.asked)
    assert server.stop() == 0
    assert counted(tmp_path) == again.asked
    assert not errors(server)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(begin: Begin, folder: Path) -> None:
    file = folder / "usage.sqlite3"
    file.write_bytes(b"")
    os.chown(file, 12345, -1)
    server = begin()
    Asking(server).ask()
    until(lambda: bool(errors(server)))
    time.sleep(1.2)
    (line,) = errors(server)
    assert "belongs to another user" in line
    assert file.read_bytes() == b""
    assert server.metrics()['tallygate_records_total{sink="ledger",result="sent"}'] == 0


def test_a_file_of_a_newer_program_is_left_alone(begin: Begin, folder: Path) -> None:
    file = folder / "usage.sqlite3"
    with closing(sqlite3.connect(file)) as newer:
        newer.execute("PRAGMA user_version = 99")
        newer.execute("CREATE TABLE theirs (v)")
        newer.commit()
    server = begin()
    Asking(server).ask()
    until(lambda: bool(errors(server)))
    assert "another version" in errors(server)[0]
    assert server.stop() == 0
    with closing(sqlite3.connect(file)) as newer:
        assert newer.execute("SELECT count(*) FROM theirs").fetchone() == (0,)
