"""``GET /usage`` and ``python -m app usage``: to whom they show what, and how."""

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from rich.cells import cell_len

from bench.provider import SimulatedProvider, count_tokens
from tests.e2e.exchange import COUNT, MODEL, anthropic, model_list, question, refused, until
from tests.e2e.launch import Launch
from tests.e2e.ledger import TEAMS, Command, config, ledger
from tests.server import KEY, Tallygate, free_port

Start = Callable[..., Tallygate]
FORMULA, ANSI, FORGED = '=HYPERLINK("http://x")', "\x1b[31mred\x9b2J", "anna\r\n{}\r\nbert,\u202e"


@pytest.fixture(scope="module")
def server(provider: SimulatedProvider, start: Start) -> Tallygate:
    """Two workers, asked by three teams and a stranger."""
    return start(config(provider), workers=2)


@pytest.fixture
def own(tmp_path: Path, provider: SimulatedProvider) -> Iterator[tuple[Tallygate, Command]]:
    """Two workers of one test's own, and the command beside them."""
    with Tallygate(tmp_path, config(provider), workers=2) as running:
        yield running, Command(tmp_path)


def test_groups_filters_and_times(server: Tallygate) -> None:
    body = question()
    for key, user in ((TEAMS["team-a"], "anna"), (TEAMS["team-a"], "bert"), (KEY, "anna")):
        server.count(body, x_api_key=key, x_tallygate_end_user=user)
    until(lambda: len(ledger(server, group_by="key,end_user")["data"]) >= 3)
    found = ledger(server, group_by="end_user", key="team-a")
    assert {row["end_user"]: row["requests"] for row in found["data"]} == {"anna": 1, "bert": 1}
    (row,) = ledger(server, group_by="model,upstream_model,provider", end_user="bert")["data"]
    names = (row["model"], row["upstream_model"], row["provider"])
    assert names == (MODEL, "claude-one", "anthropic")
    assert row["input_tokens"] == count_tokens(body)
    assert (
        ledger(
            server, since="2020-01-01T00:00:00Z", until="2020-01-02T00:00:00+01:00", group_by="key"
        )["data"]
        == []
    )
    (day,) = ledger(server, group_by="day", since="1d", end_user="bert")["data"]
    assert day["day"].endswith("T00:00:00Z")
    now = datetime.now(UTC)
    for span in ("minute", "hour", "day"):
        (row, *_) = ledger(server, group_by=span)["data"]
        assert timedelta(0) <= now - datetime.fromisoformat(row[span]) < timedelta(days=1)
    cut = ledger(server, group_by="end_user", limit=1)
    assert (len(cut["data"]), cut["truncated"]) == (1, True)
    assert not ledger(server, group_by="end_user")["truncated"]


def test_a_key_sees_its_own_use_alone(server: Tallygate) -> None:
    key = TEAMS["team-b"]
    server.count(question(), x_api_key=key)
    server.count(question())
    until(lambda: bool(ledger(server, key, group_by="key")["data"]))
    assert [row["key"] for row in ledger(server, key, group_by="key")["data"]] == ["team-b"]
    assert ledger(server, key, key="team-b")["data"] == ledger(server, key)["data"]
    url = f"{server.url}/usage"
    for format_ in ("json", "csv"):  # what one key sees is kept for no other
        own = httpx.get(url, params={"format": format_}, headers={"x-api-key": key})
        assert own.headers["cache-control"] == "no-store"
    other = httpx.get(url, params={"key": "team-a"}, headers={"x-api-key": key})
    assert "own use" in refused(other, 403, "permission_error")
    refused(httpx.get(url), 401, "authentication_error")
    refused(httpx.get(url, headers={"x-api-key": "sk-wrong"}), 401, "authentication_error")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("group_by=end-user", "group_by: must be of key, end_user"),
        ("group_by=key,key", "group_by: names one twice"),
        ("group_by=key&group_by=model", "group_by: given twice"),
        ("groupby=key", "unknown parameter: did you mean group_by?"),
        ("since=yesterday", "since: must be a time such as"),
        ("since=2026-11-29", "since: must be a time such as"),
        ("since=2026-11-29T08:00:00", "since: must be a time such as"),
        ("since=2026-02-30T08:00:00Z", "since: must be a time such as"),
        ("until=99999999d", "until: must be a time such as"),
        ("since=1h&until=2h", "until: must be later than since"),
        ("limit=0", "limit: must be a whole number from 1 to 100000"),
        ("limit=100001", "limit: must be a whole number"),
        ("limit=%D9%A1", "limit: must be a whole number"),
        ("format=xml", "format: must be of json, csv"),
        ("&".join(f"a{n}=1" for n in range(50)), "too many parameters"),
    ],
)
def test_a_bad_parameter_is_refused_with_what_to_do(
    client: httpx.Client, query: str, says: str
) -> None:
    assert says in refused(client.get(f"/usage?{query}"), 400, "invalid_request_error")


