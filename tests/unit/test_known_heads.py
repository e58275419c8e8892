"""Heads that the lane has understood before, and those that only look like them."""

from pathlib import Path

import pytest

from app.auth import Authenticator
from app.config import load
from app.known_heads import KnownHeads
from app.memory import open_tiers
from app.repeats import Repeats

KEY = "sk-heads-0123456789abcdef"
CONFIG = f"""\
model_list: [{{model_name: m, litellm_params: {{model: anthropic/m, api_key: k}}}}]
general_settings: {{master_key: {KEY}}}
cache: {{host: {{enabled: false}}}}
"""
REST = f"host: a\r\nx-api-key: {KEY}"


@pytest.fixture
def heads(tmp_path: Path) -> KnownHeads:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    settings = load(str(path), {})
    tiers = open_tiers(settings, lambda _tier, _result: None, lambda: 0.0)
    repeats = Repeats(tiers, 100, 100_000, by_caller=False)
    return KnownHeads(settings, Authenticator(settings.keys), repeats)


def head(line: str, *fields: str) -> bytes:
    return "\r\n".join((line, *fields, REST)).encode()


LINE = "POST /v1/messages/count_tokens HTTP/1.1"
NAMES = "content-length", "Content-Length", "CONTENT-LENGTH"


@pytest.mark.parametrize("name", NAMES)
def test_another_length_is_another_length(heads: KnownHeads, name: str) -> None:
    for length in (10, 10, 2_000, 10):
        begun = heads.understand(head(LINE, f"{name}: {length}"))
        assert begun is not None
        assert begun.body_bytes == length
        assert begun.known.caller.name == "master"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("line", "length"),
    [
        ("POST /v1/messages7", "300"),
        ("POST /v1/messages", "300"),
        (LINE, "007"),
        (LINE, "+7"),
        (LINE, "7, 7"),
        (LINE, ""),
        (LINE, "0"),
        (LINE, "1_0"),
        (LINE, "\u0667"),
        (LINE, "7\r\ncontent-length: 9"),
        (LINE, "7\r\nContent-Length: 7"),
        (LINE, "7\r\ntransfer-encoding: chunked"),
        (LINE, "7\r\nx-api-key: another"),
    ],
)
def test_what_only_looks_like_a_known_head(
    heads: KnownHeads, name: str, line: str, length: str
) -> None:
    """Those that differ from a known one in more than a number go the ordinary way."""
    for known in ("300", "7"):
        assert heads.understand(head(LINE, f"{name}: {known}")) is not None
    assert heads.understand(head(line, f"{name}: {length}")) is None


def test_a_trace_is_told_of_where_it_is_one(heads: KnownHeads) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    for sent, taken in ((trace, trace), ("00-0-0-0", ""), (trace.replace("a", "0"), "")):
        begun = heads.understand(head(LINE, "content-length: 7", f"traceparent: {sent}"))
        assert begun is not None
        assert begun.traceparent == taken
        assert not begun.is_plain


@pytest.mark.parametrize("name", ["x-request-id", "traceparent"])
@pytest.mark.parametrize("first", ["one", "a\tb", "é"])
def test_which_of_several_counts_is_for_the_ordinary_way_to_say(
    heads: KnownHeads, name: str, first: str
) -> None:
    """The first does, also where it is none that is cut out."""
    second = f"00-{'a' * 32}-{'b' * 16}-01"
    asked = head(LINE, "content-length: 7", f"{name}: {first}", f"{name}: {second}")
    assert heads.understand(asked) is None
