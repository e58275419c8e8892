"""The offline estimate: within its documented bounds, high rather than low, and never failing.

Two references, kept apart: tests/fixtures/estimate/known_counts.json holds what Claude counted,
samples.json what a stand-in counts for the texts of samples/ (docs/estimate.md).
"""

import base64
import itertools
import json
import statistics
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import LocalCounter
from adapters.estimate import Estimator

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "estimate"
KNOWN = json.loads((FIXTURES / "known_counts.json").read_bytes())
TOKENS: dict[str, dict[str, int]] = json.loads((FIXTURES / "samples.json").read_bytes())["tokens"]

counter: LocalCounter = Estimator()


def estimate(request: dict[str, Any]) -> int:
    return counter.estimate(json.dumps(request, ensure_ascii=False).encode("utf-8", "replace"))


def user(content: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


NOTHING = estimate(user(""))


def added(content: object) -> int:
    """What the content alone adds to a message."""
    return estimate(user(content)) - NOTHING


def sample(name: str) -> str:
    return (FIXTURES / "samples" / f"{name}.txt").read_text("utf-8").rstrip("\n")


def base64_source(data: bytes, media_type: str = "application/pdf") -> dict[str, str]:
    return {"type": "base64", "media_type": media_type, "data": base64.b64encode(data).decode()}


def image(data: bytes) -> list[dict[str, object]]:
    return [{"type": "image", "source": base64_source(data, "image/png")}]


def pdf(data: bytes) -> list[dict[str, object]]:
    return [{"type": "document", "source": base64_source(data)}]


def png(width: int, height: int) -> bytes:
    size = struct.pack(">II", width, height)
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + size + b"\x08\x02\x00\x00\x00"


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\xf7\x00\x00"


def jpeg(width: int, height: int) -> bytes:
    exif = b"\xff\xe1" + struct.pack(">H", 60_002) + bytes(60_000)
    tables = b"\xff\xc4\x00\x04\x00\x00\xff\xff\xdb\x00\x03\x00"
    frame = b"\xff\xc2\x00\x11\x08" + struct.pack(">HH", height, width) + b"\x03"
    return b"\xff\xd8" + exif + tables + frame + bytes(20)


def webp_lossy(width: int, height: int) -> bytes:
    frame = b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height)
    return b"RIFF\x00\x00\x00\x00WEBPVP8 \x00\x00\x00\x00" + frame


