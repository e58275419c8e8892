"""The simulated Google: takes what its SDKs send, and refuses what the real one would."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from bench.provider import Request
from bench.provider.google import REFUSED_KEY, REFUSED_TOKEN, GoogleWire

CAPTURES = Path(__file__).parents[1] / "fixtures" / "wire" / "captures"
STUDIO = "/v1beta/models/gemini-2.5-flash:countTokens"
VERTEX = "/v1/projects/p1/locations/global/publishers/google/models/gemini-2.5-flash:countTokens"
KEY = {"x-goog-api-key": "AIza-test"}
TOKEN = {"authorization": "Bearer ya29.test"}
HELLO = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}


def answer(path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
    raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
    request = Request("POST", path, raw_headers, msgspec.json.encode(body), time=0.0)
    wire = GoogleWire()
    assert wire.claims(request)
    assert wire.model(request) == "gemini-2.5-flash"
    reply = wire.answer(request)
    return reply.status, msgspec.json.decode(reply.body)


def load(path: Path) -> dict[str, Any]:
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])


def sent_captures() -> list[dict[str, Any]]:
    captures = [load(path) for path in sorted(CAPTURES.glob("g[ea]*.json"))]
    # The older schema form is no part of the simulated protocol.
    return [one for one in captures if "body" in one and "parameters_schema" not in one["name"]]


@pytest.mark.parametrize("capture", sent_captures(), ids=lambda one: one["name"])
def test_what_the_sdks_send_is_counted(capture: dict[str, Any]) -> None:
    path = urlsplit(capture["production_url"]).path
    status, body = answer(path, capture["body"], KEY | TOKEN)
    assert status == 200
    assert body["totalTokens"] > 0


def test_whatever_changes_in_a_question_shows_in_its_number() -> None:
    longer = {"contents": [*HELLO["contents"], {"role": "model", "parts": [{"text": "Hi"}]}]}
    inner = {"model": "models/gemini-2.5-flash", **HELLO}
    with_system = inner | {"systemInstruction": {"parts": [{"text": "s"}]}}
    bodies = [HELLO, longer, *({"generateContentRequest": it} for it in (inner, with_system))]
    first, second, same, third = (answer(STUDIO, body, KEY)[1]["totalTokens"] for body in bodies)
    assert first == same
    assert len({first, second, third}) == 3


def with_part(**part: Any) -> dict[str, Any]:
    return {"contents": [{"parts": [part]}]}


@pytest.mark.parametrize(
    ("path", "body", "fragment"),
    [
        (STUDIO, {}, "requires generate_content_request or contents"),
        (STUDIO, {"contents": []}, "requires generate_content_request or contents"),
        (STUDIO, HELLO | {"systemInstruction": {}}, 'Unknown name "systemInstruction"'),
        (STUDIO, HELLO | {"generateContentRequest": HELLO}, "mutually exclusive"),
        (STUDIO, {"generateContentRequest": HELLO}, "must name the same model"),
        (VERTEX, {"generateContentRequest": HELLO}, 'Unknown name "generateContentRequest"'),
        (VERTEX, HELLO | {"toolConfig": {}}, 'Unknown name "toolConfig"'),
        (VERTEX, {"contents": [{"parts": []}]}, "must not be empty"),
        (VERTEX, {"contents": [{"role": "assistant", "parts": [{"text": "a"}]}]}, "valid role"),
        (VERTEX, with_part(text="a", inlineData={"data": "AAAA"}), "must have one initialized"),
        (VERTEX, with_part(inlineData={"data": "A"}), "Base64"),
        (VERTEX, with_part(functionCall={"name": "1", "args": {}}), "Invalid function name"),
        (VERTEX, with_part(functionCall={"name": "f", "args": []}), "Invalid value"),
        (VERTEX, {"contents": "a"}, "Invalid value"),
        (VERTEX, [], "Invalid value"),
    ],
)
def test_what_the_protocol_does_not_have_is_a_400(path: str, body: Any, fragment: str) -> None:
    status, reply = answer(path, body, KEY | TOKEN)
    assert (status, reply["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert fragment in reply["error"]["message"]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (STUDIO, {}, 403),
        (STUDIO, TOKEN, 403),
        (STUDIO, {"x-goog-api-key": REFUSED_KEY}, 400),
        (VERTEX, {}, 401),
        (VERTEX, KEY, 401),
        (VERTEX, {"authorization": f"Bearer {REFUSED_TOKEN}"}, 401),
        (VERTEX.replace("p1", "-"), TOKEN, 403),
    ],
)
def test_a_wrong_credential_is_refused(path: str, headers: dict[str, str], status: int) -> None:
    given, reply = answer(path, HELLO, headers)
    assert given == status
    reasons = [detail.get("reason") for detail in reply["error"].get("details", [])]
    assert reasons == (["API_KEY_INVALID"] if status == 400 else [])


def test_its_usual_errors_are_googles() -> None:
    reply = msgspec.json.decode(GoogleWire().error(429).body)
    assert reply["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert reply["error"]["details"][0]["retryDelay"] == "1s"
