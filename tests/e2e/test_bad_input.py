"""Bodies that are wrong: refused with a clear 400, repeated nowhere, and never a 5xx."""

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.provider import SimulatedProvider
from tests.e2e.exchange import (
    COUNT,
    JSON,
    MODEL,
    Connection,
    anthropic,
    asked,
    counted,
    event,
    model_list,
    refused,
    request,
)
from tests.e2e.offence import CANARY, MAX_BODY_BYTES, Offender
from tests.fuzz.mutants import HEADERS, NAUGHTY, spoilt
from tests.server import Tallygate

VALID = msgspec.json.encode(
    {"model": MODEL, "messages": [{"role": "user", "content": CANARY}], "new": CANARY}
)


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Iterator[Tallygate]:
    """A talkative server that, when all is over, has said nothing of what it was sent."""
    running = start(
        {
            "server": {"max_body_bytes": MAX_BODY_BYTES},
            "model_list": model_list(**{MODEL: anthropic("claude-x", provider.url)}),
            "telemetry": {"log_level": "debug"},
        }
    )
    yield running
    running.stop()
    assert CANARY not in running.out.read_text() + running.err.read_text()


def _with(member: bytes, *, within: bytes = b"") -> bytes:
    """Write a valid body with one more member, at the top or in the message."""
    message = b'{"role":"user","content":"%b"%b}' % (CANARY.encode(), within)
    return b'{"model":"%b","messages":[%b]%b}' % (MODEL.encode(), message, member)


def _as(messages: bytes) -> bytes:
    return b'{"model":"%b","messages":%b}' % (MODEL.encode(), messages)


