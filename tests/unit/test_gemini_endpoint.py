"""Whose model it is, where it is asked, and with which key."""

from typing import Any

import msgspec
import pytest

from adapters.base import (
    CannotExpressError,
    CountRequest,
    Endpoint,
    GoogleCredential,
    HeaderCredential,
    Params,
    Secret,
)
from adapters.registry import ADAPTERS, provider_of

QUESTION = CountRequest(b'{"messages":[{"role":"user","content":"a"}]}', "2023-06-01")


def endpoint(adapter: str, environ: dict[str, str] | None = None, **params: Any) -> Endpoint:
    params.setdefault("model", "gemini-2.5-flash")
    return ADAPTERS[adapter].endpoint(Params(**params), environ or {})


def url(adapter: str, **params: Any) -> str:
    return ADAPTERS[adapter].request(QUESTION, endpoint(adapter, **params)).url


@pytest.mark.parametrize(
    ("prefix", "model", "provider"),
    [
        ("gemini", "gemini-2.5-flash", "gemini"),
        ("gemini", "*", "gemini"),
        ("vertex_ai", "gemini-2.5-flash", "vertex_gemini"),
        ("vertex_ai", "gemini-*", "vertex_gemini"),
        ("vertex_ai", "*", "vertex_gemini"),
        ("vertex_ai", "meta/llama-4", "vertex_gemini"),
    ],
)
def test_a_models_prefix_names_its_provider(prefix: str, model: str, provider: str) -> None:
    assert provider_of(prefix, model) == provider


def test_claude_on_vertex_is_not_geminis() -> None:
    assert not ADAPTERS["vertex_gemini"].claims("vertex_ai", "claude-sonnet-4-5")
    assert not ADAPTERS["vertex_gemini"].claims("vertex_ai", "claude-*")
    assert not ADAPTERS["vertex_gemini"].claims("gemini", "gemini-2.5-flash")


@pytest.mark.parametrize(
    ("given", "environ", "sent"),
    [
        ({"api_key": Secret("own")}, {"GEMINI_API_KEY": "a"}, "own"),
        ({}, {"GEMINI_API_KEY": "a", "GOOGLE_API_KEY": "b"}, "a"),
        ({}, {"GOOGLE_API_KEY": "b"}, "b"),
        ({}, {"GEMINI_API_KEY": "", "GOOGLE_API_KEY": "b"}, "b"),
    ],
)
def test_the_key_is_the_entrys_else_the_environments(
    given: dict[str, Any], environ: dict[str, str], sent: str
) -> None:
    found = endpoint("gemini", environ, **given)
    assert isinstance(found.credential, HeaderCredential)
    assert (found.credential.header, found.credential.prefix) == ("x-goog-api-key", "")
    assert found.credential.secret.reveal() == sent
    assert found.missing == ()


def test_a_missing_key_is_named_by_its_variable() -> None:
    assert endpoint("gemini").missing == ("GEMINI_API_KEY",)
    # A key that the entry reads from elsewhere is never quietly another.
    elsewhere = endpoint("gemini", {"GEMINI_API_KEY": "a"}, unset={"api_key": "TEAM_KEY"})
    assert (elsewhere.credential, elsewhere.missing) == (None, ("TEAM_KEY",))


@pytest.mark.parametrize("name", ["gemini", "vertex_gemini"])
def test_a_base_whose_variable_is_not_set_is_missing_and_not_replaced(name: str) -> None:
    found = endpoint(name, api_key=Secret("k"), vertex_project="p1", unset={"api_base": "MY_BASE"})
    assert found.missing == ("MY_BASE",)


def test_a_name_behind_a_wildcard_that_would_change_the_path_is_the_callers_fault() -> None:
    found = endpoint("vertex_gemini", vertex_project="p1")
    for name in (".", ".."):
        with pytest.raises(CannotExpressError, match="model: is not a model's id"):
            ADAPTERS["vertex_gemini"].request(
                QUESTION, msgspec.structs.replace(found, upstream_model=name)
            )
    found = msgspec.structs.replace(found, upstream_model="../a?b#c")
    sent = ADAPTERS["vertex_gemini"].request(QUESTION, found)
    assert sent.url.endswith("/publishers/google/models/..%2Fa%3Fb%23c:countTokens")


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1beta", "/v1beta/"])
def test_another_base_is_trimmed_and_part_of_the_key(tail: str) -> None:
    own = "https://generativelanguage.googleapis.com"
    assert endpoint("gemini", api_base=own + tail).scope == ()
    other = endpoint("gemini", api_base=f"http://127.0.0.1:9/deep{tail}")
    assert other.scope == ("http://127.0.0.1:9/deep",)
    expected = "http://127.0.0.1:9/deep/v1beta/models/gemini-2.5-flash:countTokens"
    assert ADAPTERS["gemini"].request(QUESTION, other).url == expected


@pytest.mark.parametrize(
    ("location", "host"),
    [
        (None, "us-central1-aiplatform.googleapis.com"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_a_location_has_its_host_and_its_own_counts(location: str | None, host: str) -> None:
    found = endpoint("vertex_gemini", vertex_project="p1", vertex_location=location)
    assert found.base_url == f"https://{host}"
    assert found.scope == (location or "us-central1",)
    assert found.credential == GoogleCredential(None)


def test_counting_may_have_a_location_of_its_own() -> None:
    found = endpoint(
        "vertex_gemini", vertex_location="us-east5", vertex_count_tokens_location="global"
    )
    assert found.location == "global"


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": ""},
        {"model": "../secrets"},
        {"model": "a b"},
        {"model": "a?b"},
        {"vertex_location": "evil.example/"},
        {"vertex_location": "US"},
        {"vertex_project": "p/../q"},
    ],
)
def test_what_cannot_stand_in_an_address_stops_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^(model|vertex_location|vertex_project)"):
        endpoint("vertex_gemini", {}, **({"vertex_project": "p1"} | wrong))


@pytest.mark.parametrize("adapter", ["gemini", "vertex_gemini"])
def test_a_name_from_a_wildcard_cannot_leave_its_segment(adapter: str) -> None:
    assert url(adapter, model="a/../b", vertex_project="p1").endswith(
        "/models/a%2F..%2Fb:countTokens"
    )