def webp_lossless(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    return b"RIFF\x00\x00\x00\x00WEBPVP8L\x00\x00\x00\x00\x2f" + struct.pack("<I", bits)


def webp_extended(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00" + size


def pdf_of(pages: int, *, hidden: bool = False) -> bytes:
    objects = b"\n".join(b"<</Type /Page /Parent 1 0 R>>" for _ in range(pages))
    tree = b"<</Type /Pages /Count %d>>\n" % pages
    if not hidden:
        return b"%PDF-1.4\n" + tree + objects
    packed = zlib.compress(tree + objects)
    return b"%PDF-1.7\n5 0 obj <</Type /ObjStm /N 9>> stream\r\n" + packed + b"\nendstream endobj"


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "text", "text": "hello"}
    for _ in range(depth // 2):
        value = {"type": "tool_result", "content": [value]}
    return value


@pytest.mark.parametrize("name", sorted(TOKENS))
def test_text_is_priced_between_its_tokens_and_a_fifth_more(name: str) -> None:
    tokens = TOKENS[name]["claude_4_7_and_later"]
    assert tokens <= added(sample(name)) <= 1.20 * tokens + 1


def test_text_is_priced_a_tenth_above_its_tokens_on_average() -> None:
    ratios = [added(sample(name)) / TOKENS[name]["claude_4_7_and_later"] for name in TOKENS]
    assert 1.05 < statistics.median(ratios) < 1.15


def test_a_long_text_costs_the_sum_of_its_parts() -> None:
    parts = [sample(name) for name in sorted(TOKENS)] * 25
    whole = added("\n".join(parts))
    assert whole == pytest.approx(sum(added(part) for part in parts), rel=0.02)


@pytest.mark.parametrize("unit", ["ab", "a ", "é", "好", "{}", "0,"])
def test_text_that_repeats_itself_costs_the_same_per_repeat_at_any_length(unit: str) -> None:
    assert added(unit * 200_000) == pytest.approx(200 * added(unit * 1000), rel=0.03)


@pytest.mark.parametrize("known", KNOWN["requests"])
def test_what_claude_counted_is_not_underestimated(known: dict[str, Any]) -> None:
    tokens = known["input_tokens"]
    assert tokens <= estimate(known["request"]) <= 1.6 * tokens + 30


@pytest.mark.parametrize("known", KNOWN["media"], ids=lambda known: str(list(known.values())[:2]))
def test_media_that_claude_counted_are_not_underestimated(known: dict[str, Any]) -> None:
    if "image" in known:
        tokens, priced = known["visual_tokens"], added(image(png(*known["image"])))
        assert tokens <= priced <= tokens + 10
    else:
        tokens, priced = known["input_tokens"], added(pdf(pdf_of(known["pdf_pages"])))
        assert tokens <= priced <= 2.1 * tokens


@pytest.mark.parametrize("write", [png, gif, jpeg, webp_lossy, webp_lossless, webp_extended])
def test_the_size_of_an_image_is_read_from_its_header(write: Callable[[int, int], bytes]) -> None:
    assert added(image(write(700, 300))) == added(image(png(700, 300)))
    assert added(image(write(1400, 300))) > 1.9 * added(image(png(700, 300)))


def test_an_image_costs_at_most_the_ceiling() -> None:
    ceiling = added(image(png(8000, 8000)))
    assert 4784 <= ceiling < 4800
    assert added(image(png(8000, 800))) < ceiling, "a long edge is scaled down first"
    for unreadable in (b"", b"\x00\x01", png(0, 0), b"\xff\xd8" + b"\xff\xe0\x00\x02" * 9000):
        assert added(image(unreadable)) == ceiling
    url = [{"type": "image", "source": {"type": "url", "url": "https://example.com/x.png"}}]
    assert added(url) == ceiling


def test_an_image_in_a_tool_result_costs_what_it_costs_elsewhere() -> None:
    picture = image(png(700, 300) + bytes(50_000))
    result = [{"type": "tool_result", "tool_use_id": "t", "content": picture}]
    assert added(picture) < added(result) < added(picture) + 50


@pytest.mark.parametrize("hidden", [False, True])
def test_the_pages_of_a_pdf_are_counted(*, hidden: bool) -> None:
    one, forty = (added(pdf(pdf_of(pages, hidden=hidden))) for pages in (1, 40))
    assert forty == pytest.approx(40 * one, rel=0.05)


def test_a_pdf_that_shows_no_pages_costs_by_its_size() -> None:
    assert added(pdf(bytes(400_000))) > 5 * added(pdf(bytes(10_000)))
    assert added(pdf(b"")) == added(pdf(pdf_of(1)))


def test_a_pdf_is_inflated_to_eight_megabytes_and_no_further() -> None:
    padding = zlib.compress(bytes(9 << 20))
    bomb = b"%PDF-1.7\n4 0 obj <</Type /ObjStm>> stream\n" + padding + b"\nendstream endobj"
    assert added(pdf(bomb + pdf_of(40, hidden=True))) < added(pdf(pdf_of(3)))


TEXT = "The tide table for Galway says high water at noon. " * 40


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        [{"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral"}}],
        [{"type": "tool_use", "id": "t", "name": "f", "input": {"path": [TEXT]}}],
        [{"type": "server_tool_use", "id": "t", "name": "web_search", "input": {"query": TEXT}}],
        [{"type": "tool_result", "tool_use_id": "t", "content": TEXT}],
        [{"type": "tool_result", "content": [{"type": "text", "text": TEXT}], "is_error": True}],
        [{"type": "thinking", "thinking": TEXT, "signature": "c2ln"}],
        [{"type": "document", "source": {"type": "text", "data": TEXT}}],
        [{"type": "document", "source": {"type": "content", "content": TEXT}}],
        [{"type": "document", "source": {"type": "content", "content": [TEXT]}, "title": "T"}],
        [{"type": "search_result", "source": "s", "title": "t", "content": [{"text": TEXT}]}],
        [{"type": "brand_new_block", "payload": {"deep": [{"er": TEXT}]}}],
        [[TEXT]],
        {"type": "text", "text": {"not": ["a", TEXT]}},
        nested(40) | {"content": TEXT},
    ],
    ids=itertools.count(),
)
def test_text_is_counted_wherever_it_stands(content: object) -> None:
    plain = added(TEXT)
    assert plain <= added(content) + 1
    assert added(content) <= plain + 120


def test_system_and_messages_of_any_role_are_counted() -> None:
    plain = added(TEXT)
    empty = user("")
    assert estimate({**empty, "system": TEXT}) >= NOTHING + plain - 1
    assert estimate({**empty, "system": [{"type": "text", "text": TEXT}]}) >= NOTHING + plain - 1
    more = {"messages": [*empty["messages"], {"role": "assistant", "content": TEXT}]}
    assert estimate(more) >= NOTHING + plain


def test_thinking_whose_text_is_withheld_is_counted_by_its_seal() -> None:
    shown = added([{"type": "thinking", "thinking": TEXT, "signature": "c2ln" * 60}])
    sealed = added([{"type": "thinking", "thinking": "", "signature": "c2ln" * 700}])
    redacted = added([{"type": "redacted_thinking", "data": "c2ln" * 700}])
    assert sealed == redacted == pytest.approx(shown, rel=0.5)


def test_tools_cost_their_definition_and_a_system_prompt() -> None:
    tool = json.loads(sample("tool_schema"))
    definition = TOKENS["tool_schema"]["claude_4_7_and_later"]
    one = estimate({**user(""), "tools": [tool]}) - NOTHING
    two = estimate({**user(""), "tools": [tool, tool]}) - NOTHING
    assert 497 + definition <= one <= 497 + 1.25 * definition
    assert definition <= two - one <= 1.25 * definition
    forced = {**user(""), "tools": [tool], "tool_choice": {"type": "any"}}
    assert estimate(forced) - NOTHING == one + 92
    assert estimate({**user(""), "tools": []}) == NOTHING
    assert estimate({**user(""), "tools": [{**tool, "defer_loading": True}]}) == NOTHING


