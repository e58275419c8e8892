"""Bodies that are nearly right: valid ones, spoilt in their structure and in their bytes."""

import copy
import random
from pathlib import Path
from typing import Any

import msgspec

WIRE = Path(__file__).parents[1] / "fixtures" / "wire" / "inputs"

NAUGHTY = (
    *(
        "",
        " ",
        "\0",
        "\x1b[2J",
        "\r\nx: y",
        "\u202e",
        "\ufeff",
        "\ufffe",
        "\U0010ffff",
        "é",
        "e\u0301",
    ),
    *("../..", "%0d%0a", "${jndi:ldap://a}", "'; DROP TABLE a;--", "<script>", "null", "NaN"),
    *(
        "__proto__",
        "constructor",
        "$ref",
        "model",
        "messages",
        "👩‍👩‍👧‍👦",
        "\uff46\uff55",
        "a" * 5000,
    ),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**63, -(2**63) - 1, 2**64, 1.5, 1e308, 5e-324, [], {}, [[]], [{}]),
    *({"type": "text"}, {"type": "text", "text": None}, {"type": "new_block", "x": [1]}),
    *({"type": "tool_use", "id": 1, "name": [], "input": "a"}, {"type": "tool_result"}),
    *({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "%%%"}},),
    *({"type": "document", "source": {"type": "url", "url": "file:///etc/passwd"}},),
    *({"type": "thinking", "thinking": 1}, {"$ref": "#/a"}, {"type": ["object", "null"]}),
)
ROLES = ("user", "assistant", "system", "model", "tool", "function", "", "User", "robot")
FIELDS = (
    *(
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "output_format",
        "mcp_servers",
    ),
    *(
        "cache_control",
        "context_management",
        "speed",
        "thread",
        "metadata",
        "user",
        "stream",
        "new",
    ),
    *("input_schema", "content", "source", "is_error", "strict", "name", "type", "role", "model"),
)
PIECES = (
    *(bytes([one]) for one in b"\"{}[],:\\'0-.eE+ \n\t/\x00\x1f\x7f\xff\xc3\x80"),
    *(b"\\ud800", b"\\udc00", b"\\u0000", b"NaN", b"-Infinity", b"01", b"-0", b"1e999", b"1e-999"),
    *(
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\xc0\xaf",
        b"9" * 5000,
        b"null",
        b"[" * 250,
        b'{"a":' * 250,
    ),
    *(b'"model":"other",', b'"messages":[],', b'"\\u006dodel":1,', b'"a":1,"a":2,', b"/**/"),
)
HEADERS = (
    (
        "anthropic-beta",
        ("", ",", "a,b", "a b", "token-counting-2024-11-01", "é", "b," * 70, "x" * 200),
    ),
    ("anthropic-version", ("", "2023-06-01", "2026-10-21", "a b", "\0", "é", "x" * 300)),
    ("anthropic-user-profile-id", ("", "prof_1", "a b", "a\r\nb", "x" * 300)),
    ("anthropic-workspace-id", ("ws_1", "\x7f", "ws_é")),
    ("cache-control", ("no-cache", "max-age=1", "max-age=-1", "max-age=" + "9" * 5000, '"', "é")),
    (
        "content-type",
        ("application/json", "text/plain", "application/x+json", "application/json;", ";"),
    ),
    ("content-encoding", ("identity", "gzip", "")),
    ("x-litellm-timeout", ("1", "0", "-1", "nan", "1e9", "2.5", "٣", "")),
    ("x-tallygate-end-user", NAUGHTY),
)


def seeds() -> list[dict[str, Any]]:
    """Read the valid bodies that every adapter has a recorded form of."""
    return [msgspec.json.decode(path.read_bytes()) for path in sorted(WIRE.glob("*.json"))]


BASES = seeds()


def mutant(chance: random.Random) -> tuple[dict[str, str], bytes]:
    """Make the headers and the body of one request; about a half are no valid JSON."""
    value = copy.deepcopy(chance.choice(BASES))
    for _ in range(chance.randrange(5)):
        _change(value, chance)
    if chance.random() < 0.05:
        value["new"] = _nested(chance)
    body = msgspec.json.encode(value)
    if chance.random() < 0.2:
        body = msgspec.json.format(body, indent=chance.randrange(4))
    for _ in range(chance.choice((0, 0, 0, 0, 0, 1, 1, 3))):
        body = spoilt(body, chance)
    chosen = chance.sample(HEADERS, chance.choice((0, 0, 0, 0, 0, 0, 1, 2)))
    return {name: chance.choice(given) for name, given in chosen}, body


def _nested(chance: random.Random) -> Any:
    value: Any = 1
    for _ in range(chance.choice((10, 150, 195, 196, 197, 198, 199, 200, 201, 400))):
        value = [value] if chance.random() < 0.5 else {"a": value}
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """List every place below a value: its container and its key or index."""
    found: list[tuple[Any, Any]] = []
    open_ones = [value]
    while open_ones:
        one = open_ones.pop()
        inside = one.items() if isinstance(one, dict) else enumerate(one)
        for key, inner in list(inside):
            found.append((one, key))
            if isinstance(inner, dict | list):
                open_ones.append(inner)
    return found


def _change(value: dict[str, Any], chance: random.Random) -> None:
    places = _places(value)
    if not places:
        return
    container, key = chance.choice(places)
    match chance.randrange(7):
        case 0:
            container[key] = copy.deepcopy(chance.choice(VALUES))
        case 1:
            container[key] = chance.choice(NAUGHTY)
        case 2:
            del container[key]
        case 3:  # splice: what stands at another place, here
            other, its_key = chance.choice(places)
            container[key] = copy.deepcopy(other[its_key])
        case 4 if isinstance(container, list):
            container.insert(key, copy.deepcopy(chance.choice(VALUES)))
        case 5 if isinstance(container, dict) and "role" in container:
            container["role"] = chance.choice(ROLES)
        case _:
            if isinstance(container, dict):
                name = chance.choice((*FIELDS, *NAUGHTY))
                container[name] = copy.deepcopy(chance.choice(VALUES))


def spoilt(body: bytes, chance: random.Random) -> bytes:
    """Spoil a text in one place, whatever stands there."""
    at, length = chance.randrange(len(body) + 1), chance.randrange(1, 12)
    before, part, after = body[:at], body[at : at + length], body[at + length :]
    match chance.randrange(6):
        case 0:
            return before + chance.choice(PIECES) + part + after
        case 1:
            return before + chance.choice(PIECES) + after
        case 2:
            return before + after
        case 3:
            return before + part + part + after
        case 4:
            return before + part
        case _:
            flipped = bytes(byte ^ (1 << chance.randrange(8)) for byte in part[:1])
            return before + flipped + part[1:] + after
