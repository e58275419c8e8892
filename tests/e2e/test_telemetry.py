"""What an operator is told about counts: one line for each, and numbers that add up."""

import json
import os
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.telemetry import CountEvent
from bench.provider import SimulatedProvider, count_tokens
from tests.server import KEY, START_S, Tallygate

Body = dict[str, Any]
Record = dict[str, Any]
Labels = frozenset[tuple[str, str]]

UPSTREAM_KEY = "sk-ant-the-servers-own"
TEAM_KEY = "sk-team-a-0123456789"
PROMPT = "the-prompt-that-nobody-may-log"
HITS_PER_S = 5

_unique = count()


@pytest.fixture(scope="module")
def config(provider: SimulatedProvider) -> dict[str, Any]:
    def entry(alias: str, upstream: str, **params: Any) -> Body:
        given = {"model": f"anthropic/{upstream}", "api_key": UPSTREAM_KEY, **params}
        return {"model_name": alias, "litellm_params": {**given, "api_base": provider.url}}

    return {
        "model_list": [
            entry("claude", "claude-up"),
            entry("keyless", "claude-up", api_key="os.environ/NOT_SET_HERE"),
            entry("anthropic/*", "*"),
            {"model_name": "estimated", "litellm_params": {"model": "estimate/claude"}},
        ],
        "general_settings": {
            "master_key": KEY,
            "user_header_mappings": [
                {"header_name": "X-Our-User", "litellm_user_role": "customer"},
                {"header_name": "X-Our-Employee", "litellm_user_role": "internal_user"},
            ],
        },
        "keys": [{"name": "team-a", "key": TEAM_KEY}],
    }


@pytest.fixture(scope="module")
def server(config: dict[str, Any], start: Callable[..., Tallygate]) -> Tallygate:
    return start(config)


@pytest.fixture(scope="module")
def pseudonymous(config: dict[str, Any], start: Callable[..., Tallygate]) -> Tallygate:
    """Two workers that hash end users and write few lines about hits."""
    told = {"hash_end_users": True, "hit_records_per_s": HITS_PER_S}
    return start({**config, "telemetry": told}, workers=2)


@pytest.fixture(autouse=True)
def _as_new(provider: SimulatedProvider) -> None:
    provider.clear()


def question(model: str = "claude", **fields: Any) -> Body:
    content = f"{PROMPT} {next(_unique)}"
    return {"model": model, "messages": [{"role": "user", "content": content}], **fields}


def lines(server: Tallygate) -> list[Record]:
    """Read the whole lines of standard output; each must be a JSON object."""
    text = server.out.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def wait_until(is_so: Callable[[], Any]) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if found := is_so():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come about")


def told(server: Tallygate, answer: httpx.Response) -> Record:
    """Wait for the line about an answer; there must be one only."""
    request_id = answer.headers["request-id"]

    def written() -> list[Record]:
        return [line for line in lines(server) if line.get("request_id") == request_id]

    (record,) = wait_until(written)
    assert record["event"] == "count"
    assert record.keys() <= {"event", *CountEvent.__struct_fields__}
    assert abs(record["time_s"] - time.time()) < 60
    assert record["status"] == answer.status_code
    assert record["duration_ms"] > 0
    return dict(record)


def test_a_count_is_told_in_full(server: Tallygate) -> None:
    body = question()
    sent = json.dumps(body).encode()
    headers = {"x_request_id": "mine-7", "user_agent": "a-client/1.0", "x_api_key": TEAM_KEY}
    live, cached = server.count(sent, **headers), server.count(sent, **headers)
    record = told(server, live)
    assert record["upstream_ms"] > 0
    varying = ("time_s", "request_id", "duration_ms", "upstream_ms", "upstream_from_ms")
    same = {name: value for name, value in record.items() if name not in varying}
    expected = {
        "event": "count",
        "status": 200,
        "route": "messages",
        "source": "live",
        "input_tokens": count_tokens(body),
        "caller": "team-a",
        "alias": "claude",
        "model": "claude",
        "provider": "anthropic",
        "upstream_model": "claude-up",
        "deployment": record["deployment"],
        "body_bytes": len(sent),
        "upstream_calls": 1,
        "client_request_id": "mine-7",
        "user_agent": "a-client/1.0",
    }
    assert same == expected
    again = told(server, cached)
    assert {name: value for name, value in again.items() if name not in varying} == {
        name: value for name, value in expected.items() if name != "upstream_calls"
    } | {"source": "cache", "tier": "local"}


