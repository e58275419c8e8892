"""The simulated Vertex AI, through the SDK's own client and through the proxy."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import pytest
from anthropic.lib.vertex import AnthropicVertex
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.provider import SimulatedProvider, count_tokens
from bench.provider.vertex_claude import REFUSED_TOKEN
from tests.e2e.exchange import FAILURES_STAND_ALONE
from tests.server import KEY, Tallygate
from tests.token_endpoint import TokenEndpoint

WIRE = Path(__file__).parents[1] / "fixtures" / "wire"
MODEL = "claude-sonnet-4-5@20250929"
CONTEXT_BETA = "context-management-2025-06-27"
EDITS: Any = {"edits": [{"type": "clear_tool_uses_20250919"}]}


def load(name: str) -> dict[str, Any]:
    body = msgspec.json.decode((WIRE / "inputs" / f"{name}.json").read_bytes(), type=dict[str, Any])
    return {**body, "model": MODEL}


SIMPLE = load("01_simple")


@pytest.fixture
def vertex(provider: SimulatedProvider) -> Iterator[Any]:
    """The client; its types disown what it inherits (anthropic 2.12)."""
    provider.clear()
    with AnthropicVertex(
        region="us-east5",
        project_id="my-project",
        access_token="ya29.token",
        base_url=f"{provider.url}/v1",
        max_retries=0,
    ) as client:
        yield client


@pytest.mark.parametrize("name", ["01_simple", "02_system", "04_tools", "05_image_base64"])
def test_the_sdk_counts(vertex: Any, name: str) -> None:
    question = load(name)
    assert vertex.messages.count_tokens(**question).input_tokens == count_tokens(question)


def test_the_documented_example_counts_14(vertex: Any) -> None:
    assert vertex.messages.count_tokens(**SIMPLE).input_tokens == 14


def test_the_sdks_beta_call_counts(vertex: Any) -> None:
    question = {**SIMPLE, "context_management": EDITS}
    reply = vertex.beta.messages.count_tokens(**question, betas=[CONTEXT_BETA])
    assert reply.input_tokens == count_tokens(question)
    assert reply.context_management is not None
    assert reply.context_management.original_input_tokens == reply.input_tokens


def test_a_beta_unknown_here_is_refused(vertex: Any) -> None:
    with pytest.raises(anthropic.BadRequestError, match="Unexpected value"):
        vertex.beta.messages.count_tokens(**SIMPLE, betas=["effort-2025-11-24"])


def test_a_moving_version_is_refused(vertex: Any) -> None:
    with pytest.raises(anthropic.BadRequestError, match="not supported for token counting"):
        vertex.messages.count_tokens(**{**SIMPLE, "model": "claude-sonnet-4-6@default"})


def test_a_bad_token_is_refused_in_googles_shape(vertex: Any) -> None:
    vertex.access_token = REFUSED_TOKEN
    with pytest.raises(anthropic.AuthenticationError) as raised:
        vertex.messages.count_tokens(**SIMPLE)
    assert raised.value.body["error"]["status"] == "UNAUTHENTICATED"  # type: ignore[index]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[TokenEndpoint]:
    with TokenEndpoint() as running:
        yield running


@pytest.fixture(scope="module")
def proxy(
    provider: SimulatedProvider, endpoint: TokenEndpoint, start: Callable[..., Tallygate]
) -> Tallygate:
    """A proxy whose service account brings the project, as one taken over from LiteLLM may."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "project-of-the-account",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "counter@project-of-the-account.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": endpoint.url,
    }
    shared = {"vertex_credentials": account, "api_base": provider.url}
    return start(
        {
            "limits": FAILURES_STAND_ALONE,
            "model_list": [
                {
                    "model_name": "claude-vertex",
                    "litellm_params": {
                        "model": "vertex_ai/claude-3-5-sonnet-v2@20241022",
                        "vertex_project": "my-project",
                        "vertex_location": "us-east5",
                        **shared,
                    },
                },
                {
                    "model_name": "claude-*",
                    "litellm_params": {"model": "vertex_ai/claude-*", **shared},
                },
            ],
        }
    )


@pytest.fixture
def client(proxy: Tallygate, provider: SimulatedProvider) -> Iterator[anthropic.Anthropic]:
    provider.clear()
    with anthropic.Anthropic(api_key=KEY, base_url=proxy.url, max_retries=0) as sdk:
        yield sdk


def test_the_proxy_counts_with_the_documented_model(
    client: anthropic.Anthropic, provider: SimulatedProvider
) -> None:
    question = {**load("04_tools"), "model": "claude-vertex"}
    betas = ["effort-2025-11-24", "web-search-2025-03-05"]
    for _ in range(2):
        raw = client.beta.messages.with_raw_response.count_tokens(**question, betas=betas)
        assert raw.parse().input_tokens == count_tokens(question)
    assert [request.path.split("/")[3:6] for request in provider.requests] == [
        ["my-project", "locations", "us-east5"]
    ]
    sent = msgspec.json.decode(provider.requests[0].body)
    assert sent["model"] == "claude-3-5-sonnet-v2@20241022"
    assert raw.headers["cache-status"].startswith("tallygate; hit")
    for beta in betas:
        assert beta in raw.headers["x-tallygate-dropped"]


def test_the_proxy_fills_in_the_credentials_project(
    client: anthropic.Anthropic, provider: SimulatedProvider
) -> None:
    question = {**SIMPLE, "model": "claude-sonnet-4-6@default"}
    assert client.messages.count_tokens(**question).input_tokens == 14
    assert "/projects/project-of-the-account/locations/global/" in provider.requests[0].path


def test_one_token_serves_all_models(
    client: anthropic.Anthropic, provider: SimulatedProvider, endpoint: TokenEndpoint
) -> None:
    for model in ("claude-opus-4-8", "claude-haiku-4-5", "claude-vertex"):
        client.messages.count_tokens(**{**SIMPLE, "model": model, "system": "Be brief."})
    assert provider.calls == 3
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    ("status", "answered"), [(401, 502), (403, 502), (429, 429), (500, 500), (503, 529), (504, 504)]
)
def test_the_proxy_turns_googles_errors_into_anthropics(
    client: anthropic.Anthropic, provider: SimulatedProvider, status: int, answered: int
) -> None:
    # A 401 is asked again once, with a renewed token.
    provider.behave(status=status, times=2 if status == 401 else 1)
    question = {**SIMPLE, "model": "claude-vertex", "system": f"status {status}"}
    with pytest.raises(anthropic.APIStatusError) as raised:
        client.messages.count_tokens(**question)
    assert raised.value.status_code == answered
    assert raised.value.body["type"] == "error"  # type: ignore[index]
