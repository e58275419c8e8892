"""Traffic to count, made at random from a seed: what clients send, and what they should not."""

import json
import random
from collections.abc import Callable, Iterator
from uuid import UUID

from tests.e2e.failures import FAILING, FAILURES
from tests.server import KEY

OTHER_KEY, WRONG_KEY = "sk-other-0123456789", "sk-wrong-0123456789"
END_USER_HEADER = "x-our-user"
MODELS = ("claude-3-5-sonnet", "wild/claude-of-today", "gemini")
ENDED = b""
"""The end of one's own side of a connection: nothing more is sent, but all is still read."""
GOODBYE = b"GET /health/liveliness HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"

Dice = random.Random
Field = tuple[str, str]


def bodies(dice: Dice, count: int) -> list[bytes]:
    """Make a stock of bodies to choose from again and again; one in six is no question."""
    return [_good(dice) if dice.random() < 5 / 6 else _bad(dice) for _ in range(count)]


def failing(dice: Dice) -> bytes:
    """Make a question that its provider answers in its own way."""
    content = _text(dice, dice.choice((1, 20, 3_000, 9_000)))
    model = f"{FAILING}/{dice.choice((*FAILURES,))}"
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": model, "messages": messages}).encode()


def _good(dice: Dice) -> bytes:
    # Some are larger than what a socket is read in at a time.
    length = dice.choice((1, 20, 300, 1_700, 3_700, 6_000, 7_900, 30_000, 70_000, 200_000))
    asked: dict[str, object] = {
        "model": dice.choice(MODELS),
        "messages": [{"role": "user", "content": _text(dice, length)}],
    }
    if dice.random() < 0.3:
        asked["metadata"] = {"user_id": dice.choice(("anna", "bert", "ü\u2603"))}
    if dice.random() < 0.3:
        asked["system"] = "Be brief."
    indent = dice.choice((None, None, 1))
    return json.dumps(asked, indent=indent, ensure_ascii=dice.random() < 0.5).encode()


def _bad(dice: Dice) -> bytes:
    return dice.choice(
        (
            b"",
            b"{}",
            b"\xff\xfe",
            b'{"model":"claude-3-5-sonnet","messages":[]}',
            b'{"model":"claude-3-5-sonnet","model":"gemini","messages":[{"role":"user"}]}',
            b'{"model":"only-for-others","messages":[{"role":"user","content":"x"}]}',
            b'{"model":"unheard-of","messages":[{"role":"user","content":"x"}]}',
            b"[" * 1000,
        )
    )


def _text(dice: Dice, length: int) -> str:
    return "".join(dice.choices("abc déf \u2603\n", k=length))


