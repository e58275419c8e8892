"""Every provider's own clients against its simulation: counts, and the errors that they raise."""

import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from botocore.exceptions import ClientError
from google.genai import errors

from bench.provider import Request, SimulatedProvider, bedrock, count_tokens, google, vertex_claude
from bench.provider import anthropic as simulated_anthropic
from tests.official import MODELS, OFFICIAL, Ask, invoke_body

WIRE = Path(__file__).parents[1] / "fixtures" / "wire"
INPUTS = sorted(path.stem for path in (WIRE / "inputs").glob("*.json"))
SIMPLE = "01_simple"
# google-genai counts contents alone on AI Studio, and says so before it asks anybody.
REFUSED_BY_THE_CLIENT = {
    ("google-genai on AI Studio", name): "system_instruction parameter is only supported"
    for name in ("02_system", "04_tools", "08_unicode")
}


@pytest.fixture(scope="module", params=OFFICIAL)
def client(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def ask(client: str, provider: SimulatedProvider) -> Iterator[Ask]:
    with OFFICIAL[client].open(provider.url) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _from_the_start(provider: SimulatedProvider) -> None:
    provider.clear()


def question(client: str, name: str = SIMPLE, **fields: Any) -> dict[str, Any]:
    asked: dict[str, Any] = json.loads((WIRE / "inputs" / f"{name}.json").read_bytes())
    return asked | {"model": MODELS[OFFICIAL[client].provider]} | fields


def counted(client: str, asked: dict[str, Any], sent: Request) -> int:
    """Say what the simulation counts: Claude's question itself, Gemini's in Google's form."""
    if OFFICIAL[client].provider in {"gemini", "vertex_gemini"}:
        return count_tokens(json.loads(sent.body))
    return count_tokens(asked)


@pytest.mark.parametrize("name", INPUTS)
def test_the_client_reads_the_count(
    client: str, ask: Ask, provider: SimulatedProvider, name: str
) -> None:
    asked = question(client, name)
    if said := REFUSED_BY_THE_CLIENT.get((client, name)):
        with pytest.raises(ValueError, match=said):
            ask(asked)
        assert provider.calls == 0
        return
    tokens = ask(asked)
    (sent,) = provider.requests
    assert tokens == counted(client, asked, sent) > 0
    if OFFICIAL[client].provider == "bedrock":
        inner = json.loads(sent.body)["input"]["invokeModel"]["body"]
        assert json.loads(b64decode(inner)) == invoke_body(asked)


# What the clients make of a status: Anthropic's have a class for each, botocore a code from the
# service's model, google-genai one class for either side's fault and Google's code within.
ANTHROPICS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
}
BOTOCORES = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}
GOOGLES = {
    400: "ClientError INVALID_ARGUMENT",
    401: "ClientError UNAUTHENTICATED",
    403: "ClientError PERMISSION_DENIED",
    404: "ClientError NOT_FOUND",
    429: "ClientError RESOURCE_EXHAUSTED",
    500: "ServerError INTERNAL",
    503: "ServerError UNAVAILABLE",
    504: "ServerError DEADLINE_EXCEEDED",
}
RAISED = {
    "anthropic": ANTHROPICS | {413: "ContentTooLargeError", 529: "OverloadedError"},
    "vertex_claude": ANTHROPICS,
    "bedrock_mantle": ANTHROPICS | {529: "OverloadedError"},
    "bedrock": BOTOCORES,
    "gemini": GOOGLES,
    "vertex_gemini": GOOGLES,
}


def raised(ask: Ask, asked: dict[str, Any]) -> str:
    """Name the client's own error, and where the class does not say which, its code."""
    with pytest.raises((anthropic.APIStatusError, ClientError, errors.APIError)) as caught:
        ask(asked)
    error = caught.value
    if isinstance(error, ClientError):
        known = type(error) is not ClientError
        code: str = error.response["Error"]["Code"]
        assert not known or type(error).__name__ == code
        return code
    if isinstance(error, errors.APIError):
        return f"{type(error).__name__} {error.status}"
    return type(error).__name__


def test_the_client_raises_its_own_errors(
    client: str, ask: Ask, provider: SimulatedProvider
) -> None:
    expected = RAISED[OFFICIAL[client].provider]
    found = {}
    for status in expected:
        provider.behave(status=status, times=1)
        found[status] = raised(ask, question(client))
    assert found == expected
    assert provider.calls == len(expected)


REFUSED = {
    "anthropic": (simulated_anthropic.REFUSED_KEY, "AuthenticationError"),
    "vertex_claude": (vertex_claude.REFUSED_TOKEN, "AuthenticationError"),
    "bedrock_mantle": (bedrock.REFUSED_KEY, "PermissionDeniedError"),
    "bedrock": (bedrock.REFUSED_KEY, "UnrecognizedClientException"),
    "gemini": (google.REFUSED_KEY, "ClientError INVALID_ARGUMENT"),
    "vertex_gemini": (google.REFUSED_TOKEN, "ClientError UNAUTHENTICATED"),
}


@pytest.mark.parametrize("name", [name for name in OFFICIAL if "by key" not in name])
def test_a_refused_credential_raises_the_clients_own_error(
    provider: SimulatedProvider, name: str
) -> None:
    credential, error = REFUSED[OFFICIAL[name].provider]
    with OFFICIAL[name].open(provider.url, credential) as ask:
        assert raised(ask, question(name)) == error


def test_an_unknown_model_raises_the_clients_own_error(client: str, ask: Ask) -> None:
    family = OFFICIAL[client].provider
    model = "anthropic.claude-nonexistent" if "bedrock" in family else "claude-nonexistent"
    # The runtime calls it a bad request; so much stands in its public reports.
    expected = RAISED[family][400 if family == "bedrock" else 404]
    assert raised(ask, question(client, model=model)) == expected


RECORDED = sorted(path.stem for path in (WIRE / "errors").glob("*.json"))


def test_recorded_errors_raise_what_is_recorded(
    client: str, ask: Ask, provider: SimulatedProvider
) -> None:
    tried = [name for name in RECORDED if name.split("__")[0] == OFFICIAL[client].provider]
    assert tried
    for name in tried:
        recorded = json.loads((WIRE / "errors" / f"{name}.json").read_bytes())
        provider.behave(
            status=recorded["status"], body=recorded["body"], headers=recorded["headers"], times=1
        )
        code = recorded.get("sdk_code") or recorded["sdk_raises"].split(".")[-1]
        status = recorded.get("sdk_status")
        assert raised(ask, question(client)) == (f"{code} {status}" if status else code), name
