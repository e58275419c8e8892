"""Who may come in: LiteLLM's header order; the first one present decides."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth import KEY_HEADERS, Authenticator, upstream_credential
from app.config_sections import CallerKey
from app.errors import ProxyError

KEY = "sk-team-0123456789"


def key(name: str, value: str) -> CallerKey:
    return CallerKey(name, hashlib.sha256(value.encode()).digest())


@pytest.fixture(scope="module")
def known() -> Authenticator:
    return Authenticator((key("team", KEY), key("other", "sk-other")))


@pytest.mark.parametrize("header", [name for name in KEY_HEADERS if name != "authorization"])
@pytest.mark.parametrize("value", [KEY, f"Bearer {KEY}", f" {KEY} "])
def test_every_key_header_of_litellm_is_taken(
    known: Authenticator, header: str, value: str
) -> None:
    assert known.caller({header: value}).name == "team"


@pytest.mark.parametrize("value", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER  {KEY}"])
def test_authorization_needs_a_scheme(known: Authenticator, value: str) -> None:
    assert known.caller({"authorization": value}).name == "team"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": KEY},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": f"Digest {KEY}"},
        {"x-api-key": ""},
        {"x-api-key": KEY.upper()},
        {"x-api-key": KEY[:-1]},
        {"x-api-key": KEY + "0"},
        {"x-api-key": "\udcff"},
    ],
)
def test_a1_anything_else_is_401(known: Authenticator, headers: dict[str, str]) -> None:
    with pytest.raises(ProxyError) as caught:
        known.caller(headers)
    assert (caught.value.status, caught.value.type) == (401, "authentication_error")


@pytest.mark.parametrize("earlier", range(len(KEY_HEADERS) - 1))
def test_a1_the_first_header_present_decides(known: Authenticator, earlier: int) -> None:
    first, second = KEY_HEADERS[earlier], KEY_HEADERS[earlier + 1]
    both = {first: "Bearer sk-other", second: f"Bearer {KEY}"}
    assert known.caller(both).name == "other"
    with pytest.raises(ProxyError):
        known.caller({**both, first: "Bearer sk-wrong"})


@given(st.text(max_size=40))
def test_no_other_text_opens(text: str) -> None:
    one = Authenticator((key("team", KEY),))
    with pytest.raises(ProxyError):
        one.caller({"x-api-key": text})


def test_a2_keys_are_compared_as_digests_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a wrong key has in common with the right one makes no difference that can be timed."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    one = Authenticator((key("team", KEY),))
    assert all(len(known) == 32 for known in one._callers)
    assert one.caller({"x-api-key": KEY}).name == "team"
    for wrong in (KEY[:-1], KEY + "0", ""):
        with pytest.raises(ProxyError):
            one.caller({"x-api-key": wrong})
    presented = [hashlib.sha256(text.encode()).digest() for text in (KEY, KEY[:-1], KEY + "0", "")]
    assert [digest for _, digest in compared] == presented


def test_without_any_key_everybody_is_anonymous() -> None:
    assert Authenticator(()).caller({"x-api-key": "whatever"}).name == "anonymous"


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({"x-litellm-api-key": KEY, "authorization": "Bearer sk-ant-oat-1"}, "sk-ant-oat-1"),
        ({"x-litellm-api-key": KEY, "x-api-key": "sk-ant-api-1"}, "sk-ant-api-1"),
        ({"authorization": f"Bearer {KEY}", "x-api-key": "sk-ant-api-1"}, "sk-ant-api-1"),
        ({"authorization": "Bearer sk-ant-oat-1"}, None),
        ({"x-litellm-api-key": KEY, "x-api-key": "something"}, None),
    ],
)
def test_the_caller_s_own_credential_is_what_is_left_over(
    headers: dict[str, str], own: str | None
) -> None:
    found = upstream_credential(headers, has_keys=True)
    assert (found.reveal() if found else None) == own
    assert found is None or repr(found) == "***"
