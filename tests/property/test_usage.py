"""Whatever is counted, and whenever it is written or fails to be: the ledger has the very sums."""

import sqlite3
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.telemetry import CountEvent
from app.telemetry.usage import Cell, Names, Usage, UsageFile, cells, ledger
from app.telemetry.usage.file import UsageFileError
from app.telemetry.usage.query import SUMS, Query
from app.telemetry.usage.report import read_report
from app.telemetry.usage.table import OTHER, Row

NOON_S = 1_790_000_000.0


class Clock:
    """Both clocks, which go on when they are told to."""

    def __init__(self) -> None:
        self.now_s = NOON_S

    def __call__(self) -> float:
        return self.now_s


class MoodyFile(UsageFile):
    """Takes nothing while it is full."""

    is_full = False

    def write(self, rows: Sequence[Row]) -> None:
        if self.is_full:
            raise UsageFileError("full")
        super().write(rows)


class Kept:
    """A ledger of its own, and what it was told."""

    def __init__(self, folder: Path, max_end_users: int = 3, key: bytes | None = None) -> None:
        self.clock = Clock()
        self.file = MoodyFile(folder / "usage.sqlite3", 31, 1_000_000)
        self.noted: Counter[str] = Counter()
        self.usage = Usage(self.file, max_end_users, key, self._note, self.clock, clock=self.clock)

    def _note(self, result: str, requests: int) -> None:
        self.noted[result] += requests

    def close(self) -> None:
        self.usage.end()
        self.usage.wait(10)

    def rows(self, *group_by: str) -> list[tuple[str | int, ...]]:
        query = Query(since=0, until=2**40, group_by=group_by, limit=100_000)
        return read_report(self.file.path, query).rows

    def totals(self) -> Counter[str]:
        (row,) = self.rows()
        return Counter(dict(zip(SUMS, map(int, row), strict=True)))


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    one = Kept(tmp_path)
    yield one
    one.close()


def event(**fields: object) -> CountEvent:
    given = {"time_s": 0.0, "request_id": "", "status": 200, "duration_ms": 1.0, "route": ""}
    return CountEvent(**{**given, **fields})  # type: ignore[arg-type]


few = st.sampled_from
events = st.builds(
    event,
    caller=few(["", "team-a", "team-b"]),
    end_user=few(["", "anna", "bert", "carl", "dora", "emil", OTHER, "\x1b[31m\r\n", "ü" * 256]),
    alias=few(["", "claude", "any/*"]),
    upstream_model=few(["", "claude-1", "claude-2"]),
    provider=few(["", "anthropic"]),
    source=few(["", "live", "cache", "coalesced", "stale", "estimate"]),
    input_tokens=st.integers(0, 10**9),
    upstream_calls=st.integers(0, 3),
)
steps = st.one_of(
    events,
    st.tuples(st.just("hit"), events, st.integers(1, 5)),
    few(["flush", "a minute", "a second", "full", "room"]),
)


def names_of(one: CountEvent) -> Names:
    source = one.source or "error"
    return Names(one.caller, one.end_user, one.alias, one.upstream_model, one.provider, source)


def saved(one: CountEvent) -> int:
    return int(one.source in {"cache", "coalesced"} and not one.upstream_calls)


@given(st.lists(steps, max_size=60))
@settings(deadline=None, max_examples=150)
def test_any_sequence_of_counts_and_flushes_sums_up(sequence: list[object]) -> None:
    wanted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        kept = Kept(Path(folder))
        held: dict[CountEvent, Cell] = {}
        for step in sequence:
            match step:
                case CountEvent() as one:
                    kept.usage.emit(one)
                    wanted.update(
                        requests=1,
                        input_tokens=one.input_tokens,
                        upstream_calls=one.upstream_calls,
                        errors=int(not one.source),
                        upstream_calls_saved=saved(one),
                    )
                case ("hit", CountEvent() as one, int() as times):
                    asked = replace(one, source="cache")
                    cell = held.get(asked)
                    if cell is None or kept.clock() >= cell.until_s:
                        cell = held[asked] = kept.usage.cell(names_of(asked), kept.clock())
                    cell.hits += times
                    cell.tokens += times * asked.input_tokens
                    wanted.update(requests=times, input_tokens=times * asked.input_tokens)
                    wanted.update(upstream_calls_saved=times)
                case "flush":
                    assert kept.usage.flush() is not kept.file.is_full
                case "a minute":
                    kept.clock.now_s += 60
                case "a second":
                    kept.clock.now_s += 1
                case "full" | "room":
                    kept.file.is_full = step == "full"
        kept.file.is_full = False
        kept.close()
        assert kept.totals() == +wanted
        assert kept.noted == +Counter(sent=wanted["requests"])
        assert all(str(user).isprintable() for user, *_ in kept.rows("end_user"))
        for *names, _requests, _tokens, _calls, _errors, _saved in kept.rows("minute", "key"):
            users = [row for row in kept.rows("minute", "key", "end_user") if [*row[:2]] == names]
            assert len({row[2] for row in users} - {"", OTHER}) <= 3