def test_a_wildcard_is_told_as_it_stands(server: Tallygate) -> None:
    record = told(server, server.count(question("claude-of-tomorrow")))
    assert record["alias"] == "anthropic/*"
    assert record["model"] == record["upstream_model"] == "claude-of-tomorrow"


def test_the_pass_through_and_an_estimate_are_told_as_such(server: Tallygate) -> None:
    url = f"{server.url}/anthropic/v1/messages/count_tokens"
    headers = {"x-api-key": KEY}
    record = told(server, httpx.post(url, json=question("claude-up"), headers=headers))
    assert (record["route"], record["caller"]) == ("pass_through", "master")
    assert told(server, server.count(question("estimated")))["source"] == "estimate"


@pytest.mark.parametrize(
    ("body", "headers", "status", "type_"),
    [
        (b"{", {}, 400, "invalid_request_error"),
        (question(), {"x_api_key": "sk-wrong"}, 401, "authentication_error"),
        (question("nobody"), {}, 404, "not_found_error"),
        (question("keyless"), {}, 502, "api_error"),
        (question(), {"cache_control": "only-if-cached"}, 504, "timeout_error"),
    ],
    ids=["json", "key", "model", "credential", "cache"],
)
def test_a_refusal_is_told(
    body: Any, headers: dict[str, str], status: int, type_: str, server: Tallygate
) -> None:
    record = told(server, server.count(body, **headers))
    assert (record["status"], record["error_type"]) == (status, type_)
    assert "input_tokens" not in record
    assert "source" not in record


