"""The ledger: each count is in it once, under who asked, whatever becomes of its worker."""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import COUNT, MODEL, question, until
from tests.e2e.ledger import TEAMS, Command, ask, config, ledger, total
from tests.faults.crowd import workers
from tests.server import KEY, Tallygate

Start = Callable[..., Tallygate]
Body = dict[str, Any]


@pytest.fixture
def own(tmp_path: Path, provider: SimulatedProvider) -> Iterator[tuple[Tallygate, Command]]:
    """Two workers of one test's own, and the command beside them."""
    with Tallygate(tmp_path, config(provider), workers=2) as running:
        yield running, Command(tmp_path)


def test_hits_misses_and_errors_of_several_keys_and_end_users_add_up(
    own: tuple[Tallygate, Command], provider: SimulatedProvider
) -> None:
    """To the last one, when the server has ended: the lane's hits and the ordinary way's."""
    server, command = own
    dice = random.Random(7)
    known = [question() for _ in range(20)]
    users = ["", *(f"user-{number}" for number in range(10))]
    asked = []
    for number in range(2_000):
        fate = dice.random()
        key = KEY if fate < 0.2 else dice.choice([*TEAMS.values()])
        key = "sk-wrong" if fate > 0.97 else key
        model = "keyless" if fate > 0.92 else "nobody" if fate > 0.88 else MODEL
        body = dice.choice(known) if model == MODEL and number % 10 else question(model)
        # In the head, in the body, and in the head before the body.
        user = dice.choice(users)
        if number % 3 == 0 and user:
            body = {**body, "user": user}
        asked.append((key, "" if number % 3 == 0 else user, body))
    answers = ask(server, asked)
    lane_hits = server.metrics()["tallygate_lane_hits_total"]
    counted = {name: value for name, value in server.metrics().items() if "counts_total" in name}
    seen = total(server)
    assert server.stop() == 0

    wanted: Counter[tuple[str, str, str]] = Counter()
    names = {KEY: "master", **{key: name for name, key in TEAMS.items()}}
    for start in range(4):
        for (key, user, body), answer in zip(
            asked[start::4], _answers_of(answers, start), strict=True
        ):
            source = answer.headers.get("x-tallygate-source", "error")
            who = names.get(key, "")
            # Of a request that is refused before it is read nobody knows the body's end user.
            end_user = (user or body.get("user", "")) if who else ""
            wanted[who, end_user, source] += 1
    rows = command.rows("--group-by", "key,end_user,source")
    found = Counter({(row["key"], row["end_user"], row["source"]): row["requests"] for row in rows})
    assert found == wanted
    done = command.total()
    assert done["requests"] == len(asked)
    assert done["upstream_calls"] == provider.calls
    assert done["errors"] == sum(answer.status_code != 200 for answer in answers)
    tokens = sum(answer.json().get("input_tokens", 0) for answer in answers)
    assert done["input_tokens"] == tokens
    sources = Counter(answer.headers.get("x-tallygate-source") for answer in answers)
    assert done["upstream_calls_saved"] == sources["cache"] + sources["coalesced"]
    assert lane_hits > 1_000
    assert sum(counted.values()) + done["errors"] == len(asked)
    assert seen["requests"] > len(asked) / 2


def _answers_of(answers: list[httpx.Response], part: int) -> list[httpx.Response]:
    sizes = [len(range(start, 2_000, 4)) for start in range(4)]
    begin = sum(sizes[:part])
    return answers[begin : begin + sizes[part]]


def test_what_is_counted_is_there_when_it_is_asked_for(
    start: Start, provider: SimulatedProvider
) -> None:
    """By the same worker at once, and complete_until says what may be missing of others."""
    server = start(config(provider))
    body = question()
    for asked in range(1, 6):
        server.count(body)
        found = ledger(server)
        assert found["data"][0]["requests"] == asked
    behind = datetime.now(UTC) - datetime.fromisoformat(found["complete_until"])
    assert timedelta(0) < behind < timedelta(seconds=5)


def test_many_end_users_are_a_few_and_the_others(
    tmp_path: Path, provider: SimulatedProvider
) -> None:
    """Of those who repeat one question, too; the metrics have no series for any."""
    body, users = question(), 3_000
    with Tallygate(tmp_path, config(provider, max_end_users=50), workers=2) as server:
        series = server.metrics().keys()
        server.count(body)
        answers = ask(server, [(KEY, f"user-{number}", body) for number in range(users)])
        assert {answer.status_code for answer in answers} == {200}
        assert server.metrics().keys() == series
        minutes = 1 + int(max(answer.elapsed.total_seconds() for answer in answers)) + 1
    rows = Command(tmp_path).rows("--group-by", "end_user", "--limit", "100000")
    by_user = {row["end_user"]: row["requests"] for row in rows}
    assert sum(by_user.values()) == users + 1
    assert len(by_user) <= 2 + 50 * 2 * minutes
    assert by_user["other"] >= users - 50 * 2 * minutes


def test_end_users_are_hashed_when_configured(tmp_path: Path, provider: SimulatedProvider) -> None:
    told = config(provider)
    told["telemetry"]["hash_end_users"] = True
    body = question()
    with Tallygate(tmp_path, told) as server:
        for user in ("anna@example.com", "anna@example.com", "bert@example.com"):
            server.count(body, x_tallygate_end_user=user)
    line = next(one for one in server.out.read_text().splitlines() if "end_user" in one)
    rows = Command(tmp_path).rows("--group-by", "end_user")
    assert sorted(row["requests"] for row in rows) == [1, 2]
    assert json.loads(line)["end_user"] in {row["end_user"] for row in rows}
    for file in (tmp_path / "tallygate").glob("usage*"):
        assert b"example.com" not in file.read_bytes()


def test_a_worker_that_is_killed_loses_no_more_than_a_second(
    own: tuple[Tallygate, Command],
) -> None:
    server, command = own
    body = question()
    asked: list[float] = []
    with httpx.Client(base_url=server.url, headers={"x-api-key": KEY}) as client:
        until_s = time.monotonic() + 3
        while time.monotonic() < until_s:
            assert client.post(COUNT, json=body).status_code == 200
            asked.append(time.monotonic())
        died_s = time.monotonic()
        for pid in workers(server.pid).values():
            os.kill(pid, signal.SIGKILL)
    safe = sum(at < died_s - 1 for at in asked)
    assert safe > 100
    assert safe <= command.total()["requests"] <= len(asked)
    # Whoever takes their place goes on in the same file.
    before = command.total()["requests"]
    until(lambda: _answers(server))
    until(lambda: command.total()["requests"] > before)


def _answers(server: Tallygate) -> bool:
    try:
        return server.count(question()).status_code == 200
    except httpx.TransportError:
        return False


def test_two_servers_share_a_file(tmp_path: Path, provider: SimulatedProvider) -> None:
    shared = {"path": str(tmp_path / "both" / "ledger.sqlite3")}
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    body = question()
    with (
        Tallygate(folders[0], config(provider, **shared)) as one,
        Tallygate(folders[1], config(provider, **shared)) as other,
    ):
        ask(one, [(KEY, "", body)] * 100)
        ask(other, [(KEY, "", body)] * 50)
        until(lambda: total(one)["requests"] == total(other)["requests"] == 150)
    file = Path(shared["path"])
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