class Client:
    """One client: its head stays nearly the same from request to request."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._key = dice.choice((KEY, KEY, OTHER_KEY, OTHER_KEY, WRONG_KEY, ""))
        self._fields = list(self._usual())
        self._path = dice.choice(
            (
                "/v1/messages/count_tokens",
                "/v1/messages/count_tokens",
                "/v1/messages/count_tokens?beta=true",
                "/anthropic/v1/messages/count_tokens",
                "/anthropic/v1/messages/count_tokens?beta=true",
            )
        )

    def request(self, body: bytes) -> bytes:
        """Write a request; one in seven is odd in some way."""
        fields, line = [*self._fields], f"POST {self._path} HTTP/1.1"
        fields += [(name, make(self._dice)) for name, make in VARYING if self._dice.random() < 0.2]
        framed = body
        fields.append((self._dice.choice(("content-length", "Content-Length")), str(len(body))))
        if self._dice.random() < 1 / 7:
            odd = self._dice.choice(ODD)
            line, fields, framed = odd(line, fields, body)
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"{line}\r\n{head}\r\n".encode() + framed

    def _usual(self) -> Iterator[Field]:
        dice = self._dice
        yield dice.choice(("host", "Host")), "127.0.0.1:4000"
        yield "accept", "*/*"
        yield "user-agent", dice.choice(("anthropic/Python 1.17", "curl/8", "ü"))
        if self._key:
            yield dice.choice(
                (
                    ("x-api-key", self._key),
                    ("X-Api-Key", self._key),
                    ("authorization", f"Bearer {self._key}"),
                    ("x-litellm-api-key", self._key),
                )
            )
        for name, value in OPTIONAL:
            if dice.random() < 0.15:
                yield name, value


OPTIONAL: tuple[Field, ...] = (
    ("content-type", "application/json"),
    ("content-type", "application/json; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-encoding", "identity"),
    ("content-encoding", "gzip"),
    ("connection", "keep-alive"),
    ("connection", "Keep-Alive"),
    ("anthropic-version", "2023-06-01"),
    ("anthropic-version", "2026-01-01 "),
    ("anthropic-beta", "context-1m-2025-08-07"),
    ("anthropic-beta", "b-2,a-1"),
    ("anthropic-workspace-id", "wrkspc_1"),
    ("cache-control", "no-cache"),
    ("cache-control", "max-age=60"),
    ("x-litellm-timeout", "20"),
    ("x-litellm-timeout", "soon"),
    ("x-litellm-customer-id", "customer-7"),
    (END_USER_HEADER, "someone"),
    ("authorization", "Bearer sk-ant-api03-the-callers-own"),
    ("cookie", "a=b; c=d"),
)


def _id(dice: Dice) -> str:
    return hex(dice.getrandbits(64))


VARYING: tuple[tuple[str, Callable[[Dice], str]], ...] = (
    ("x-request-id", lambda dice: dice.choice(("", "a b", "x" * 129, "é", _id(dice)))),
    ("traceparent", lambda dice: f"00-{UUID(int=dice.getrandbits(128)).hex}-00f067aa0ba902b7-01"),
    ("X-Request-Id", _id),
    ("x-stainless-retry-count", lambda dice: str(dice.randrange(3))),
    ("idempotency-key", lambda dice: dice.choice(("é", _id(dice)))),
    ("x-something-else", _id),
)

Odd = Callable[[str, list[Field], bytes], tuple[str, list[Field], bytes]]


def _with(*more: Field) -> Odd:
    return lambda line, fields, body: (line, [*fields, *more], body)


def _line(change: Callable[[str], str]) -> Odd:
    return lambda line, fields, body: (change(line), fields, body)


def _chunked(line: str, fields: list[Field], body: bytes) -> tuple[str, list[Field], bytes]:
    half = len(body) // 2
    pieces = (body[:half], body[half:])
    framed = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces if one)
    return line, [*fields[:-1], ("transfer-encoding", "chunked")], framed + b"0\r\n\r\n"


def _length(write: Callable[[int], str]) -> Odd:
    return lambda line, fields, body: (
        line,
        [*fields[:-1], ("content-length", write(len(body)))],
        body,
    )


def _traced_twice(line: str, fields: list[Field], body: bytes) -> tuple[str, list[Field], bytes]:
    """The first is no trace, and the second would be one."""
    second = ("traceparent", f"00-{'1' * 32}-{'2' * 16}-01")
    return line, [("traceparent", "a\tb"), second, *fields], body


def _in_capitals(line: str, fields: list[Field], body: bytes) -> tuple[str, list[Field], bytes]:
    return line, [(name.upper(), value) for name, value in fields], body


ODD: tuple[Odd, ...] = (
    _chunked,
    _with(("connection", "close")),
    _with(("expect", "100-continue")),
    _with(("content-length", "7")),
    _with(("transfer-encoding", "chunked")),
    _with(("x-control", "a\x00b")),
    _with(("anthropic-beta", "c-3")),
    _with(("x-api-key", WRONG_KEY)),
    _line(lambda line: line.replace("HTTP/1.1", "HTTP/1.0")),
    _line(lambda line: line.replace("POST", "GET")),
    _line(lambda line: line.replace("count_tokens", "count_tokens/")),
    _line(lambda line: line.replace("count_tokens", "count%5ftokens")),
    _line(lambda line: line.replace("POST /", "POST //")),
    _length(lambda size: f"0{size}"),
    _length(lambda size: f"{size}  "),
    _length(lambda size: f"{size}\t"),
    _length(lambda size: f"+{size}"),
    _length(lambda size: f"{size}, {size}"),
    _length(lambda size: f"{size:020}1"),
    _in_capitals,
    _traced_twice,
    _with(("x-request-id", "one"), ("x-request-id", "two")),
    _with(("traceparent", "a\tb")),
    _with(("tracestate", "content-length: 4")),
    _with(("idempotency-key:", "")),
    _with(("x-litellm-api-key", OTHER_KEY)),
    _with(("cache-control", "")),
    _with(("upgrade", "websocket")),
    _with(("connection", "keep-alive, close")),
    _with(("anthropic-beta", ",".join(f"beta-{number:0100}" for number in range(20)))),
    *(_with(*((f"x-a{number}", "v") for number in range(count))) for count in (80, 88, 120)),
    *(_with(("x-big", "v" * size)) for size in (8_000, 15_500, 16_200)),
    _line(lambda line: line.replace(" HTTP", "? HTTP")),
    _line(lambda line: line.replace(" HTTP", "?a?b HTTP")),
    _line(lambda line: line.replace(" HTTP", "#f HTTP")),
    _line(lambda line: f"\r\n{line}"),
    lambda line, fields, body: (line, fields[1:], body),
)


def conversation(dice: Dice, client: Client, stock: list[bytes]) -> list[bytes]:
    """Write what one connection sends, in the pieces in which it leaves.

    It ends with GOODBYE, or with ENDED where no answer is waited for longer than that allows.
    """
    asked = [_asked(dice, stock) for _ in range(dice.randrange(1, 7))]
    sent = [client.request(body) for body in asked]
    if dice.random() < 0.4:  # pipelined, or cut anywhere
        whole = b"".join(sent)
        cuts = sorted(dice.sample(range(len(whole)), min(dice.randrange(4), len(whole))))
        sent = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    hangs = any(b"/hangs" in body for body in asked)
    end = ENDED if dice.random() < 0.3 and not hangs else GOODBYE
    return [*(piece for piece in sent if piece), end]


def _asked(dice: Dice, stock: list[bytes]) -> bytes:
    """Choose what is known, what fails, or what nobody has asked."""
    if dice.random() < 0.7:
        return dice.choice(stock)
    return failing(dice) if dice.random() < 0.5 else _good(dice)