def test_each_minute_has_its_own(kept: Kept) -> None:
    for asked in (1, 2, 3):
        for _ in range(asked):
            kept.usage.emit(event(caller="team"))
        kept.clock.now_s += 60
    kept.usage.flush()
    assert [(row[0], row[1]) for row in kept.rows("minute")] == [
        ("2026-09-21T14:13:00Z", 1),
        ("2026-09-21T14:14:00Z", 2),
        ("2026-09-21T14:15:00Z", 3),
    ]


def test_what_two_threads_do_at_once_is_neither_lost_nor_doubled(kept: Kept) -> None:
    """One counts, as the loop does, while the other takes and minutes end."""
    asked, stop = 300_000, threading.Event()

    def take() -> None:
        while not stop.is_set():
            kept.usage.flush()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    taker = threading.Thread(target=take)
    taker.start()
    try:
        cell = kept.usage.cell(names_of(event(source="cache")), kept.clock())
        for number in range(asked):
            if kept.clock() >= cell.until_s:
                cell = kept.usage.cell(names_of(event(source="cache")), kept.clock())
            cell.hits += 1
            cell.tokens += 7
            if not number % 30_000:
                kept.clock.now_s += 60
    finally:
        stop.set()
        taker.join()
        sys.setswitchinterval(before)
    kept.close()
    totals = kept.totals()
    assert (totals["requests"], totals["input_tokens"]) == (asked, 7 * asked)
    assert len(kept.rows("minute")) == asked // 30_000 + 1


def test_a_hundred_thousand_end_users_are_a_few_and_the_others(tmp_path: Path) -> None:
    kept, users = Kept(tmp_path, max_end_users=100), 100_000
    for number in range(users):
        kept.usage.emit(event(caller="team", end_user=f"u{number}", source="live", input_tokens=2))
        if number == users // 2:
            kept.clock.now_s += 60
    kept.close()
    by_user = kept.rows("end_user")
    assert len(by_user) == 200 + 1
    assert (by_user[0][0], by_user[0][1]) == (OTHER, users - 200)
    assert kept.totals() == Counter(requests=users, input_tokens=2 * users)


def test_names_of_models_that_clients_make_up_are_bounded(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "MAX_CELLS", 50)
    for number in range(1_000):
        kept.usage.emit(event(alias="*", upstream_model=f"m{number}", end_user=f"u{number % 2}"))
    kept.close()
    assert len(kept.rows("upstream_model", "end_user")) == 50 + 1
    assert kept.totals()["requests"] == 1_000


