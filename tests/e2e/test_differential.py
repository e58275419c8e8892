"""The same question through Tallygate and through the provider's own client: the same request.

Both ask one recording provider; method, target, every header and the body are compared. What may
differ is listed here, nothing else may:

- ``CARRIERS``: headers that name the client and its run, or belong to the connection.
- ``accept``: AWS's and Google's clients do not care what they get; Tallygate asks for JSON.
- An Anthropic key: Anthropic's client sends it as Bearer, Tallygate as the documented x-api-key.
- A signature: its time, and which headers it covers beyond host and date; who signs for which
  region and service is compared. ``x-amz-date`` is that time.
- Betas: their order.
- JSON: white space and the order of members; Bedrock's inner body is compared decoded.
- google-genai spells two fields in snake_case and base64 in the URL-safe alphabet.
"""

import json
import re
from base64 import b64decode, b64encode, urlsafe_b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import pytest

from bench.provider import Request, SimulatedProvider
from tests.e2e.exchange import model_list
from tests.e2e.stubs import Login
from tests.official import (
    ANTHROPIC_KEY,
    AWS_KEY_ID,
    AWS_REGION,
    AWS_SECRET,
    BEDROCK_KEY,
    GEMINI_KEY,
    LOCATION,
    MODELS,
    OFFICIAL,
    PROJECT,
    Ask,
)
from tests.server import KEY, Tallygate

WIRE = Path(__file__).parents[1] / "fixtures" / "wire"
INPUTS = sorted(path.stem for path in (WIRE / "inputs").glob("*.json"))
STUDIO, VERTEX = "google-genai on AI Studio", "google-genai on Vertex AI"
GRANTED = "token-1"
"""The login's first token: Google's clients are given the one that the proxy has fetched."""

# Each client beside the entry of the configuration that must do the same.
CLIENTS = {
    "Anthropic": {"model": f"anthropic/{MODELS['anthropic']}", "api_key": ANTHROPIC_KEY},
    "AnthropicVertex": {"model": f"vertex_ai/{MODELS['vertex_claude']}"},
    "boto3": {"model": f"bedrock/{MODELS['bedrock']}"},
    "AnthropicBedrockMantle": {"model": f"bedrock_mantle/{MODELS['bedrock_mantle']}"},
    "AnthropicBedrockMantle by key": {
        "model": f"bedrock_mantle/{MODELS['bedrock_mantle']}",
        "api_key": BEDROCK_KEY,
    },
    STUDIO: {"model": f"gemini/{MODELS['gemini']}", "api_key": GEMINI_KEY},
    VERTEX: {"model": f"vertex_ai/{MODELS['vertex_gemini']}"},
}
# What google-genai refuses to count on AI Studio, and what is compared instead: a recorded request
# of Google's generated client, or what google-genai sends to Vertex AI.
NOT_TAKEN = {
    "02_system": "gapic_generativelanguage__generate_content_request__02_system",
    "04_tools": "gapic_generativelanguage__generate_content_request__04_tools",
    "08_unicode": VERTEX,
}
TAKEN = [(c, i) for c in CLIENTS for i in INPUTS if c != STUDIO or i not in NOT_TAKEN]

CARRIERS = re.compile(
    "host|connection|content-length|accept-encoding|user-agent"
    "|x-stainless-.*|amz-sdk-.*|x-goog-api-client"
)


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider, login: Login) -> Tallygate:
    google = {
        "vertex_project": PROJECT,
        "vertex_location": LOCATION,
        "vertex_credentials": msgspec.json.encode(login.service_account()).decode(),
    }
    signed = {
        "aws_region_name": AWS_REGION,
        "aws_access_key_id": AWS_KEY_ID,
        "aws_secret_access_key": AWS_SECRET,
    }
    shared = {"AnthropicVertex": google, VERTEX: google, "boto3": signed}
    shared["AnthropicBedrockMantle"] = signed
    shared["AnthropicBedrockMantle by key"] = {"aws_region_name": AWS_REGION}
    here = {"api_base": provider.url}
    entries = {name: here | given | shared.get(name, {}) for name, given in CLIENTS.items()}
    return start({"model_list": model_list(**entries)})


@pytest.fixture(scope="module")
def official(provider: SimulatedProvider) -> Iterator[Callable[[str], Ask]]:
    """Each official client, opened when it is first asked for, at the provider itself."""
    opened: dict[str, tuple[Any, Ask]] = {}

    def client(name: str) -> Ask:
        if name not in opened:
            token = [GRANTED] if name in {"AnthropicVertex", VERTEX} else []
            context = OFFICIAL[name].open(provider.url, *token)
            opened[name] = context, context.__enter__()
        return opened[name][1]

    yield client
    for context, _ in opened.values():
        context.__exit__(None, None, None)


@pytest.fixture(scope="module")
def tallygate(server: Tallygate) -> Iterator[Ask]:
    """Ask through the proxy, as the newest client of Anthropic does; nothing is remembered.

    Two entries that differ in their credential alone share an answer, and each must ask here.
    """
    anew = {"cache-control": "no-cache"}
    with anthropic.Anthropic(
        base_url=server.url, api_key=KEY, max_retries=0, default_headers=anew
    ) as client:

        def ask(question: dict[str, Any]) -> int:
            resource: Any = client.beta if "betas" in question else client
            tokens: int = resource.messages.count_tokens(**question).input_tokens
            return tokens

        yield ask