MALFORMED = {
    "cut": VALID[:-1],
    "cut-in-a-string": VALID[:-8],
    "trailing-brace": VALID + b"}",
    "trailing-text": VALID + b" " + CANARY.encode(),
    "two-objects": VALID + VALID,
    "trailing-nul": VALID + b"\0",
    "trailing-comma": VALID[:-1] + b",}",
    "comment": b"/* kumquat */" + VALID,
    "single-quotes": VALID.replace(b'"', b"'"),
    "bare-name": VALID.replace(b'"model"', b"model"),
    "no-colon": VALID.replace(b'":', b'" ', 1),
    "control-character": VALID.replace(b"kumquat", b"kum\nquat"),
    "nul-in-a-string": VALID.replace(b"kumquat", b"kumquat\0"),
    "bad-escape": VALID.replace(b"kumquat", b"kumquat\\x"),
    "short-escape": VALID.replace(b"kumquat", b"kumquat\\u12"),
    "upper-true": _with(b',"n":True'),
    "undefined": _with(b',"n":undefined'),
    "form": b"model=claude&messages=kumquat",
    "xml": b"<model>kumquat</model>",
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_k3_malformed_json(offender: Offender, kind: str) -> None:
    offender.refused(request(MALFORMED[kind]), 400)


NO_NUMBERS = {
    "nan": _with(b',"n":NaN'),
    "infinity": _with(b',"n":Infinity'),
    "minus-infinity": _with(b',"n":[-Infinity]'),
    "leading-zero": _with(b',"n":012'),
    "leading-plus": _with(b',"n":+1'),
    "no-fraction": _with(b',"n":1.'),
    "no-integer": _with(b',"n":.5'),
    "no-exponent": _with(b',"n":1e'),
    "hexadecimal": _with(b',"n":0x1F'),
    "bare-minus": _with(b',"n":-'),
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_k5_no_numbers(offender: Offender, kind: str) -> None:
    offender.refused(request(NO_NUMBERS[kind]), 400)


ENCODINGS = {
    "invalid": VALID.replace(b"kumquat", b"kumquat\xff"),
    "invalid-in-an-unknown-field": _with(b',"n":"kumquat\xfe"'),
    "invalid-in-a-name": _with(b',"\xff":1'),
    "cut-sequence": VALID.replace(b"kumquat", b"kumquat\xe2\x82"),
    "overlong": VALID.replace(b"kumquat", b"kumquat\xc0\xaf"),
    "surrogate-bytes": VALID.replace(b"kumquat", b"kumquat\xed\xa0\x80"),
    "beyond-unicode": VALID.replace(b"kumquat", b"kumquat\xf4\x90\x80\x80"),
    "latin-1": VALID.replace(b"kumquat", "kumquat é".encode("latin-1")),
    "bom": b"\xef\xbb\xbf" + VALID,
    "utf-16": VALID.decode().encode("utf-16"),
    "utf-16-le": VALID.decode().encode("utf-16-le"),
    "utf-32": VALID.decode().encode("utf-32"),
    "lone-surrogate": VALID.replace(b"kumquat", b"kumquat\\ud83d"),
    "lone-low-surrogate": VALID.replace(b"kumquat", b"kumquat\\ude00"),
    "reversed-surrogates": VALID.replace(b"kumquat", b"kumquat\\ude00\\ud83d"),
    "lone-surrogate-in-an-unknown-field": _with(b',"n":["kumquat \\ud83d"]'),
    "lone-surrogate-in-a-name": _with(b',"\\ud83d":1'),
    "lone-surrogate-in-a-nested-name": _with(b',"n":{"\\ud83d":1}'),
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_k7_other_encoding(offender: Offender, kind: str) -> None:
    offender.refused(request(ENCODINGS[kind]), 400)


def test_k7_surrogate_pair_is_a_character(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    body = _as(b'[{"role":"user","content":"\\ud83d\\ude00 \\u0000"}]')
    counted(client.post(COUNT, content=body, headers=JSON))
    assert asked(provider)["messages"][0]["content"] == "\U0001f600 \0"


@pytest.mark.parametrize("depth", [201, 1_000, 10_000, 5_000_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_k4_nested_too_deep(offender: Offender, depth: int, opening: bytes, closing: bytes) -> None:
    levels = min(depth - 1, (MAX_BODY_BYTES - 1000) // len(opening + closing))
    body = _with(b',"n":' + opening * levels + b'"kumquat"' + closing * levels)
    assert "200" in offender.refused(request(body), 400)


@pytest.mark.parametrize("depth", [201, 10_000, 5_000_000])
def test_k4_opened_and_never_closed(offender: Offender, depth: int) -> None:
    offender.refused(request(b"[" * depth), 400)
    offender.refused(request(_with(b',"n":' + b"[" * (depth - 1))), 400)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_k4_nested_as_deep_as_allowed(
    client: httpx.Client, provider: SimulatedProvider, opening: bytes, closing: bytes
) -> None:
    deep = opening * 199 + b"1" + closing * 199
    counted(client.post(COUNT, content=_with(b',"n":' + deep), headers=JSON))
    assert deep in provider.requests[0].body


def test_brackets_in_strings_are_text(client: httpx.Client) -> None:
    text = b'"%b\\"%b\\\\"' % (b"[{" * 5000, b"]" * 5000)
    body = _as(b'[{"role":"user","content":%b}]' % text)
    assert counted(client.post(COUNT, content=body, headers=JSON))


@pytest.mark.parametrize(
    "number", [b"123456789012345678901234567890", b"-0", b"1.0", b"1E5", b"-1.50e+02", b"0.1"]
)
def test_k5_numbers_stay_as_spelled(
    client: httpx.Client, provider: SimulatedProvider, number: bytes
) -> None:
    tool = b'{"name":"t","input_schema":{"type":"object","default":%b}}' % number
    counted(client.post(COUNT, content=_with(b',"tools":[%b]' % tool), headers=JSON))
    assert tool in provider.requests[0].body


@pytest.mark.parametrize(
    "number", [b"9" * 5000, b"-" + b"9" * 5000, b"1e400", b"-1e400", b"1e-400"]
)
@pytest.mark.parametrize("place", ["new", "tools"])
def test_k5_numbers_beyond_all_types(
    client: httpx.Client, provider: SimulatedProvider, number: bytes, place: str
) -> None:
    """They are the provider's to judge, or refused; they are never our failure."""
    provider.behave(body={"input_tokens": 5})
    tool = b'[{"name":"t","input_schema":{"default":%b}}]' % number
    member = b',"new":%b' % number if place == "new" else b',"tools":%b' % tool
    response = client.post(COUNT, content=_with(member), headers=JSON)
    if response.status_code == 200:
        assert number in provider.requests[0].body
    else:
        assert response.status_code == 400
        assert provider.calls == 0


TWICE = {
    "model": VALID[:-1] + b',"model":"other"}',
    "messages": VALID[:-1] + b',"messages":[]}',
    "the-same": VALID[:-1] + b"," + VALID[1:],
    "escaped": VALID[:-1] + b',"\\u006dodel":"other"}',
    "escaped-first": b'{"mod\\u0065l":"other",' + VALID[1:],
    "unknown": _with(b',"n":1,"n":1'),
    "unknown-escaped": _with(b',"n/":1,"n\\/":1'),
    "dropped": _with(b',"user":"kumquat","user":"kumquat"'),
    "empty-name": _with(b',"":1,"":2'),
}


@pytest.mark.parametrize("kind", TWICE)
def test_k6_field_written_twice(offender: Offender, kind: str) -> None:
    assert "twice" in offender.refused(request(TWICE[kind]), 400)


@pytest.mark.parametrize("place", ["top", "nested"])
def test_c15_a_great_many_names(
    client: httpx.Client, provider: SimulatedProvider, place: str
) -> None:
    """A hundred thousand fields are an ordinary question; the next one does not wait for it."""
    names = b",".join(b'"%d":0' % number for number in range(100_000))
    body = _with(b"," + names if place == "top" else b',"new":{%b}' % names)
    counted(client.post(COUNT, content=body, headers=JSON))
    assert len(provider.requests[0].body) > len(names)


def test_k6_nested_names_written_twice_stay(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    """What stands below the top level is the provider's to judge, in the bytes that were sent."""
    nested = b'{"name":"t","input_schema":{"a":1,"b":2,"a":3}}'
    counted(client.post(COUNT, content=_with(b',"tools":[%b]' % nested), headers=JSON))
    assert nested in provider.requests[0].body


@pytest.mark.parametrize(
    "body", [b"", b" ", b"\r\n\t ", b"[]", b"[{}]", b"7", b'"kumquat"', b"null", b"true", b"{}"]
)
def test_no_object(offender: Offender, body: bytes) -> None:
    offender.refused(request(body), 400)


KINDS = {
    "null": b"null",
    "true": b"true",
    "number": b"7",
    "string": b'"kumquat"',
    "list": b'["kumquat"]',
    "object": b'{"kumquat":1}',
}
ACCEPTED = {"model": {"string"}, "messages": set(), "system": {"string", "null"}, "tools": {"null"}}


@pytest.mark.parametrize(
    ("field", "kind"), [(f, k) for f, fine in ACCEPTED.items() for k in KINDS if k not in fine]
)
def test_k16_wrong_type(offender: Offender, field: str, kind: str) -> None:
    """A field that every provider needs in one form is refused by its name."""
    members = {"model": b'"%b"' % MODEL.encode(), "messages": b'[{"role":"user","content":"a"}]'}
    members |= {field: KINDS[kind]}
    body = b"{" + b",".join(b'"%b":%b' % (n.encode(), v) for n, v in members.items()) + b"}"
    assert offender.refused(request(body), 400).startswith(field)


FORWARDED = (
    "tool_choice",
    "thinking",
    "output_config",
    "output_format",
    "cache_control",
    "speed",
    "compaction",
    "billing_policy",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", FORWARDED)
def test_wrong_type_of_what_goes_on(
    client: httpx.Client, provider: SimulatedProvider, field: str, kind: str
) -> None:
    """A field that the proxy does not read is judged by the provider, as it was sent."""
    provider.behave(status=400)
    body = _with(b',"%b":%b' % (field.encode(), KINDS[kind]))
    assert client.post(COUNT, content=body, headers=JSON).status_code == 400
    assert asked(provider)[field] == msgspec.json.decode(KINDS[kind])


DROPPED = ("max_tokens", "metadata", "stream", "stop_sequences", "user", "litellm_metadata")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", DROPPED)
def test_wrong_type_of_what_is_not_counted(
    client: httpx.Client, provider: SimulatedProvider, field: str, kind: str
) -> None:
    """A field of inference is no reason to refuse, whatever it holds."""
    value = KINDS[kind].replace(CANARY.encode(), b"u")
    body = _with(b',"%b":%b' % (field.encode(), value))
    response = client.post(COUNT, content=body, headers=JSON | {"cache-control": "no-cache"})
    assert counted(response)
    assert field not in asked(provider)


MESSAGES = {
    "empty": b"[]",
    "number": b"[7]",
    "null": b"[null]",
    "string": b'["kumquat"]',
    "list": b'[["kumquat"]]',
    "no-role": b'[{"content":"kumquat"}]',
    "no-content": b'[{"role":"user","kumquat":1}]',
    "role-number": b'[{"role":7,"content":"kumquat"}]',
    "content-null": b'[{"role":"user","content":null}]',
    "content-number": b'[{"role":"user","content":7}]',
    "content-object": b'[{"role":"user","content":{"type":"text","text":"kumquat"}}]',
    "block-string": b'[{"role":"user","content":["kumquat"]}]',
    "block-without-type": b'[{"role":"user","content":[{"text":"kumquat"}]}]',
    "block-type-null": b'[{"role":"user","content":[{"type":null,"text":"kumquat"}]}]',
    "second": b'[{"role":"user","content":"a"},{"role":"assistant","content":null}]',
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_k16_messages_of_no_shape(offender: Offender, kind: str) -> None:
    assert offender.refused(request(_as(MESSAGES[kind])), 400).startswith("messages")


def test_path_of_the_fault(offender: Offender) -> None:
    message = offender.refused(request(_as(MESSAGES["second"])), 400)
    assert message.startswith("messages.1.content")


def test_k16_unknown_role(client: httpx.Client, provider: SimulatedProvider) -> None:
    """Which roles there are is the provider's to say."""
    response = client.post(COUNT, content=_as(b'[{"role":"robot","content":"a"}]'), headers=JSON)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert provider.calls <= 1


def _model(name: str) -> bytes:
    return request(
        msgspec.json.encode({"model": name, "messages": [{"role": "user", "content": CANARY}]})
    )


def test_k16_empty_model(offender: Offender) -> None:
    assert offender.refused(_model(""), 400).startswith("model")


@pytest.mark.parametrize("length", [257, 4_000, 1_000_000])
def test_k16_endless_model(offender: Offender, length: int) -> None:
    assert len(offender.refused(_model("m" * length), 404, "not_found_error")) < 500


@pytest.mark.parametrize(
    "name",
    [
        "a\nb",
        "a\r\nx: y",
        "\x00",
        "\x1b[2J",
        "a\u202eb",
        "a\ud7ff",
        "é",
        " ",
        "%0d%0a",
        "../..",
        "*",
    ],
)
def test_k16_odd_model(offender: Offender, name: str) -> None:
    offender.refused(_model(name), 404, "not_found_error")


BASES = (
    VALID,
    _with(
        b',"tools":[{"name":"t","input_schema":{"b":[1,2.5,-3e1],"a":{"b":null}}}],"x":"\\u00e9"'
    ),
    b'{ "model" : "%b",\n\t"messages":[ {"role":"user","content":[{"type":"text",'
    b'"text":"\xc3\xa9"}]}],"system":"\\"\\\\\\n","x":[[[{}]],true,false,null]}' % MODEL.encode(),
)
PIECES = [
    *(bytes([one]) for one in b"\"{}[],:\\'0-.eE+ \n\t/\x00\x1f\x7f\xff\xc3\x80"),
    *(b"\\u", b"\\ud800", b"\\udc00", b"\\u0000", b"NaN", b"01", b"1e999", b"null", b"nul"),
    *(b"\xef\xbb\xbf", b"\xed\xa0\x80", b"9" * 40, b'"a":1,', b'"model":"a",', b"[" * 250),
]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete", "repeat", "cut"]),
        st.integers(0, 400),
        st.integers(1, 12),
        st.sampled_from(PIECES),
    ),
    min_size=1,
    max_size=3,
)


def _edited(body: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    for kind, place, length, piece in edits:
        at = place % (len(body) + 1)
        before, part, after = body[:at], body[at : at + length], body[at + length :]
        body = {
            "insert": before + piece + part + after,
            "replace": before + piece + after,
            "delete": before + after,
            "repeat": before + part + part + after,
            "cut": before + part,
        }[kind]
    return body


class _Pairs(tuple[Any, ...]):
    """An object's members in their order, none left out."""

    __slots__ = ()


def _read(body: bytes) -> _Pairs | None:
    """Read an object as strictly as JSON can be read, numbers as spelled; None if it is none."""

    def refuse(_constant: str) -> str:
        raise ValueError

    try:
        value = json.loads(
            body.decode(),
            object_pairs_hook=_Pairs,
            parse_int=str,
            parse_float=str,
            parse_constant=refuse,
        )
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    names = [name for name, _ in value] if isinstance(value, _Pairs) else ["", ""]
    return value if len(set(names)) == len(names) else None


@settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(base=st.sampled_from(BASES), edits=EDITS)
@example(base=BASES[1], edits=[])
@example(base=BASES[2], edits=[])
def test_mutated_bodies(
    client: httpx.Client, provider: SimulatedProvider, base: bytes, edits: Any
) -> None:
    """What is no JSON object goes nowhere; what is one goes on unchanged, if it goes on."""
    provider.clear()
    body = _edited(base, edits)
    meant = _read(body)
    response = client.post(COUNT, content=body, headers=JSON | {"cache-control": "no-cache"})
    assert response.status_code in {200, 400, 404}
    if response.status_code != 200:
        assert CANARY not in response.text
    if meant is None:
        assert response.status_code == 400
        assert provider.calls == 0
    if response.status_code == 200:
        assert meant is not None
        sent = _read(provider.requests[0].body)
        assert sent is not None
        assert _but_model(sent) == _but_model(meant)


PLACES = re.compile(
    r"the request body is not valid JSON: .*(\(byte \d+\)|written twice|nested deeper|truncated"
    r"|must be a JSON object)|the request body is empty",
    re.DOTALL,
)


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_k3_bad_json_in_breadth(server: Tallygate, provider: SimulatedProvider) -> None:
    """Thousands of bodies that are no JSON, over one connection: each is told where it is none."""
    chance = random.Random(0)
    refusals = 0
    with Connection(server.port) as connection:
        for _ in range(10_000):
            body = chance.choice(BASES)
            for _ in range(chance.randrange(1, 4)):
                body = spoilt(body, chance)
            if _read(body) is None:
                connection.send(request(body))
                response = connection.read()
                message = refused(response, 400, "invalid_request_error")
                assert PLACES.search(message), (message, body)
                assert CANARY not in response.text
                refusals += 1
    print(f"{refusals} bodies that are no JSON")
    assert refusals > 5_000
    assert provider.calls == 0


@pytest.mark.parametrize("text", NAUGHTY, ids=ascii)
def test_naughty_strings(server: Tallygate, provider: SimulatedProvider, text: str) -> None:
    """As text they go on unchanged; as a name they are refused; in the log they are data."""
    messages = [{"role": "user", "content": text + CANARY}]
    body: dict[str, Any] = {"model": MODEL, "messages": messages}
    body |= {"system": text, "metadata": {"user_id": f"{text}u"}, "new": {text: text}}
    answer = server.count(body, x_request_id="naughty", cache_control="no-cache")
    assert counted(answer)
    sent = asked(provider)
    assert (sent["messages"], sent["system"], sent["new"]) == (
        body["messages"],
        body["system"],
        body["new"],
    )
    assert event(server, answer.headers["request-id"])["status"] == 200
    named = server.count(body | {"model": f"{text}\0"})
    assert named.status_code == 404
    refused(named, 404, "not_found_error")
    assert event(server, named.headers["request-id"])["status"] == 404


@pytest.mark.parametrize("name", [name for name, _ in HEADERS])
@pytest.mark.parametrize("text", [one for one in NAUGHTY if one.isascii()], ids=ascii)
def test_naughty_headers(server: Tallygate, name: str, text: str) -> None:
    """A header is taken, or refused by a 4xx; no line end in it becomes a header of its own."""
    with Connection(server.port) as connection:
        connection.send(request(VALID, headers=JSON | {name: text}))
        response = connection.read()
    assert response.status_code in {200, 400, 413, 415}
    assert "x" not in response.headers


def _but_model(pairs: _Pairs) -> dict[str, Any]:
    return {name: value for name, value in pairs if name != "model"}