def test_an_offset_may_be_written_with_a_plus(client: httpx.Client) -> None:
    assert client.get("/usage?since=2026-01-01T00:00:00+02:00").status_code == 200


def test_a_spreadsheet_and_a_terminal_obey_no_end_user(own: tuple[Tallygate, Command]) -> None:
    server, command = own
    named = [FORMULA, ANSI, FORGED, "@sum", "+1", "-1", 'plain, with "quotes"', "m" * 2**20]
    for name in named:
        assert server.count(question(user=name)).status_code == 200
    until(lambda: len(ledger(server, group_by="end_user")["data"]) == len(named))
    answer = httpx.get(
        f"{server.url}/usage",
        params={"group_by": "end_user", "format": "csv"},
        headers={"x-api-key": KEY},
    )
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["x-tallygate-truncated"] == "false"
    with closing(io.StringIO(answer.text, newline="")) as text:
        head, *rows = csv.reader(text)
    assert head[:2] == ["end_user", "requests"]
    users = {row[0] for row in rows}
    assert {f"'{FORMULA}", "'@sum", "'+1", "'-1", 'plain, with "quotes"', "m" * 256} <= users
    assert not any(user.startswith(("=", "+", "-", "@", "\t", "\r")) for user in users)
    for written in (
        answer.text.replace("\r\n", ""),
        *command("--group-by", "end_user").stdout.split("\n"),
    ):
        assert written.isprintable(), written
    assert len(answer.text.splitlines()) == 1 + len(named)
    json_text = command("--format", "json", "--group-by", "end_user").stdout
    assert json_text.strip().isprintable()
    lines = command("--group-by", "end_user").stdout.splitlines()
    assert {cell_len(line) for line in lines} == {cell_len(lines[0])}
    assert len(lines) == 1 + len(named) + 1
    assert "\\x1b[31mred\\x9b2J" in lines[1] + "".join(lines)
    found = ledger(server, end_user=ANSI)
    assert found["data"][0]["requests"] == 1


def test_switched_off_there_is_none(tmp_path: Path, provider: SimulatedProvider) -> None:
    with Tallygate(tmp_path, config(provider, enabled=False)) as server:
        body = question()
        assert [server.count(body).status_code for _ in range(5)] == [200] * 5
        answer = httpx.get(f"{server.url}/usage", headers={"x-api-key": KEY})
        assert "telemetry.usage.enabled" in refused(answer, 404, "not_found_error")
    assert not list((tmp_path / "tallygate").glob("usage*"))
    ran = Command(tmp_path)()
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "nothing has been counted yet" in ran.stderr


def test_without_a_key_it_is_this_machine_s(
    launch: Callable[..., Launch], provider: SimulatedProvider
) -> None:
    port = free_port()
    running = launch(
        {"model_list": model_list(**{MODEL: anthropic("c", provider.url)})}, "--port", str(port)
    )
    running.answers(port)
    url = f"http://127.0.0.1:{port}"
    httpx.post(f"{url}{COUNT}", json=question())
    assert httpx.get(f"{url}/usage").json()["data"][0]["requests"] == 1
    away = httpx.get(f"{url}/usage", headers={"x-forwarded-for": "10.0.0.1"})
    refused(away, 403, "permission_error")


def test_the_command_says_what_it_does_not_understand(
    tmp_path: Path, provider: SimulatedProvider
) -> None:
    with Tallygate(tmp_path, config(provider)):
        pass
    command = Command(tmp_path)
    ran = command("--since", "tomorrow")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("--since: must be a time")
    ran = command("--group-by", "keys")
    assert ran.returncode == 2
    assert "did you mean key?" in ran.stderr
    assert command().returncode == 0
