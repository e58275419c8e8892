"""A webhook: every count reaches the operator's receiver, signed, once, or is told of as lost."""

import base64
import hmac
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import MODEL, anthropic, model_list, question
from tests.e2e.receiver import Receiver, until
from tests.server import KEY, Tallygate, free_port

Start = Callable[..., Tallygate]
SECRET = "whsec_dGhpcnR5LXR3by1ieXRlcy1vZi1hLXNlY3JldC0uLi4="
NODE = Path(__file__).parents[1] / "clients" / "node"
VERIFY = """
import { Webhook } from "standardwebhooks";
const { headers, body } = JSON.parse(process.argv[1]);
new Webhook(process.argv[2]).verify(body, headers);
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as one:
        yield one


def data(receiver: Receiver) -> list[dict[str, Any]]:
    return [json.loads(body)["data"] for _, body in tuple(receiver.posts)]


def events(receiver: Receiver) -> list[dict[str, Any]]:
    return [event for one in data(receiver) for event in one["events"]]


def config(provider: SimulatedProvider, url: str, **more: Any) -> dict[str, Any]:
    webhook = {"url": url, "secret": SECRET, "flush_s": 0.1, **more}
    return {
        "model_list": model_list(**{MODEL: anthropic("claude-one", provider.url)}),
        "telemetry": {"webhook": webhook, "hit_records_per_s": 1_000_000},
    }


def records(server: Tallygate, result: str) -> float:
    return server.metrics()[f'tallygate_records_total{{sink="webhook",result="{result}"}}']


def signature(headers: dict[str, str], body: bytes) -> str:
    """What the standard says it has to be."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"


def test_every_count_is_posted_once(
    start: Start, provider: SimulatedProvider, receiver: Receiver
) -> None:
    """Hits of the lane, misses and refusals."""
    server = start(config(provider, f"{receiver.url}/hook?token=not-for-logs", batch_events=7))
    body = question()
    with httpx.Client(base_url=server.url, headers={"x-api-key": KEY}) as client:
        answers = [client.post("/v1/messages/count_tokens", json=body) for _ in range(20)]
        answers.append(client.post("/v1/messages/count_tokens", json=question(model="nobody")))
    until(lambda: len(events(receiver)) >= len(answers))
    told = {event["request_id"]: event for event in events(receiver)}
    assert len(events(receiver)) == len(told) == len(answers)
    for answer in answers:
        event = told[answer.headers["request-id"]]
        assert event["status"] == answer.status_code
        assert event.get("input_tokens") == answer.json().get("input_tokens")
    assert max(len(one["events"]) for one in data(receiver)) <= 7
    until(lambda: records(server, "sent") == len(answers))
    assert records(server, "dropped") == 0
    assert server.metrics()["tallygate_lane_hits_total"] > 1


def test_a_receiver_is_sent_what_it_wants_besides(
    start: Start, provider: SimulatedProvider, receiver: Receiver
) -> None:
    """Not in place of what belongs to the message."""
    headers = {"Authorization": "Bearer the-receivers-key", "Webhook-Id": "not this"}
    server = start(config(provider, receiver.url, headers=headers))
    server.count(question())
    until(lambda: bool(receiver.posts))
    sent, _ = receiver.posts[0]
    assert sent["authorization"] == "Bearer the-receivers-key"
    assert sent["webhook-id"].startswith("msg_")
    assert "the-receivers-key" not in server.err.read_text() + server.out.read_text()


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not on PATH")
def test_the_standard_s_own_library_takes_the_signature(
    start: Start, provider: SimulatedProvider, receiver: Receiver
) -> None:
    server = start(config(provider, receiver.url))
    server.count(question())
    until(lambda: bool(receiver.posts))
    headers, body = receiver.posts[0]
    for posted, is_right in ((body, True), (body + b" ", False)):
        sent = json.dumps({"headers": headers, "body": posted.decode()})
        command = ["node", "--input-type=module", "-e", VERIFY, sent, SECRET]
        done = subprocess.run(command, cwd=NODE, check=False, capture_output=True)
        assert (done.returncode == 0) is is_right, done.stderr


def test_a_batch_that_is_refused_for_now_comes_again_under_its_id(
    start: Start, provider: SimulatedProvider, receiver: Receiver
) -> None:
    receiver.statuses = [503]
    server = start(config(provider, f"{receiver.url}/hook?token=not-for-logs"))
    answer = server.count(question())
    until(lambda: len(receiver.posts) == 2)
    (first, body), (second, again) = receiver.posts
    assert first["webhook-id"] == second["webhook-id"]
    assert body == again
    for headers in (first, second):  # each at its own time
        assert headers["webhook-signature"] == signature(headers, body)
    assert answer.headers["request-id"].encode() in body
    until(lambda: records(server, "sent") == 1)


def test_what_the_receiver_does_not_take_is_told_with_what_it_takes(
    start: Start, provider: SimulatedProvider, receiver: Receiver
) -> None:
    receiver.statuses = [400]
    server = start(config(provider, f"{receiver.url}/hook?token=not-for-logs"))
    server.count(question())
    until(lambda: records(server, "dropped") == 1)
    told = server.err.read_text()
    assert "telemetry.webhook: events were not taken: status 400" in told
    assert "not-for-logs" not in told + server.out.read_text()
    answer = server.count(question())
    until(lambda: len(receiver.posts) == 2)
    assert data(receiver)[1]["dropped"] == 1
    assert [one["request_id"] for one in data(receiver)[1]["events"]] == [
        answer.headers["request-id"]
    ]


def test_nobody_at_the_address_costs_no_count(start: Start, provider: SimulatedProvider) -> None:
    server = start(config(provider, f"http://127.0.0.1:{free_port()}/hook"))
    assert [server.count(question()).status_code for _ in range(5)] == [200] * 5
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 10


def test_what_is_left_is_posted_when_the_server_ends(
    start: Start, provider: SimulatedProvider, receiver: Receiver
) -> None:
    server = start(config(provider, f"{receiver.url}/hook?token=not-for-logs", flush_s=60))
    answer = server.count(question())
    assert receiver.posts == []
    server.stop()
    assert [one["request_id"] for one in events(receiver)] == [answer.headers["request-id"]]


def test_a_login_in_the_address_is_a_header(
    start: Start, provider: SimulatedProvider, receiver: Receiver
) -> None:
    url = receiver.url.replace("http://", "http://team:p%40ss@") + "/hook?at=1"
    server = start(config(provider, url))
    server.count(question())
    until(lambda: bool(events(receiver)))
    (headers, _), *_ = receiver.posts
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"team:p@ss"
    assert receiver.paths[0] == "/hook?at=1"
    assert "p%40ss" not in headers["host"]
