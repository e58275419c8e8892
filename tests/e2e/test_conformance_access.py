"""Where the server listens and whom it lets in: rows 14 to 18."""

import sys
from collections.abc import Callable

import httpx
import pytest

from tests.e2e.exchange import (
    COUNT,
    MODEL,
    counted,
    model_list,
    question,
    refused,
)
from tests.e2e.launch import Launch
from tests.server import KEY, Tallygate, free_port

ESTIMATE = model_list(**{MODEL: {"model": "estimate/claude"}})


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate]) -> Tallygate:
    """A server that needs no provider."""
    return start({"model_list": ESTIMATE})


def test_row_14_default_port(launch: Callable[..., Launch]) -> None:
    """Nothing said, it listens on port 4000 of this machine only."""
    launch({"model_list": ESTIMATE}).says("Tallygate on http://127.0.0.1:4000\n")


def test_row_14_configured_port(launch: Callable[..., Launch]) -> None:
    """The configuration may say another port."""
    port = free_port()
    launch({"server": {"port": port}, "model_list": ESTIMATE}).answers(port)


def test_row_14_serve_command(launch: Callable[..., Launch]) -> None:
    """``python -m app serve`` starts the same server."""
    port = free_port()
    config = {"server": {"port": port}, "model_list": ESTIMATE}
    launch(config, command=(sys.executable, "-m", "app", "serve")).answers(port)


def test_row_15_authorization_bearer(stranger: httpx.Client) -> None:
    """``Authorization: Bearer KEY`` is accepted."""
    headers = {"authorization": f"Bearer {KEY}"}
    assert counted(stranger.post(COUNT, json=question(), headers=headers))


def test_row_16_x_api_key(stranger: httpx.Client) -> None:
    """``x-api-key: KEY`` is accepted."""
    assert counted(stranger.post(COUNT, json=question(), headers={"x-api-key": KEY}))


ORDER = (
    "x-litellm-api-key",
    "Authorization",
    "API-Key",
    "x-api-key",
    "x-goog-api-key",
    "Ocp-Apim-Subscription-Key",
)


def _credential(header: str, key: str) -> str:
    return f"Bearer {key}" if header == "Authorization" else key


@pytest.mark.parametrize("header", ORDER)
def test_row_17_headers_in_litellms_order(stranger: httpx.Client, header: str) -> None:
    """Each of LiteLLM's headers is accepted; of several, the first in its order decides."""
    right = {header: _credential(header, KEY)}
    wrong = {header: _credential(header, "sk-wrong")}
    later = ORDER[ORDER.index(header) + 1 :]
    assert counted(stranger.post(COUNT, json=question(), headers=right))
    for other in later:
        headers = right | {other: _credential(other, "sk-wrong")}
        assert counted(stranger.post(COUNT, json=question(), headers=headers))
        headers = wrong | {other: _credential(other, KEY)}
        response = stranger.post(COUNT, json=question(), headers=headers)
        refused(response, 401, "authentication_error")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"bearer {KEY}"},
        {"Authorization": f"BEARER  {KEY}"},
        {"Authorization": f"Basic {KEY}"},
        {"x-litellm-api-key": f"Bearer {KEY}"},
    ],
    ids=["lower", "upper", "basic", "prefixed"],
)
def test_row_17_spellings_of_the_scheme(stranger: httpx.Client, headers: dict[str, str]) -> None:
    """The spellings of a credential that LiteLLM takes are taken."""
    assert counted(stranger.post(COUNT, json=question(), headers=headers))


@pytest.mark.parametrize("scheme", ["", "Token ", "Digest "])
def test_row_17_no_scheme_is_no_key(stranger: httpx.Client, scheme: str) -> None:
    """``Authorization`` without a scheme that LiteLLM knows is malformed."""
    headers = {"Authorization": f"{scheme}{KEY}"}
    response = stranger.post(COUNT, json=question(), headers=headers)
    refused(response, 401, "authentication_error")


def test_row_18_documented_key_on_loopback(start: Callable[..., Tallygate]) -> None:
    """With the page's own ``sk-1234`` the quick start works on this machine, with a warning."""
    quick_start = start(
        {"model_list": ESTIMATE, "general_settings": {"master_key": "sk-1234"}},
    )
    assert counted(quick_start.count(question(), authorization="Bearer sk-1234"))
    refused(quick_start.count(question()), 401, "authentication_error")
    (warning,) = [one for one in quick_start.err.read_text().splitlines() if "WARNING" in one]
    assert "well-known sk-1234" in warning


def test_row_18_documented_key_elsewhere(launch: Callable[..., Launch]) -> None:
    """Any other address needs a stronger key, or the operator's word."""
    config = {
        "server": {"host": "0.0.0.0"},
        "model_list": ESTIMATE,
        "general_settings": {"master_key": "sk-1234"},
    }
    assert "server.allow_weak_key" in launch(config).refusal()
