"""Credentials blanked out of replies, wherever and however a provider quotes them."""

import pytest

from adapters._aws_errors import read_error as read_aws
from adapters.anthropic import read_count, read_error
from app.blanking import blanked_json

KEY = 'sk-ant-api03-upstream/1+2="3\\'
SPELLED = (
    rb'"sk-ant-api03-upstream/1+2=\"3\\"',
    rb'"sk-ant-api03-upstream\/1+2=\u00223\u005c"',
    b'"' + b"".join(b"\\u%04x" % ord(one) for one in KEY) + b'"',
    rb'"Bearer sk-ant-api03-upstream/1+2=\"3\\ is refused"',
)
ODD = (
    b'{"a":%b,"b":1e400}',
    b'{"b":1e400,"a":[{"c":%b}]}',
    b'{"a":%b,"a":"x"}',
    b'{%b:1,"a":-0.10,"b":"\\\\"}',
    b'{"a":%b,"b":"\xff"}',
    b'{"a":%b,"b":"\\ud800"}',
    b'{"a":' + b"[" * 2_000 + b"%b" + b"]" * 2_000 + b"}",
    b'{"a":%b} {"b":%b}',
    b"{'a':%b",
)


@pytest.mark.parametrize("spelled", SPELLED)
@pytest.mark.parametrize("text", ODD, ids=[str(number) for number in range(len(ODD))])
def test_blanked_in_what_is_no_plain_json(text: bytes, spelled: bytes) -> None:
    blanked = blanked_json(text.replace(b"%b", spelled), (KEY,))
    bare = spelled.removeprefix(b'"Bearer ').removesuffix(b' is refused"').strip(b'"')
    assert bare not in blanked
    assert b"***" in blanked


@pytest.mark.parametrize("text", [b'{"a":1.0,"b":1e400,"a":"\\u0061\\/"}', b"<html>\\", b'"', b""])
def test_what_quotes_none_stays_as_it_is(text: bytes) -> None:
    assert blanked_json(text, (KEY,)) == text


def test_what_an_adapter_skips_hides_nothing() -> None:
    anthropic = (
        b'{"error":{"type":"api_error","message":"%b","details":{"a":"%b","a":1}},"b":1e400}'
    )
    error = read_error(
        500, {}, blanked_json(anthropic.replace(b"%b", b"sk-1-secret"), ("sk-1-secret",))
    )
    assert error.message == "***"
    assert b"secret" not in error.details
    aws = b'{"message":"sk-1-secret","b":"\xff"}'
    assert read_aws(400, {}, blanked_json(aws, ("sk-1-secret",))).message == "***"
    count = read_count(b'{"input_tokens":12,"a":{"b":"sk-1-secret","b":1e400}}')
    assert b"secret" not in blanked_json(count.extra, ("sk-1-secret",))
