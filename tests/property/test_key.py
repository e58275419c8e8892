"""A wrong merge is a wrong answer: what changes the question changes the key, and nothing else."""

import json
import typing
from typing import Any

import msgspec
import pytest
from anthropic.types import MessageCountTokensParams
from anthropic.types.beta import MessageCountTokensParams as BetaCountTokensParams
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from cache.key import KEY_VERSION, NOT_COUNTED, canonical, content_key, derive_secret
from cache.strict_json import MAX_DEPTH, InvalidJSONError, compact, members

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
scalars = scalars.filter(lambda value: value not in (float("inf"), float("-inf")))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
bodies = st.dictionaries(st.text(min_size=1, max_size=12), values, min_size=1, max_size=6)


def form(raw: bytes) -> bytes:
    return canonical(members(compact(raw)))


@given(bodies, st.randoms(use_true_random=False), st.sampled_from([None, 1, 3]))
def test_white_space_and_top_level_order_do_not_matter(
    body: dict[str, Any], random: Any, indent: int | None
) -> None:
    shuffled = list(body.items())
    random.shuffle(shuffled)
    plain = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    spaced = json.dumps(dict(shuffled), ensure_ascii=False, indent=indent).encode()
    assert form(plain) == form(spaced)


@given(bodies)
def test_the_canonical_form_means_what_the_body_meant(body: dict[str, Any]) -> None:
    kept = {k: v for k, v in body.items() if k not in NOT_COUNTED and k != "model"}
    assert json.loads(form(json.dumps(body).encode())) == kept


@given(bodies, bodies)
def test_different_bodies_never_share_a_canonical_form(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    def kept(body: dict[str, Any]) -> str:
        left = {k: v for k, v in body.items() if k not in NOT_COUNTED and k != "model"}
        return repr(sorted(left.items()))

    same = form(json.dumps(one).encode()) == form(json.dumps(other).encode())
    assert same == (kept(one) == kept(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"tools":[{"a":1,"b":2}]}', b'{"tools":[{"b":2,"a":1}]}'),
        (b'{"n":1.0}', b'{"n":1}'),
        (b'{"n":123456789012345678901}', b'{"n":123456789012345678902}'),
        (b'{"x":{"a":1,"a":2}}', b'{"x":{"a":2}}'),
        (b'{"t":"a  b"}', b'{"t":"a b"}'),
        (b'{"t":"A"}', b'{"t":"\\u0041"}'),
    ],
)
def test_c12_below_the_top_level_everything_stays_as_received(one: bytes, other: bytes) -> None:
    assert form(one) == one
    assert form(other) == other


def test_a_name_spelled_with_escapes_is_the_same_name() -> None:
    assert form(b'{"\\u0061":1,"b":2}') == b'{"a":1,"b":2}'


@pytest.mark.parametrize(
    "raw", [b'{"a":1,"a":1}', b'{"a":1,"\\u0061":2}', b'{"a":1,"b":2,"a":3}', b'{"":1,"":1}']
)
def test_a_name_written_twice_at_the_top_level_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidJSONError, match="written twice"):
        members(compact(raw))


@given(st.integers(1, 400), st.sampled_from([b"[", b'{"a":']))
def test_nesting_is_judged_the_same_whatever_the_stack(depth: int, opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    raw = opening * depth + b"0" + closing * depth
    if depth > MAX_DEPTH:
        with pytest.raises(InvalidJSONError, match="nested"):
            compact(raw)
    else:
        assert compact(raw) == raw


@given(st.text(alphabet='[]{}"\\ a', max_size=400))
def test_brackets_inside_strings_are_not_nesting(text: str) -> None:
    raw = json.dumps({"t": text * 5}).encode()
    assert compact(raw) == raw.replace(b'": "', b'":"', 1)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_an_object_or_an_error(raw: bytes) -> None:
    try:
        found = members(compact(raw))
    except InvalidJSONError:
        return
    assert json.loads(raw) == {k: msgspec.json.decode(v) for k, v in found.items()}


def declared(params: Any) -> set[str]:
    return set(typing.get_type_hints(params))


HEADER_PARAMS = {"betas", "user_profile_id", "workspace_id"}
FIELDS = (declared(MessageCountTokensParams) | declared(BetaCountTokensParams)) - HEADER_PARAMS


def test_the_sdk_still_declares_what_this_file_relies_on() -> None:
    assert {"messages", "model", "system", "tools", "thinking", "tool_choice"} <= FIELDS


@pytest.mark.parametrize("field", sorted(FIELDS - {"model"}))
def test_c11_every_field_of_the_newest_sdk_is_part_of_the_form(field: str) -> None:
    base = {"messages": [{"role": "user", "content": "hi"}]}
    assert field not in NOT_COUNTED
    changed = form(json.dumps({**base, field: ["changed"]}).encode())
    assert changed != form(json.dumps(base).encode())


@pytest.mark.parametrize("field", sorted(NOT_COUNTED))
def test_fields_that_a_count_does_not_take_are_left_out(field: str) -> None:
    assert form(json.dumps({"messages": [], field: "x"}).encode()) == b'{"messages":[]}'


parts = st.lists(st.binary(max_size=8), max_size=6)


@given(parts, parts)
def test_c11_different_parts_never_share_a_key(one: list[bytes], other: list[bytes]) -> None:
    assert (content_key(b"s", one) == content_key(b"s", other)) == (one == other)


@given(parts)
def test_c14_a_key_is_hmac_sha_256(some: list[bytes]) -> None:
    code = HMAC(b"secret", SHA256())
    code.update(KEY_VERSION.to_bytes(4))
    for part in some:
        code.update(len(part).to_bytes(8) + part)
    assert content_key(b"secret", some) == code.finalize()


@given(st.binary(min_size=1, max_size=64), st.binary(min_size=1, max_size=64))
def test_another_secret_gives_other_keys(one: bytes, other: bytes) -> None:
    # HMAC pads a short key with zeros: such keys are the same key.
    same = one.rstrip(b"\0") == other.rstrip(b"\0")
    assert (content_key(one, [b"x"]) == content_key(other, [b"x"])) == same


def test_the_secret_of_each_purpose_is_its_own() -> None:
    secrets = {derive_secret(source, purpose) for source in (None, "a", "b") for purpose in "xy"}
    assert len(secrets) == 6


def test_derivation_is_hkdf_as_rfc_5869_has_it() -> None:
    expected = HKDF(SHA256(), 32, b"tallygate", b"cache-key").derive(b"secret")
    assert derive_secret("secret", "cache-key") == expected
