"""The real providers, asked with real keys: off unless asked for with ``pytest -m live``.

A test whose variables are not set is skipped and names them. Counting is free at every provider.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import anthropic
import pytest

from tests.server import Tallygate

pytestmark = pytest.mark.live

GOOGLE = ("GOOGLE_APPLICATION_CREDENTIALS", "VERTEXAI_PROJECT")
AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
# What a provider's credential, region and address, and the way out to it, may be set by.
PASSED_ON = ("ANTHROPIC_", "AWS_", "BEDROCK_", "GEMINI_", "GOOGLE_", "VERTEX", "SSL_CERT_")
BUNDLE = "REQUESTS_CA_BUNDLE"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
MESSAGES: Any = [{"role": "user", "content": "Hello, how are you?"}]


class Live(NamedTuple):
    """An entry of the configuration, and the variables without which nobody answers."""

    model: str
    variables: tuple[str, ...]


PROVIDERS = {
    "anthropic": Live("anthropic/claude-sonnet-4-5-20250929", ("ANTHROPIC_API_KEY",)),
    "vertex_claude": Live("vertex_ai/claude-sonnet-4-5@20250929", GOOGLE),
    "bedrock": Live("bedrock/anthropic.claude-sonnet-4-20250514-v1:0", AWS),
    "bedrock_mantle": Live("bedrock_mantle/anthropic.claude-opus-4-7", AWS),
    "gemini": Live("gemini/gemini-2.5-flash", ("GEMINI_API_KEY",)),
    "vertex_gemini": Live("vertex_ai/gemini-2.5-flash", GOOGLE),
}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_real_provider_counts_and_is_remembered(
    provider: str, start: Callable[..., Tallygate]
) -> None:
    model, variables = PROVIDERS[provider]
    if missing := [name for name in variables if not os.environ.get(name)]:
        pytest.skip(f"not set: {', '.join(missing)}")
    params = {"model": os.environ.get(f"TALLYGATE_LIVE_{provider.upper()}", model)}
    server = start(
        {"model_list": [{"model_name": "asked", "litellm_params": params}]},
        environ={
            name: value
            for name, value in os.environ.items()
            if name.startswith(PASSED_ON) or name == BUNDLE or name.upper() in PROXIES
        },
    )
    first, second = (server.count({"model": "asked", "messages": MESSAGES}) for _ in range(2))
    assert first.status_code == 200, first.text
    tokens = first.json()["input_tokens"]
    assert 1 <= tokens <= 100
    assert first.headers["x-tallygate-source"] == "live"
    # Mantle answers for the runtime where that does not count the model.
    answered = first.headers["x-tallygate-provider"]
    assert answered == provider or (provider, answered) == ("bedrock", "bedrock_mantle")
    assert second.json() == first.json()
    assert second.headers["x-tallygate-source"] == "cache"
    if provider == "anthropic":
        with anthropic.Anthropic() as client:
            asked_directly = client.messages.count_tokens(
                model=params["model"].removeprefix("anthropic/"), messages=MESSAGES
            )
        assert tokens == asked_directly.input_tokens
