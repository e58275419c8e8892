"""The scenarios: what is asked of whom, what must come back, what the figure is compared with."""

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from bench.load import NONCE_BYTES, Address, Load, Message, Run, WrongAnswerError, run

COUNT_PATH = "/v1/messages/count_tokens"
HTTPX_PATH = "/plain-httpx"
BARE_TOKENS = 14
PROVIDER_VARIABLE = "BENCH_PROVIDER_URL"
"""Environment variable that tells the bare Sanic where the provider is."""
HERD_DELAY_S = 0.4
_SENTENCE = "The gatekeeper counts what passes through the gate and remembers each answer. "


class Server(StrEnum):
    """Who is asked."""

    PROXY = "proxy"
    BARE = "bare"


class Upstream(StrEnum):
    """How many calls the provider must see: a hit that asks is none, nor a miss that does not."""

    NONE = "none at all"
    EACH = "one for each answer"
    ONE = "one in all"


class Scenario(Struct, frozen=True, kw_only=True):
    """One row of the table."""

    name: str
    says: str
    server: Server
    upstream: Upstream
    path: str = COUNT_PATH
    body_bytes: int = 300
    is_unique: bool = False
    at_once: int = 0
    """This many connections ask once, together, a question that nobody has asked before."""
    compared_with: tuple[str, ...] = ()
    """Scenarios of the same round that this one is divided by."""


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="bare",
            says="bare Sanic answers a constant",
            server=Server.BARE,
            upstream=Upstream.NONE,
        ),
        Scenario(
            name="repeat",
            says="one question again and again",
            server=Server.PROXY,
            upstream=Upstream.NONE,
            compared_with=("bare",),
        ),
        Scenario(
            name="bare-12k",
            says="bare Sanic receives 12 kB, answers a constant",
            server=Server.BARE,
            upstream=Upstream.NONE,
            body_bytes=12_000,
        ),
        Scenario(
            name="repeat-12k",
            says="one question of 12 kB again and again",
            server=Server.PROXY,
            upstream=Upstream.NONE,
            body_bytes=12_000,
            compared_with=("bare-12k",),
        ),
        Scenario(
            name="miss-plain-httpx",
            says="bare Sanic asks the provider with httpx.AsyncClient",
            server=Server.BARE,
            upstream=Upstream.EACH,
            path=HTTPX_PATH,
            is_unique=True,
            compared_with=("bare",),
        ),
        Scenario(
            name="miss",
            says="no two questions alike, instant provider",
            server=Server.PROXY,
            upstream=Upstream.EACH,
            is_unique=True,
            compared_with=("bare", "miss-plain-httpx"),
        ),
        Scenario(
            name="herd",
            says=f"200 connections, one cold question, provider takes {HERD_DELAY_S:g} s",
            server=Server.PROXY,
            upstream=Upstream.ONE,
            at_once=200,
        ),
    )
}


class Provider(Protocol):
    """What a scenario needs of the simulated provider."""

    def restart(self, delay_s: float) -> None:
        """Forget all calls; from now on take this long for each."""
        ...

    def calls(self) -> int:
        """Questions it has been asked since."""
        ...


class Always(Struct, frozen=True):
    """The right answer when it does not depend on the body."""

    tokens: int

    def __call__(self, _body: bytes) -> int:
        return self.tokens


class Place(Struct, frozen=True, kw_only=True):
    """Where and as whom to ask. Without a ``provider`` its calls go unchecked."""

    addresses: dict[Server, Address]
    key: str
    model: str
    tokens: Callable[[bytes], int]
    """The right answer of the proxy to a body."""
    provider: Provider | None


def body(model: str, size: int) -> tuple[bytes, int]:
    """A question of ``size`` bytes (or as few as there can be), and where its nonce stands."""
    zeros = "0" * NONCE_BYTES
    asked = msgspec.json.encode(
        {"model": model, "messages": [{"role": "user", "content": f"{zeros} "}]}
    )
    nonce_at = asked.index(zeros.encode())
    text_at, missing = nonce_at + NONCE_BYTES + 1, max(0, size - len(asked))
    text = (_SENTENCE * (missing // len(_SENTENCE) + 1))[:missing].encode()
    return asked[:text_at] + text + asked[text_at:], nonce_at


def message(scenario: Scenario, place: Place) -> Message:
    """The request of a scenario, with the headers that a client usually sends."""
    asked, nonce_at = body(place.model, scenario.body_bytes)
    address = place.addresses[scenario.server]
    head = (
        f"POST {scenario.path} HTTP/1.1\r\n"
        f"host: {address.host}:{address.port}\r\n"
        "accept: application/json\r\n"
        "accept-encoding: gzip, deflate\r\n"
        "connection: keep-alive\r\n"
        "user-agent: tallygate-bench\r\n"
        "anthropic-version: 2023-06-01\r\n"
        f"x-api-key: {place.key}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(asked)}\r\n\r\n"
    ).encode()
    unique = Message(head, asked, nonce_at)
    if scenario.is_unique:
        return unique
    return Message(head, unique.with_nonce(next(unique.nonces())))


def play(
    scenario: Scenario, place: Place, *, connections: int, seconds: float, processes: int = 1
) -> Run:
    """Run one slice of a scenario. Raises WrongAnswerError when it was not what it says it is."""
    is_bare = scenario.server is Server.BARE and scenario.path == COUNT_PATH
    tokens = Always(BARE_TOKENS) if is_bare else place.tokens
    asked = message(scenario, place)
    load = Load(
        address=place.addresses[scenario.server],
        message=asked,
        tokens=tokens if scenario.is_unique else Always(tokens(asked.body)),
        connections=scenario.at_once or connections,
        seconds=0 if scenario.at_once else seconds,
    )
    if scenario.upstream is Upstream.NONE:
        run(replace(load, connections=1, seconds=0))
    if scenario.at_once:
        processes = 1  # only one process can ask all at the same time
    if place.provider is None:
        return run(load, processes)
    place.provider.restart(HERD_DELAY_S if scenario.at_once else 0)
    result = run(load, processes)
    calls = place.provider.calls()
    expected = {Upstream.NONE: 0, Upstream.EACH: result.answers, Upstream.ONE: 1}
    if calls != expected[scenario.upstream]:
        raise WrongAnswerError(
            f"{result.answers} answers took {calls} calls to the provider;"
            f" there should be {scenario.upstream}"
        )
    return result