def test_neither_prompts_nor_keys_nor_a_providers_words_are_told(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    quoting = {"type": "invalid_request_error", "message": f"bad text: {PROMPT}"}
    asks: list[tuple[Body, dict[str, Any]]] = [
        (question(), {}),
        (question(system=PROMPT), {"status": 400, "body": {"type": "error", "error": quoting}}),
        (question(), {"status": 500, "body": PROMPT}),
        (question(), {"status": 200, "body": {"input_tokens": PROMPT}}),
        (question(), {"status": 200, "body": {"input_tokens": 7, PROMPT: PROMPT}}),
        (question(), {"status": 401}),
        (question(f"{PROMPT}\n"), {}),
    ]
    for body, behaviour in asks:
        if behaviour:
            provider.behave(**behaviour, times=1)
        record = told(server, server.count(body, x_api_key=TEAM_KEY))
        if body["model"] == "claude":
            assert PROMPT not in json.dumps(record)
    malformed = f'{{"model":"claude","messages":[{{"role":"user","content":"{PROMPT}'
    told(server, server.count(malformed.encode()))
    written = server.out.read_text() + server.err.read_text()
    for secret in (KEY, TEAM_KEY, UPSTREAM_KEY):
        assert secret not in written
    # The name of a model is what the client wrote there, and is told; nothing else is.
    assert written.count(PROMPT) == sum(PROMPT in line.get("model", "") for line in lines(server))


IN_ORDER: list[tuple[str, Body | dict[str, str]]] = [
    ("x-litellm-customer-id", {"x-litellm-customer-id": "customer"}),
    ("x-litellm-end-user-id", {"x-litellm-end-user-id": "end-user"}),
    ("user_header_mappings", {"x-our-user": "mapped"}),
    ("user", {"user": "user"}),
    ("litellm_metadata", {"litellm_metadata": {"user": "litellm"}}),
    ("metadata", {"metadata": {"user_id": "metadata"}}),
    ("safety_identifier", {"safety_identifier": "safety"}),
]


def of_end_user(places: list[tuple[str, Any]]) -> tuple[Body, dict[str, str]]:
    """Spread places over a body and its headers."""
    given = {name: value for _, place in places for name, value in place.items()}
    headers = {name: value for name, value in given.items() if name.startswith("x-")}
    return {name: value for name, value in given.items() if name not in headers}, headers


@pytest.mark.parametrize("first", range(len(IN_ORDER)), ids=[name for name, _ in IN_ORDER])
def test_the_end_user_is_found_in_every_place_and_in_litellms_order(
    first: int, server: Tallygate
) -> None:
    fields, headers = of_end_user(IN_ORDER[first:])
    record = told(server, server.count(question(**fields), **headers))
    _, place = IN_ORDER[first]
    (value,) = place.values()
    (expected,) = value.values() if isinstance(value, dict) else (value,)
    assert record["end_user"] == expected


def test_tallygates_own_header_for_the_end_user_comes_first(server: Tallygate) -> None:
    fields, headers = of_end_user(IN_ORDER)
    answer = server.count(question(**fields), **headers, x_tallygate_end_user="own")
    assert told(server, answer)["end_user"] == "own"


def test_metadata_may_be_text_and_other_roles_headers_are_not_the_end_user(
    server: Tallygate,
) -> None:
    body = question(metadata='{"user_id": "in-text"}')
    assert told(server, server.count(body, x_our_employee="e"))["end_user"] == "in-text"
    assert "end_user" not in told(server, server.count(question(metadata=7, user={}, x="y")))


def test_a8_the_end_user_decides_no_number(server: Tallygate, provider: SimulatedProvider) -> None:
    body = question()
    for user in ("one", "another"):
        record = told(server, server.count({**body, "user": user}))
        assert record["end_user"] == user
    assert provider.calls == 1


def test_end_users_are_hashed_when_configured(pseudonymous: Tallygate) -> None:
    users = ["somebody@example.com", "somebody-else@example.com", "somebody@example.com"]
    answers = [pseudonymous.count(question(user=user)) for user in users]
    first, other, again = (told(pseudonymous, answer)["end_user"] for answer in answers)
    assert first == again != other
    assert "example.com" not in pseudonymous.out.read_text() + pseudonymous.err.read_text()


def test_hits_that_are_left_out_are_counted(pseudonymous: Tallygate) -> None:
    body, asked = question("claude-often"), 60
    with httpx.Client(base_url=pseudonymous.url, headers={"x-api-key": KEY}) as client:
        for _ in range(asked):
            assert client.post("/v1/messages/count_tokens", json=body).status_code == 200

    def all_told() -> bool:
        found = lines(pseudonymous)
        written: int = sum(line.get("model") == "claude-often" for line in found)
        left_out: int = sum(line.get("hits", 0) for line in found)
        assert written + left_out <= asked
        return written < asked == written + left_out

    wait_until(all_told)


class Metrics:
    """Prometheus' text format, version 0.0.4, read as strictly as its own documentation has it."""

    SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([-+.\dInfNae]+)", re.ASCII)
    LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\\n]|\\[\\n"])*)"(?:,|$)', re.ASCII)

    def __init__(self, reply: httpx.Response) -> None:
        assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert reply.text.endswith("\n")
        self.samples: dict[str, dict[Labels, float]] = defaultdict(dict)
        self.types: dict[str, str] = {}
        helped: list[str] = []
        for line in reply.text.splitlines():
            if line.startswith("# HELP "):
                helped.append(line.split(" ", 3)[2])
                assert helped.count(helped[-1]) == 1
            elif line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert (name, name not in self.types) == (helped[-1], True)
                self.types[name] = kind
            else:
                self._sample(line, family=helped[-1])

    def _sample(self, line: str, family: str) -> None:
        parts = self.SAMPLE.fullmatch(line)
        assert parts, line
        name, inner, value = parts.groups()
        tails = ("_bucket", "_sum", "_count") if self.types[family] == "histogram" else ("",)
        assert name in {family + tail for tail in tails}, line
        pairs = self.LABEL.findall(inner or "")
        assert "".join(self.LABEL.split(inner or "")[::3]) == "", line
        labels = frozenset(pairs)
        assert len(labels) == len(dict(pairs)) == len(pairs), line
        assert labels not in self.samples[name], line
        self.samples[name][labels] = float(value)

    def total(self, name: str, **wanted: str) -> float:
        found = self.samples[f"tallygate_{name}"]
        return sum(value for labels, value in found.items() if wanted.items() <= labels)

    def series(self) -> set[tuple[str, Labels]]:
        return {(name, labels) for name, found in self.samples.items() for labels in found}

    def values(self, label: str) -> set[str]:
        return {value for _, labels in self.series() for name, value in labels if name == label}


def metrics(server: Tallygate) -> Metrics:
    return Metrics(httpx.get(f"{server.url}/metrics"))


def ask_all(server: Tallygate, bodies: list[Body], headers: dict[str, str]) -> list[httpx.Response]:
    """Ask over a connection each, several at a time, so that both workers are asked."""
    url = f"{server.url}/v1/messages/count_tokens"
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(headers=headers, limits=limits) as client, ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda body: client.post(url, json=body), bodies))


