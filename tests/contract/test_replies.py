"""A 200 of any provider is a count only if it can be read in one way."""

from collections.abc import Callable

import pytest

from adapters.base import MalformedUpstreamError
from adapters.registry import ADAPTERS

FIELDS = {
    "anthropic": "input_tokens",
    "bedrock": "inputTokens",
    "bedrock_mantle": "input_tokens",
    "gemini": "totalTokens",
    "vertex_claude": "input_tokens",
    "vertex_gemini": "totalTokens",
}


def test_every_provider_is_judged() -> None:
    assert ADAPTERS.keys() == FIELDS.keys()


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("tokens", [1, 14, 1_000_000_000])
@pytest.mark.parametrize(
    "reply", ['{"F":N}', ' {\n "F" : N , "y": [{"F": 0}] }\r\n', '{"a":{},"F":N,"b":"é"}']
)
def test_an_integer_is_a_count(name: str, tokens: int, reply: str) -> None:
    body = reply.replace("F", FIELDS[name]).replace("N", str(tokens))
    assert ADAPTERS[name].count(body.encode()).input_tokens == tokens


VALUES = (
    *("0", "-0", "-1", "14.0", "1e3", "1E0", "14.5", "1e400", "01", "+1", "NaN", "0x1"),
    *('"14"', '"12 "', "true", "null", "[14]", '{"n":14}', "1000000001", "9" * 20, "9" * 5000, ""),
)
WHOLE = (
    *("", "{}", "[]", "null", "14", '"14"', "[" * 100_000, "<html>14</html>"),
    *('{"F":14', '{"F":14}x', '{"F":14}{"F":15}', '\ufeff{"F":14}', "{'F':14}", '{"F":14,}'),
)
TWICE = (
    *('{"F":14,"F":15}', '{"F":14,"F":14}', '{"F":"14","F":14}', '{"F":14,"x":1,"F":0}'),
    *('{"F":14,"x":1,"x":2}', '{"x":{"a":1},"x":[],"F":14}'),
)


def _malformed(name: str, body: bytes) -> None:
    with pytest.raises(MalformedUpstreamError) as raised:
        ADAPTERS[name].count(body)
    assert "14" not in str(raised.value)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{value[:12]}.{len(value)}")
def test_nothing_but_a_possible_integer_is_a_count(name: str, value: str) -> None:
    _malformed(name, b'{"%b":%b}' % (FIELDS[name].encode(), value.encode()))


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("body", WHOLE + TWICE, ids=lambda body: f"{body[:24]}.{len(body)}")
def test_a_reply_that_can_be_read_in_no_way_or_in_two_is_no_count(name: str, body: str) -> None:
    _malformed(name, body.replace("F", FIELDS[name]).encode())


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda field: b'{"%b":14,"x":"\xff"}' % field,
        lambda field: b'{"%b":14,"\xff":1}' % field,
        lambda field: b'{"%b":14,"\\u%04x%b":15}' % (field, field[0], field[1:]),
    ],
    ids=["value", "name", "escaped"],
)
def test_bytes_and_escapes_hide_nothing(name: str, spoil: Callable[[bytes], bytes]) -> None:
    _malformed(name, spoil(FIELDS[name].encode()))


OF_ANTHROPIC = sorted(name for name, field in FIELDS.items() if field == "input_tokens")


@pytest.mark.parametrize("name", OF_ANTHROPIC)
def test_anthropics_further_fields_come_back_as_they_were_sent(name: str) -> None:
    reply = b'{"context_management": {"original_input_tokens": 1.0},"input_tokens":7,"n":null}'
    count = ADAPTERS[name].count(reply)
    expected = b',"context_management":{"original_input_tokens":1.0},"n":null'
    assert (count.input_tokens, count.extra) == (7, expected)


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - set(OF_ANTHROPIC)))
def test_other_fields_of_other_providers_stay_out_of_the_answer(name: str) -> None:
    reply = b'{"%b":7,"totalBillableCharacters":9,"promptTokensDetails":[{}]}'
    count = ADAPTERS[name].count(reply % FIELDS[name].encode())
    assert (count.input_tokens, count.extra) == (7, b"")