def test_what_waits_for_the_file_is_bounded_and_what_is_lost_is_told(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MAX_PENDING", 20)
    kept.file.is_full = True
    asked = 0
    for _minute in range(50):
        for user in ("anna", "bert"):
            kept.usage.emit(event(caller="team", end_user=user))
            asked += 1
        kept.usage.flush()
        assert len(kept.usage._pending) <= 40
        kept.clock.now_s += 60
    kept.file.is_full = False
    kept.close()
    assert kept.totals()["requests"] == kept.noted["sent"]
    # Ten minutes by end user, twenty without, and then none.
    assert kept.noted == Counter(sent=60, dropped=40)


def test_a_thread_that_hangs_costs_the_oldest_minutes_and_says_so(kept: Kept) -> None:
    with kept.usage._flushing:
        for _ in range(cells.MAX_ENDED + 5):
            kept.usage.emit(event(caller="team"))
            kept.clock.now_s += 60
    kept.close()
    assert kept.totals()["requests"] == kept.noted["sent"] == cells.MAX_ENDED + 1
    assert kept.noted["dropped"] == 4


def test_end_users_are_hashed_and_nothing_else_is(tmp_path: Path) -> None:
    kept = Kept(tmp_path, key=b"a secret")
    for user in ("anna@example.com", "bert@example.com", "anna@example.com", ""):
        kept.usage.emit(event(caller="team", end_user=user))
    kept.close()
    requests = {str(row[0]): row[1] for row in kept.rows("end_user")}
    assert requests.pop("") == 1
    assert sorted(map(str, requests.values())) == ["1", "2"]
    assert all(len(user) == 24 for user in requests)
    assert "example" not in str(requests)


def test_what_is_too_old_is_deleted_and_what_is_too_much_is_folded(tmp_path: Path) -> None:
    """Old minutes become hours without end users; the sums stay."""
    file = UsageFile(tmp_path / "usage.sqlite3", retention_days=1, max_rows=1_000)
    now = int(NOON_S // 60)
    file.write([row(now - 2 * 1440, "old"), row(now - 1441, "old"), row(now - 1440, "kept")])
    rows = [row(now - ago, f"u{user}") for ago in range(600) for user in range(5)]
    file.write(rows)
    file.tidy(now)
    found = all_rows(file.path)
    assert sum(one[7] for one in found) == len(rows) + 1
    assert len(found) <= 1_000
    assert min(one[0] for one in found) >= now - 1440 - 60
    newest = [one for one in found if one[0] == now]
    assert {one[2] for one in newest} == {f"u{user}" for user in range(5)}
    assert {one[2] for one in found if one[0] < now - 500} == {OTHER}
    file.close()


def test_rows_that_cannot_be_folded_are_bounded_too(tmp_path: Path) -> None:
    file = UsageFile(tmp_path / "usage.sqlite3", retention_days=31, max_rows=1_000)
    now = int(NOON_S // 60)
    file.write(
        [row(now - 60 * hour, "", f"key{key}") for hour in range(1, 30) for key in range(50)]
    )
    file.tidy(now)
    found = all_rows(file.path)
    assert 900 <= len(found) <= 1_000
    assert min(one[0] for one in found) > now - 60 * 25
    file.close()


def row(minute: int, end_user: str, caller: str = "team") -> Row:
    return Row(minute, caller, end_user, "m", "m-1", "anthropic", "live", 1, 5, 1, 0, 0)


def all_rows(path: Path) -> list[Row]:
    with closing(sqlite3.connect(path)) as reader:
        return [Row(*one) for one in reader.execute("SELECT * FROM usage")]


def test_a_file_that_is_broken_far_inside_is_put_aside_when_that_shows(tmp_path: Path) -> None:
    """Its beginning reads well, so that opening it again would not tell."""
    path = tmp_path / "usage.sqlite3"
    file = UsageFile(path, retention_days=31, max_rows=1_000_000)
    file.write([row(minute, f"u{user}") for minute in range(100) for user in range(50)])
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = other.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'usage'"
        ).fetchone()
        pages = path.stat().st_size // 4096
    with path.open("r+b") as opened:
        for page in range(pages * 2 // 3, pages):
            if page + 1 != root:
                opened.seek(4096 * page)
                opened.write(b"\xff" * 4096)
    with pytest.raises(UsageFileError, match="malformed"):
        file.write([row(minute, "again") for minute in range(100)])
    file.write([row(1, "again")])
    assert all_rows(path) == [row(1, "again")]
    assert [*tmp_path.glob("usage.sqlite3.corrupt-*")]
    file.close()


def test_one_process_tidies_up_in_a_minute(tmp_path: Path) -> None:
    """However many write to the file."""
    path, now = tmp_path / "usage.sqlite3", int(NOON_S // 60)
    files = [UsageFile(path, retention_days=1, max_rows=1_000) for _ in range(2)]
    for file in files:
        file.write([])
    files[0].tidy(now)
    files[0].write([row(now - 2000, "old")])
    for minute, left in ((now, 1), (now + 1, 0)):
        for file in files:
            file.tidy(minute)
        assert len(all_rows(path)) == left
    for file in files:
        file.close()
