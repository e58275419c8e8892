"""Leases, failures and claims among real processes."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.failure import LASTS_S, Failure
from cache.leases import MAX_HELD, SHARDS, HostLeases, LeaseState, _place
from tests.peer import Peer

SECOND_NS = 1_000_000_000
FAILURE = Failure(429, "rate_limit_error", 7, b"12345678")


def peer(path: Path) -> Peer:
    return Peer(
        "from pathlib import Path; from cache.leases import HostLeases; import resource, time\n"
        "from cache.failure import Failure\n"
        f"leases = HostLeases(Path({str(path)!r}))"
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own" / "leases"


@pytest.fixture
def leases(path: Path) -> Iterator[HostLeases]:
    leases = HostLeases(path)
    yield leases
    leases.close()


def test_one_process_holds_a_key_until_it_gives_it_back(leases: HostLeases, path: Path) -> None:
    with peer(path) as other:
        assert leases.take(b"k") is LeaseState.TAKEN
        assert leases.take(b"k") is LeaseState.HELD
        assert other.ask("leases.take(b'k').value") == "held"
        assert other.ask("leases.take(b'another').value") == "taken"
        leases.release(b"k")
        assert other.ask("leases.take(b'k').value") == "taken"
        assert leases.take(b"k") is LeaseState.HELD


def test_a_killed_holder_frees_its_lease_at_once(leases: HostLeases, path: Path) -> None:
    with peer(path) as other:
        assert other.ask("leases.take(b'k').value") == "taken"
        assert not leases.take(b"k")
        other.kill()
        assert leases.take(b"k")


def test_another_thread_may_give_it_back(leases: HostLeases, path: Path) -> None:
    assert leases.take(b"k")
    thread = threading.Thread(target=leases.release, args=(b"k",))
    thread.start()
    thread.join()
    with peer(path) as other:
        assert other.ask("leases.take(b'k').value") == "taken"


def test_giving_back_what_is_not_held_changes_nothing(leases: HostLeases, path: Path) -> None:
    with peer(path) as other:
        assert other.ask("leases.take(b'k').value") == "taken"
        leases.release(b"k")
        assert leases.take(b"k") is LeaseState.HELD


def test_a_process_holds_a_bounded_number(leases: HostLeases) -> None:
    keys = [b"%d" % number for number in range(MAX_HELD)]
    assert all(leases.take(key) for key in keys)
    assert leases.take(b"one more") is LeaseState.FULL
    assert leases.take(keys[0]) is LeaseState.HELD
    leases.release(keys[0])
    assert leases.take(b"one more") is LeaseState.TAKEN
    assert len(leases) == MAX_HELD


def test_a_failure_reaches_those_who_wait_already(leases: HostLeases, path: Path) -> None:
    with peer(path) as other:
        before = time.monotonic_ns()
        other.ask(
            "leases.fail(b'k', Failure(429, 'rate_limit_error', 7, b'12345678'),"
            " time.monotonic_ns())"
        )
        after = time.monotonic_ns()
    assert leases.failure(b"k", before, after) == FAILURE
    assert leases.failure(b"k", after, after) is None
    assert leases.failure(b"k", before, after + int((LASTS_S + 0.1) * SECOND_NS)) is None
    assert leases.failure(b"k", before, before - 1) is None
    assert leases.failure(b"another", before, after) is None


def test_the_latest_failure_stands(leases: HostLeases) -> None:
    leases.fail(b"k", FAILURE, 10)
    leases.fail(b"k", Failure(503, "api_error"), 20)
    assert leases.failure(b"k", 0, 30) == Failure(503, "api_error")


def test_no_torn_failure_is_believed(leases: HostLeases, path: Path) -> None:
    leases.fail(b"k", FAILURE, 10)
    (file,) = [file for file in path.parent.iterdir() if file.stat().st_size]
    whole = file.read_bytes()
    at = len(whole.rstrip(b"\0")) - 80
    believed = []
    for position in range(max(at - 10, 0), len(whole)):
        torn = bytearray(whole)
        torn[position] ^= 0xFF
        file.write_bytes(torn)
        if (found := leases.failure(b"k", 0, 30)) is not None:
            believed.append(found)
    assert set(believed) <= {FAILURE}
    assert len(believed) < 20


@pytest.mark.parametrize(
    "failure",
    [
        Failure(500, "x" * 33),
        Failure(500, "überladen"),
        Failure(99_999, "api_error"),
        Failure(500, "api_error", -1),
    ],
    ids=["type too long", "type not ASCII", "status", "negative wait"],
)
def test_what_does_not_fit_is_not_published(leases: HostLeases, failure: Failure) -> None:
    leases.fail(b"k", failure, 10)
    assert leases.failure(b"k", 0, 30) is None


def test_a_claim_is_granted_once_per_interval_on_the_machine(path: Path) -> None:
    now = [SECOND_NS]
    leases = HostLeases(path, clock_ns=lambda: now[0])
    assert leases.claim(b"sampler", 10)
    assert not leases.claim(b"sampler", 10)
    now[0] += 10 * SECOND_NS
    assert leases.claim(b"sampler", 10)
    now[0] = 5  # The machine has started anew.
    assert leases.claim(b"sampler", 10)
    leases.close()


def test_processes_share_their_claims(leases: HostLeases, path: Path) -> None:
    with peer(path) as one, peer(path) as two:
        granted = [
            leases.claim(b"sampler", 60),
            *[other.ask("leases.claim(b'sampler', 60)") for other in (one, two)],
        ]
        assert granted == [True, False, False]
        assert two.ask("leases.claim(b'another', 60)")


def test_a_deleted_file_is_replaced_and_its_leases_are_given_back(path: Path) -> None:
    now = [SECOND_NS]
    leases = HostLeases(path, clock_ns=lambda: now[0])
    assert leases.take(b"k")
    for file in path.parent.iterdir():
        file.unlink()
    now[0] += 2 * SECOND_NS
    leases.release(b"k")
    assert leases.take(b"k")
    with peer(path) as other:
        assert other.ask("leases.take(b'k').value") == "held"
    leases.close()


def test_a_file_that_comes_back_is_not_opened_twice(path: Path) -> None:
    now = [SECOND_NS]
    leases = HostLeases(path, clock_ns=lambda: now[0])
    assert leases.take(b"k")
    (file,) = path.parent.iterdir()
    file.rename(path.parent / "away")
    now[0] += 2 * SECOND_NS
    leases.failure(b"k", 0, 0)
    (path.parent / "away").rename(file)
    now[0] += 2 * SECOND_NS
    neighbour = next(key for key in map(str.encode, map(str, range(999))) if shares_file(key))
    assert leases.take(neighbour)
    # If this closed a second descriptor of the file, the neighbour's lock would go with it.
    leases.release(b"k")
    with peer(path) as other:
        assert other.ask(f"leases.take({neighbour!r}).value") == "held"
        assert other.ask("leases.take(b'k').value") == "taken"
    leases.close()


def shares_file(key: bytes) -> bool:
    return _place(key).shard == _place(b"k").shard


def test_files_are_private(leases: HostLeases, path: Path) -> None:
    assert leases.take(b"k")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def broken(leases: HostLeases) -> bool:
    leases.fail(b"k", FAILURE, 10)
    leases.release(b"k")
    return (
        leases.take(b"k") is LeaseState.BROKEN
        and leases.failure(b"k", 0, 30) is None
        and not leases.claim(b"k", 1)
    )


def test_unusable_files_break_the_leases_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert broken(HostLeases(tmp_path / "file" / "leases"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert broken(HostLeases(tmp_path / "open" / "leases"))
    (tmp_path / "link").symlink_to(tmp_path / "open")
    assert broken(HostLeases(tmp_path / "link" / "leases"))
    (tmp_path / "own").mkdir(mode=0o700)
    for shard in range(SHARDS):
        (tmp_path / "own" / f"leases.{shard:02}").symlink_to("/dev/null")
    assert broken(HostLeases(tmp_path / "own" / "leases"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o700)
    os.chown(tmp_path / "own", 12345, -1)
    assert broken(HostLeases(tmp_path / "own" / "leases"))


def test_leases_come_back_when_files_can_be_opened_again(path: Path) -> None:
    with peer(path) as other:
        other.ask("resource.setrlimit(resource.RLIMIT_NOFILE, (3, 4096))")
        assert other.ask("leases.take(b'k').value") == "broken"
        other.ask("resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))")
        other.ask("time.sleep(1.1)")
        assert other.ask("leases.take(b'k').value") == "taken"
