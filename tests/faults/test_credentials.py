"""100,000 credentials that are none: all refused in one way, and nothing of them is written."""

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import COUNT, MODEL, Connection, anthropic, counted, model_list
from tests.e2e.offence import CANARY
from tests.server import KEY, Tallygate

CREDENTIALS = 100_000
CONNECTIONS = 8
IN_FLIGHT = 25
BODY = b'{"model":"%b","messages":[{"role":"user","content":"a"}]}' % MODEL.encode()
HEADERS = ("authorization", "x-api-key", "x-litellm-api-key")
VISIBLE = bytes(range(0x21, 0x7F))
SQL = (
    "' OR '1'='1' --",
    '" OR ""="',
    "'; DROP TABLE keys; --",
    "admin'/*",
    "1 UNION SELECT key FROM keys",
    "${jndi:ldap://a/b}",
    "{{7*7}}",
    "%00",
    "../../etc/passwd",
    "*",
    "null",
    "os.environ/ANTHROPIC_API_KEY",
)
_request_id = re.compile(rb"req_[0-9a-zA-Z]+")


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Iterator[Tallygate]:
    running = start(
        {
            "model_list": model_list(**{MODEL: anthropic("claude-x", provider.url)}),
            "telemetry": {"log_level": "debug"},
        }
    )
    yield running
    running.stop()


def near_miss(chance: random.Random) -> str:
    """Change the key by as little as can be."""
    at = chance.randrange(len(KEY))
    return chance.choice(
        (
            KEY[:at],
            KEY[at + 1 :],
            KEY + KEY[at],
            KEY[at] + KEY,
            KEY[:at] + chr(ord(KEY[at]) ^ 1) + KEY[at + 1 :],
            KEY[:at] + KEY[at + 1 :],
            KEY.upper(),
            KEY.swapcase(),
            f"{KEY[: at + 1]} {KEY[at + 1 :]}x",
            f'"{KEY}"',
            f"{KEY},{KEY}",
            KEY * 2,
            f"Token {KEY}",
        )
    )


def made_up(chance: random.Random) -> str:
    """Make what never was a key; CANARY stands in it."""
    text = bytes(chance.choices(VISIBLE, k=chance.choice((1, 8, 40, 40, 200)))).decode()
    if chance.random() < 0.01:
        text *= 6000 // len(text)
    return chance.choice((text + CANARY, CANARY + text, f"{CANARY}{chance.choice(SQL)}"))


def credential(chance: random.Random) -> str:
    value = chance.choice((near_miss, near_miss, made_up))(chance)
    return chance.choice(("", "Bearer ", "bearer ", "Basic ")) + value


def wire(chance: random.Random) -> bytes:
    """Write a request whose first credential is wrong; the others, that do not count, may be right.

    White space around a key and the name of a scheme before it are no part of it.
    """
    chosen = sorted(chance.sample(HEADERS, chance.choice((1, 1, 2, 3))))
    given = {name: credential(chance) for name in chosen}
    if len(given) > 1 and "x-litellm-api-key" in given and chance.random() < 0.5:
        given["x-api-key" if "x-api-key" in given else "authorization"] = f"Bearer {KEY}"
    lines = [f"{name}: {value}" for name, value in given.items()]
    chance.shuffle(lines)
    head = [f"POST {COUNT} HTTP/1.1", "host: a", f"content-length: {len(BODY)}", *lines, "", ""]
    return "\r\n".join(head).encode() + BODY


@pytest.mark.timeout(240)
def test_a1_a_hundred_thousand_wrong_credentials(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    chance = random.Random(0)
    began = time.perf_counter()
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(server.port)) for _ in range(CONNECTIONS)]
        connections[0].send(wire(chance))
        refusal = connections[0].read()
        assert refusal.status_code == 401
        shape = None
        for _ in range(CREDENTIALS // (CONNECTIONS * IN_FLIGHT)):
            for one in connections:
                one.send(b"".join(wire(chance) for _ in range(IN_FLIGHT)))
            for one in connections:
                for _ in range(IN_FLIGHT):
                    seen = _request_id.sub(b"", one.read_raw())
                    shape = shape or seen
                    assert seen == shape
    print(f"{CREDENTIALS} wrong credentials in {time.perf_counter() - began:.0f} s")
    assert shape is not None
    assert shape.startswith(b"HTTP/1.1 401 ")
    assert b"authentication_error" in shape
    assert provider.calls == 0
    assert counted(server.count(BODY))
    assert server.stop() == 0
    written = server.out.read_text() + server.err.read_text()
    assert CANARY not in written
    assert "Traceback" not in written
    for at in range(len(KEY) - 8):
        assert KEY[at : at + 8] not in written