def check_sums(found: Metrics) -> None:
    requests = found.total("requests_total")
    assert requests == found.total("counts_total") + found.total("errors_total")
    assert requests == found.total("request_seconds_count")
    assert requests == found.total("request_seconds_bucket", le="+Inf")
    buckets: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for labels, value in found.samples["tallygate_request_seconds_bucket"].items():
        at = dict(labels)
        buckets[at["source"]].append((float(at["le"]), value))
    for source, pairs in buckets.items():
        values = [value for _, value in sorted(pairs)]
        assert values == sorted(values)
        assert values[-1] == found.total("request_seconds_count", source=source)
        is_some = found.total("request_seconds_sum", source=source) > 0
        assert is_some == (values[-1] > 0)


def test_metrics_of_two_workers_add_up(
    pseudonymous: Tallygate, provider: SimulatedProvider
) -> None:
    before = metrics(pseudonymous)
    calls_before = provider.calls
    repeated = [question()] * 30
    fresh = [question("claude-of-tomorrow") for _ in range(30)]
    refused = [question("nobody") for _ in range(20)]
    failing = [question("keyless") for _ in range(20)]
    answers = ask_all(pseudonymous, [*repeated, *fresh, *refused, *failing], {"x-api-key": KEY})
    answers += ask_all(pseudonymous, repeated, {"x-api-key": "sk-wrong"})
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200] * 60 + [404] * 20 + [502] * 20 + [401] * 30
    workers = {answer.headers["request-id"][:20] for answer in answers}
    assert len(workers) == 2

    # Whichever worker is asked for them, the numbers are those of both.
    for after in [metrics(pseudonymous) for _ in range(10)]:

        def gained(name: str, after: Metrics = after, **labels: str) -> float:
            return after.total(name, **labels) - before.total(name, **labels)

        assert gained("requests_total") == 130
        assert gained("requests_total", status="200") == gained("counts_total") == 60
        assert gained("requests_total", status="404") == 20
        assert gained("requests_total", model="claude") == 30
        assert gained("requests_total", model="anthropic/*") == 30
        assert gained("requests_total", model="keyless", status="502") == 20
        assert gained("errors_total") == 70
        assert gained("errors_total", type="authentication_error") == 30
        assert gained("counts_total", model="anthropic/*", source="live") == 30
        calls = provider.calls - calls_before
        assert gained("upstream_calls_total", provider="anthropic") == calls
        assert gained("counts_total", source="live") == calls
        check_sums(after)


def test_label_values_come_from_the_configuration_alone(
    pseudonymous: Tallygate, provider: SimulatedProvider
) -> None:
    before = metrics(pseudonymous)
    names = [f"claude-{n}" for n in range(20)] + [f"nobody{n}" for n in range(20)]
    ask_all(pseudonymous, [question(name) for name in names], {"x-api-key": KEY})
    native = f"{pseudonymous.url}/anthropic/v1/messages/count_tokens"
    for name in names[:5]:
        httpx.post(native, json=question(name), headers={"x-api-key": KEY}).raise_for_status()
    after = metrics(pseudonymous)
    assert after.series() == before.series()
    aliases = {"claude", "keyless", "anthropic/*", "estimated", "other"}
    assert after.values("model") == aliases
    assert after.values("provider") == {"anthropic", "estimate", "other"}
    name = "requests_total"
    assert after.total(name, model="other") - before.total(name, model="other") == 20
    assert after.total(name) - before.total(name) == 45
    check_sums(after)
    assert provider.calls == 25


def test_metrics_need_a_key_from_elsewhere(pseudonymous: Tallygate) -> None:
    url, elsewhere = f"{pseudonymous.url}/metrics", {"x-forwarded-for": "10.0.0.7"}
    assert httpx.get(url, headers=elsewhere).status_code == 401
    assert httpx.get(url, headers={**elsewhere, "x-api-key": TEAM_KEY}).status_code == 200


