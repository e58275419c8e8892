"""The requests of each scenario, the same in every run but for the nonces."""

import random
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from bench.questions import BLANK_BYTES, NONCE_BYTES, Message, Mix, Tokens
from bench.scenarios import COUNT_PATH, Scenario, Traffic
from bench.slice import Address

BODIES, CALLERS, DRAWS = 1_000, 50, 1 << 16
_SIZES_BYTES = range(200, 3_001)
_SENTENCE = "The gatekeeper counts what passes through the gate and remembers each answer. "
_SESSIONS, _TURNS, _TOOLS, _TEXTS = 8, 6, 11, 10
_BETAS = "claude-code-20250219,interleaved-thinking-2025-05-14,token-counting-2024-11-01"


def callers(key: str) -> tuple[str, ...]:
    """The keys of CALLERS callers besides the one with ``key``."""
    return tuple(f"{key}-{number:02}" for number in range(CALLERS))


class InGoogleForm(Struct, frozen=True):
    """The count of a question's messages as Gemini's counters are asked it: plain text alone."""

    tokens: Tokens

    def __call__(self, asked: bytes) -> int:
        said = msgspec.json.decode(asked)["messages"]
        contents = [{"role": one["role"], "parts": [{"text": one["content"]}]} for one in said]
        return self.tokens(msgspec.json.encode({"contents": contents}))


def text(size: int) -> str:
    """So many characters of plain English."""
    return (_SENTENCE * (size // len(_SENTENCE) + 1))[:size]


def body(model: str, size: int, nonce: str = "0" * NONCE_BYTES) -> tuple[bytes, int]:
    """A question of ``size`` bytes (or as few as there can be), and where its nonce stands."""
    asked = msgspec.json.encode(
        {"model": model, "messages": [{"role": "user", "content": f"{nonce} "}]}
    )
    nonce_at = asked.index(nonce.encode())
    text_at, missing = nonce_at + NONCE_BYTES + 1, max(0, size - len(asked))
    return asked[:text_at] + text(missing).encode() + asked[text_at:], nonce_at


def message(scenario: Scenario, at: Address, key: str, model: str, tokens: Tokens) -> Message | Mix:
    """What a scenario asks, with the headers that a client usually sends."""
    if scenario.traffic is Traffic.ZIPF:
        return zipf(scenario.path, at, callers(key), model, tokens)
    if scenario.traffic is Traffic.CLAUDE_CODE:
        return claude_code(scenario.path, at, callers(key), model, tokens)
    start = _head(scenario.path, at, f"x-api-key: {key}")
    if scenario.traffic is Traffic.BLANK:
        asked, _ = body(model, scenario.body_bytes - BLANK_BYTES)
        asked = asked[:1] + b" " * BLANK_BYTES + asked[1:]
        return Message(start + b"%d\r\n\r\n" % len(asked), asked, 1, is_blank=True)
    asked, nonce_at = body(model, scenario.body_bytes)
    head = start + b"%d\r\n\r\n" % len(asked)
    unique = Message(head, asked, nonce_at)
    if scenario.traffic is Traffic.UNIQUE:
        return unique
    return Message(head, unique.with_nonce(next(unique.nonces())))


def zipf(path: str, at: Address, keys: tuple[str, ...], model: str, tokens: Tokens) -> Mix:
    """BODIES questions of different lengths; the n-th body, and the n-th caller, 1/n as often."""
    dice = random.Random(14)
    bodies = tuple(
        body(model, size, f"{number:016x}")[0]
        for number, size in enumerate(dice.sample(_SIZES_BYTES, BODIES))
    )
    order = zip(_drawn(dice, len(keys)), _drawn(dice, BODIES), strict=True)
    return Mix(
        heads=tuple(_head(path, at, f"x-api-key: {key}") for key in keys),
        bodies=bodies,
        tokens=tuple(map(tokens, bodies)),
        order=tuple(order),
    )


def _drawn(dice: random.Random, ranks: int) -> list[int]:
    return dice.choices(range(ranks), [1 / rank for rank in range(1, ranks + 1)], k=DRAWS)


def claude_code(path: str, at: Address, keys: tuple[str, ...], model: str, tokens: Tokens) -> Mix:
    """Colleagues who ask for their context after each turn.

    Each time that is a question for each text and each tool, the same for all of them, and their
    own conversation so far, without tools and with all: the difference is what the tools cost.
    """
    tools = [_tool(number) for number in range(_TOOLS)]
    texts = [text(300 * (number + 1)) for number in range(_TEXTS)]
    said: dict[bytes, int] = {}
    order = []

    def ask(caller: int, messages: list[dict[str, Any]], **more: object) -> None:
        asked = msgspec.json.encode({"model": model, "messages": messages, **more})
        order.append((caller, said.setdefault(asked, len(said))))

    for turn in range(1, _TURNS + 1):
        for caller in range(_SESSIONS):
            for one in texts:
                ask(caller, [{"role": "user", "content": one}])
            ask(caller, [{"role": "user", "content": "foo"}])
            for tool in tools:
                ask(caller, [{"role": "user", "content": "foo"}], tools=[tool])
            conversation = list(_conversation(caller, turn))
            ask(caller, conversation)
            ask(caller, conversation, tools=tools)
    return Mix(
        heads=tuple(_head(f"{path}?beta=true", at, *_claude_headers(key)) for key in keys),
        bodies=tuple(said),
        tokens=tuple(map(tokens, said)),
        order=tuple(order),
    )


def _claude_headers(key: str) -> tuple[str, ...]:
    return (
        f"authorization: Bearer {key}",
        f"anthropic-beta: {_BETAS}",
        "x-app: cli",
        "x-stainless-lang: js",
        "x-stainless-runtime: node",
        "x-stainless-retry-count: 0",
    )


def _tool(number: int) -> dict[str, Any]:
    properties = {
        f"field_{one}": {"type": "string", "description": text(60)} for one in range(number + 1)
    }
    schema = {"type": "object", "properties": properties}
    return {"name": f"tool_{number}", "description": text(200), "input_schema": schema}


def _conversation(caller: int, turns: int) -> Iterator[dict[str, Any]]:
    for turn in range(turns):
        yield {"role": "user", "content": f"{caller} asks {turn}. {text(400)}"}
        yield {"role": "assistant", "content": text(1_200)}
    yield {"role": "user", "content": "Go on."}


def head(at: Address, key: str) -> bytes:
    """Of a question as most scenarios ask it, up to the value of ``content-length``."""
    return _head(COUNT_PATH, at, f"x-api-key: {key}")


def _head(path: str, at: Address, *fields: str) -> bytes:
    """A head up to the value of ``content-length``."""
    lines = (
        f"POST {path} HTTP/1.1",
        f"host: {at.host}:{at.port}",
        "accept: application/json",
        "accept-encoding: gzip, deflate",
        "connection: keep-alive",
        "user-agent: tallygate-bench",
        "anthropic-version: 2023-06-01",
        *fields,
        *(f"{name}: {value}" for name, value in at.headers),
        "content-type: application/json",
        "content-length: ",
    )
    return "\r\n".join(lines).encode()