def question(name: str, model: str) -> dict[str, Any]:
    asked: dict[str, Any] = json.loads((WIRE / "inputs" / f"{name}.json").read_bytes())
    return asked | {"model": model}


def sent(provider: SimulatedProvider, ask: Ask, asked: dict[str, Any]) -> tuple[Request, int]:
    """Ask once, and return the one request that has arrived, and the answer."""
    provider.clear()
    tokens = ask(asked)
    (request,) = provider.requests
    return request, tokens


def compared(request: Request) -> dict[str, Any]:
    """Show everything of a request but what may differ."""
    headers: dict[str, Any] = {
        n: v for n, v in request.headers.items() if not CARRIERS.fullmatch(n)
    }
    headers.pop("accept", None)
    if "anthropic-beta" in headers:
        headers["anthropic-beta"] = sorted(headers["anthropic-beta"].split(","))
    if "x-amz-date" in headers:
        del headers["x-amz-date"]
        headers["authorization"] = signer(headers["authorization"])
    return {
        "method": request.method,
        "target": request.target,
        "headers": headers,
        "body": body_of(request),
    }


def signer(authorization: str) -> str:
    """Reduce a signature to who signs for which region and service; host and date are covered."""
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=(\w+)/\d{8}/([\w/-]+), SignedHeaders=(.+), Signature=\w{64}",
        authorization,
    )
    assert found
    assert {"host", "x-amz-date"} <= set(found[3].split(";"))
    return f"{found[1]} {found[2]}"


def body_of(request: Request) -> Any:
    body = json.loads(request.body)
    if request.path.endswith("/count-tokens"):
        inner = body["input"]["invokeModel"]
        inner["body"] = json.loads(b64decode(inner["body"], validate=True))
    return body


def as_documented(client: str, shown: dict[str, Any]) -> dict[str, Any]:
    """Rewrite what this client may write otherwise than Tallygate."""
    if client == "Anthropic":
        shown["headers"]["x-api-key"] = (
            shown["headers"].pop("authorization").removeprefix("Bearer ")
        )
    if client in {STUDIO, VERTEX}:
        shown["body"] = spelled(shown["body"])
    return shown


def spelled(value: Any) -> Any:
    """Spell as Google's documentation what google-genai writes in proto-JSON's other spelling."""
    if isinstance(value, list):
        return [spelled(item) for item in value]
    if not isinstance(value, dict):
        return value
    names = {"mime_type": "mimeType", "parameters_json_schema": "parametersJsonSchema"}
    result = {names.get(name, name): spelled(item) for name, item in value.items()}
    if "mimeType" in result:
        result["data"] = b64encode(urlsafe_b64decode(result["data"])).decode()
    return result


@pytest.mark.parametrize(("client", "name"), TAKEN)
def test_the_provider_gets_what_its_own_client_sends(
    client: str,
    name: str,
    provider: SimulatedProvider,
    official: Callable[[str], Ask],
    tallygate: Ask,
) -> None:
    ours, answered = sent(provider, tallygate, question(name, client))
    theirs, counted = sent(provider, official(client), question(name, MODELS[family(client)]))
    assert compared(ours) == as_documented(client, compared(theirs))
    assert ours.headers["accept"] == "application/json"
    if client not in {STUDIO, VERTEX}:  # where a spelling differs the simulation counts it too
        assert answered == counted


BETA = {
    "betas": ["context-management-2025-06-27", "compact-2026-01-12"],
    "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
    "user_profile_id": "profile",
    "workspace_id": "workspace",
}


@pytest.mark.parametrize("client", ["Anthropic", "AnthropicBedrockMantle by key"])
def test_a_beta_call_is_its_own_clients_too(
    client: str, provider: SimulatedProvider, official: Callable[[str], Ask], tallygate: Ask
) -> None:
    """Elsewhere betas are not sent as they came; the providers' documentation here says why."""
    ours, answered = sent(provider, tallygate, question("01_simple", client) | BETA)
    asked = question("01_simple", MODELS[family(client)]) | BETA
    theirs, counted = sent(provider, official(client), asked)
    assert compared(ours) == as_documented(client, compared(theirs))
    assert "anthropic-beta" in ours.headers
    assert answered == counted


def family(client: str) -> str:
    return OFFICIAL[client].provider


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_what_google_genai_refuses_on_ai_studio_is_sent_as_google_documents_it(
    name: str, provider: SimulatedProvider, official: Callable[[str], Ask], tallygate: Ask
) -> None:
    asked = question(name, MODELS["gemini"])
    with pytest.raises(ValueError, match=r"only supported in Gemini Enterprise Agent Platform"):
        official(STUDIO)(asked)
    ours, _ = sent(provider, tallygate, asked | {"model": STUDIO})
    assert ours.target == f"/v1beta/models/{MODELS['gemini']}:countTokens"
    if NOT_TAKEN[name] == VERTEX:
        theirs, _ = sent(provider, official(VERTEX), asked)
        inner = {"model": f"models/{MODELS['gemini']}"} | spelled(body_of(theirs))
        assert body_of(ours) == {"generateContentRequest": inner}
        return
    capture = json.loads((WIRE / "captures" / f"{NOT_TAKEN[name]}.json").read_bytes())
    # The generated client writes enums as numbers; 1 is AUTO.
    recorded = json.loads(json.dumps(capture["body"]).replace('"mode": 1', '"mode": "AUTO"'))
    assert body_of(ours) == recorded
