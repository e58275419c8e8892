"""Anthropic on the wire: rows 62 and 63."""

from collections.abc import Callable

import httpx
import pytest

from bench.provider import SimulatedProvider, count_tokens
from tests.e2e.exchange import COUNT, NATIVE, anthropic, counted, model_list, question, refused
from tests.e2e.stubs import WayOut
from tests.server import Tallygate

OAUTH = "sk-ant-oat01-subscription"
BASES = {
    "plain": ("", ""),
    "slash": ("/", ""),
    "v1": ("/v1", ""),
    "v1-slash": ("/v1/", ""),
    "messages": ("/v1/messages", ""),
    "count": ("/v1/messages/count_tokens", ""),
    "prefix": ("/plan/anthropic", "/plan/anthropic"),
    "prefix-slash": ("/plan/anthropic/", "/plan/anthropic"),
    "prefix-messages": ("/plan/anthropic/v1/messages", "/plan/anthropic"),
}


@pytest.fixture(scope="module")
def server(
    start: Callable[..., Tallygate], provider: SimulatedProvider, way_out: WayOut
) -> Tallygate:
    """One deployment for each way to write a base, one with a token, one with the true address."""
    models = {
        name: anthropic("claude-x", provider.url + given) for name, (given, _) in BASES.items()
    }
    models["oauth"] = anthropic("claude-x", provider.url, api_key=OAUTH)
    models["home"] = {"model": "anthropic/claude-x", "api_key": "sk-ant-api03-upstream"}
    return start({"model_list": model_list(**models)}, environ={"HTTPS_PROXY": way_out.url})


@pytest.mark.parametrize("name", BASES)
def test_row_62_api_base(client: httpx.Client, provider: SimulatedProvider, name: str) -> None:
    """``api_base`` leads to ``{base}/v1/messages/count_tokens``, however much of it is given."""
    body = question(name)
    assert counted(client.post(COUNT, json=body)) == count_tokens(body)
    (sent,) = provider.requests
    assert sent.target == BASES[name][1] + COUNT


def test_row_62_home(client: httpx.Client, way_out: WayOut) -> None:
    """Without ``api_base`` it is Anthropic's own address, over TLS and the operator's proxy."""
    way_out.hosts.clear()
    refused(client.post(COUNT, json=question("home")), 502, "api_error")
    assert set(way_out.hosts) == {"api.anthropic.com:443"}


def test_row_63_oauth_token(client: httpx.Client, provider: SimulatedProvider) -> None:
    """A subscription's token goes out as Bearer with its beta, and never as ``x-api-key``."""
    counted(client.post(COUNT, json=question("oauth"), headers={"anthropic-beta": "a-1"}))
    (sent,) = provider.requests
    assert sent.headers["authorization"] == f"Bearer {OAUTH}"
    assert "x-api-key" not in sent.headers
    assert {"a-1", "oauth-2025-04-20"} <= set(sent.headers["anthropic-beta"].split(","))


def test_row_63_api_key(client: httpx.Client, provider: SimulatedProvider) -> None:
    """Any other key goes out as ``x-api-key``, without that beta; on either route."""
    counted(client.post(COUNT, json=question("plain")))
    counted(client.post(NATIVE, json=question("claude-x")))
    for sent in provider.requests:
        assert sent.headers["x-api-key"] == "sk-ant-api03-upstream"
        assert "authorization" not in sent.headers
        assert "anthropic-beta" not in sent.headers