def hang_up(server: Tallygate, body: Body, provider: SimulatedProvider) -> None:
    """Ask, wait until the provider has been asked, and leave."""
    content = json.dumps(body).encode()
    calls = provider.calls
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(
            b"POST /v1/messages/count_tokens HTTP/1.1\r\nhost: a\r\nx-request-id: left\r\n"
            b"content-type: application/json\r\nx-api-key: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (KEY.encode(), len(content), content)
        )
        wait_until(lambda: provider.calls > calls)


def test_a_client_that_hangs_up_is_told_of(server: Tallygate, provider: SimulatedProvider) -> None:
    before = metrics(server)
    body = question()
    provider.behave(delay_s=1, times=1)
    hang_up(server, body, provider)

    def written() -> list[Record]:
        return [line for line in lines(server) if line.get("client_request_id") == "left"]

    (record,) = wait_until(written)
    assert record["status"] == 499
    assert record["upstream_calls"] == 1
    assert record["upstream_model"] == "claude-up"
    assert record["duration_ms"] > 0
    after = metrics(server)
    name = "upstream_calls_total"
    assert after.total(name) - before.total(name) == 1
    # Its count was not in vain: who asks next gets it.
    answer = server.count(body)
    assert answer.headers["x-tallygate-source"] in {"coalesced", "cache"}
    assert provider.calls == 1


def test_requests_add_up_although_clients_hang_up(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    before = metrics(server)
    provider.behave(delay_s=0.5, times=1)
    hang_up(server, question(), provider)

    def one_more() -> Metrics | None:
        now = metrics(server)
        gained = now.total("requests_total") - before.total("requests_total")
        return now if gained == 1 else None

    check_sums(wait_until(one_more))


@pytest.fixture
def unread(config: dict[str, Any], tmp_path: Path) -> Iterator[tuple[Tallygate, int]]:
    """A server whose standard output is a pipe, and the end of it that nobody reads."""
    os.mkfifo(tmp_path / "stdout")
    reader = os.open(tmp_path / "stdout", os.O_RDONLY | os.O_NONBLOCK)
    with Tallygate(tmp_path, config) as server:
        yield server, reader
    os.close(reader)


def test_a_reader_of_the_lines_that_has_stopped_stops_no_count(
    unread: tuple[Tallygate, int],
) -> None:
    server, reader = unread
    body, asked = question(), 500
    sent = json.dumps(body).encode()
    headers = {"x-api-key": KEY, "user-agent": "x" * 250}
    with httpx.Client(base_url=server.url, headers=headers) as client:

        def ask() -> None:
            answer = client.post("/v1/messages/count_tokens", content=sent)
            assert answer.json() == {"input_tokens": count_tokens(body)}

        for _ in range(asked):
            ask()
        # The pipe is full by now, and the writer waits: counting goes on.
        time.sleep(0.5)
        ask()
        text = os.read(reader, 65_536)
        assert len(text) > 30_000  # pages that hold less than they could
        assert text.count(b"\n") < asked
        for _ in range(20):
            ask()
        # Read again, the rest comes, and no line is lost or torn.
        deadline = time.monotonic() + START_S
        while text.count(b"\n") < asked + 21 and time.monotonic() < deadline:
            time.sleep(0.05)
            text += drain(reader)
    assert [json.loads(line)["status"] for line in text.splitlines()] == [200] * (asked + 21)


def test_a_server_whose_lines_nobody_reads_can_be_stopped(
    unread: tuple[Tallygate, int],
) -> None:
    server, _ = unread
    body = json.dumps(question()).encode()
    with httpx.Client(headers={"x-api-key": KEY, "user-agent": "x" * 250}) as client:
        for _ in range(300):
            client.post(f"{server.url}/v1/messages/count_tokens", content=body)
    stopped: list[int] = []
    stopper = threading.Thread(target=lambda: stopped.append(server.stop()))
    stopper.start()
    stopper.join(START_S)
    assert stopped == [0]


def drain(reader: int) -> bytes:
    text = b""
    while True:
        try:
            piece = os.read(reader, 65_536)
        except BlockingIOError:
            return text
        if not piece:
            return text
        text += piece