def test_a_tool_of_the_providers_own_costs_more_than_its_name() -> None:
    for kind in ("bash_20250124", "text_editor_20250728", "memory_20250818", "tool_of_2031"):
        tool = {"type": kind, "name": "t"}
        assert estimate({**user(""), "tools": [tool]}) > NOTHING + 497 + 300


STRINGS = st.text(st.characters(), max_size=60)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | STRINGS
NAMES = st.sampled_from(
    (
        *("messages", "system", "tools", "tool_choice", "thinking", "output_config", "content"),
        *("role", "type", "text", "source", "data", "input", "name", "title", "signature"),
    )
)
KINDS = st.sampled_from(
    (
        *("text", "image", "document", "tool_use", "tool_result", "thinking", "base64", "x"),
        *("redacted_thinking", "search_result", "content", "url", "enabled", "adaptive"),
    )
)
VALUES = st.recursive(
    SCALARS | KINDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | STRINGS, inner, max_size=5),
    max_leaves=25,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES | STRINGS, VALUES, max_size=6))
def test_any_json_object_has_an_estimate(request: dict[str, Any]) -> None:
    for ensure_ascii in (True, False):
        body = json.dumps(request, ensure_ascii=ensure_ascii).encode("utf-8", "surrogatepass")
        first = counter.estimate(body)
        assert isinstance(first, int)
        assert first >= 1
        assert counter.estimate(body) == first


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"messages":[]}',
        b'{"messages":null,"system":7,"tools":{"a":[]}}',
        b'{"tools":[[],{"type":[]},7],"tool_choice":{"type":["any"]},"thinking":{"type":{}}}',
        b'{"messages":[{"content":[{"type":["text"]},{"type":"image","source":{"type":[]}}]}]}',
        b'{"messages":[{"role":"user","content":"\\ud800 \\udc00 \\u0000"}]}',
        b'{"messages":[{"role":"user","content":1e999}]}',
        b'{"messages":[' + b"9" * 5000 + b"]}",
        b'{"a":' * 200 + b"1" + b"}" * 200,
        b'{"messages":' + b"[" * 199 + b"]" * 199 + b"}",
        b'{"messages":' + b"[" * 980 + b"]" * 980 + b"}",
        b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"messages":["\xed\xa0\x80"]}',
        json.dumps(user([nested(200)])).encode(),
    ],
    ids=itertools.count(),
)
def test_strange_bodies_have_an_estimate(body: bytes) -> None:
    assert counter.estimate(body) >= 1


def test_a_lone_surrogate_does_not_turn_an_image_into_text() -> None:
    picture = json.dumps(image(png(2000, 1500) + bytes(600_000)))
    body = b'{"messages":[{"content":"\\ud800"},{"content":' + picture.encode() + b"}]}"
    assert counter.estimate(body) < 4200


HUGE: dict[str, Callable[[int], dict[str, Any]]] = {
    "prose": lambda size: user((TEXT * (size // len(TEXT) + 1))[:size]),
    "one letter": lambda size: user("a" * size),
    "quotes": lambda size: user('"' * size),
    "messages": lambda size: {"messages": [{"role": "user", "content": "a"}] * (size // 32)},
    "blocks": lambda size: user([{"type": "x", "y": [1, "z"]}] * (size // 30)),
    "bad image": lambda size: user(image(b"\xff\xd8" + b"\xff" * size)),
    "bad pdf": lambda size: user(pdf(b"%PDF" + b"/ObjStm" * (size // 7))),
    "worse pdf": lambda size: user(pdf(b"%PDF" + b"/ObjStm stream" * (size // 14))),
    "bomb pdf": lambda size: user(pdf(pdf_of(1, hidden=True) * (size // 200))),
}


@pytest.mark.parametrize("shape", HUGE)
def test_the_time_is_linear_in_the_size(shape: str) -> None:
    def seconds(size: int) -> float:
        body = json.dumps(HUGE[shape](size)).encode()
        runs = []
        for _ in range(3):
            start = time.process_time()
            counter.estimate(body)
            runs.append(time.process_time() - start)
        return min(runs)

    assert seconds(640_000) < 100 * seconds(40_000), "16 times the size; quadratic would be 256"


def test_it_opens_no_connection_and_loads_nothing_heavy() -> None:
    program = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise AssertionError('a connection')\n"
        "socket.socket = socket.create_connection = refuse\n"
        "from adapters.estimate import Estimator\n"
        'url = \'{"type":"url","url":"http://127.0.0.1:9/a.png"}\'\n'
        'body = \'{"messages":[{"content":[{"type":"image","source":%s}]}]}\' % url\n'
        "assert Estimator().estimate(body.encode()) > 4000\n"
        "heavy = {'numpy', 'tiktoken', 'tokenizers', 'litellm', 'PIL', 'asyncio', 'sanic'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (run.stdout, run.stderr) == ("[]\n", "")
