"""Plays one slice of a scenario, and makes sure that it was what it says it is."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from bench import h2load, wrk
from bench.answers import WrongAnswerError
from bench.beside import Beside
from bench.load import Run, run
from bench.named import GOOGLE_ALIASES
from bench.questions import Message, Mix
from bench.scenarios import (
    BARE_TOKENS,
    COUNT_PATH,
    HERD_DELAY_S,
    NGINX_TOKENS,
    SLOW_S,
    Fault,
    Scenario,
    Server,
    Upstream,
)
from bench.slice import Address, Load
from bench.traffic import InGoogleForm, message

PRIMING_CONNECTIONS = 20
SOAK_PARTS = 10
LONG_SLICE_S = 5.0


class Engine(StrEnum):
    """Who asks."""

    OWN = "own"
    WRK = "wrk"
    H2LOAD = "h2load"


class Provider(Protocol):
    """What a scenario needs of the simulated provider."""

    def restart(self, delay_s: float) -> None:
        """Forget all calls; from now on take this long for each."""
        ...

    def behave(self, model: str, *, status: int | None = None, delay_s: float = 0) -> None:
        """Refuse questions about a model, or take this long for them, until the next restart."""
        ...

    def calls(self) -> int:
        """Questions it has been asked since."""
        ...


class Hits(Struct, frozen=True):
    """What a proxy has counted so far."""

    all: float
    by_lane: float


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
    scratch: Path
    cpu_s: Callable[[Server], float | None] = lambda _server: None
    """Processor time that the workers of a server have used so far."""
    hits: Callable[[Server], Hits | None] = lambda _server: None
    rss_bytes: Callable[[Server], tuple[int, ...] | None] = lambda _server: None
    """Resident memory of each worker of a server."""


class How(Struct, frozen=True, kw_only=True):
    """How hard to ask, and with what."""

    connections: int
    seconds: float
    processes: int = 1
    engine: Engine = Engine.OWN
    rate: float = 0
    """Of an open loop, in requests per second."""
    soak_s: float = 60


def slices(scenario: Scenario, place: Place, how: How) -> Iterator[Run]:
    """Play a scenario once: in one slice, or in as many as a long one takes."""
    if scenario.is_soak:
        part = replace(how, seconds=how.soak_s / SOAK_PARTS)
        yield from (play(scenario, place, part) for _ in range(SOAK_PARTS))
    elif scenario.until_answers:
        left = scenario.until_answers
        while left > 0:
            yield (run := play(scenario, place, replace(how, seconds=LONG_SLICE_S)))
            left -= run.answers
    else:
        yield play(scenario, place, how)


def play(scenario: Scenario, place: Place, how: How) -> Run:
    """Run one slice of a scenario. Raises WrongAnswerError when it was not what it says it is."""
    load = _load(scenario, place, how)
    if scenario.upstream is Upstream.NONE:
        prime(load)
    if place.provider is not None:
        place.provider.restart(HERD_DELAY_S if scenario.at_once else 0)
    beside = _beside(scenario, place)
    hits = place.hits(scenario.server)
    cpu_s = place.cpu_s(scenario.server)
    with beside.asking() if beside else nullcontext():
        if how.engine is Engine.WRK:
            result = wrk.run(load, place.scratch)
        elif how.engine is Engine.H2LOAD:
            result = h2load.run(load, place.scratch)
        else:
            # Only one process can ask all at the same time, or at a steady rate.
            result = run(load, 1 if scenario.at_once or scenario.is_open else how.processes)
    result.server_cpu_s = _difference(cpu_s, place.cpu_s(scenario.server))
    result.lane_share = _lane_share(hits, place.hits(scenario.server))
    result.rss_bytes = place.rss_bytes(scenario.server)
    result.ended_s = time.perf_counter()
    if how.engine is not Engine.OWN:
        wrk.check_sizes(result, load.connections, prime(load))
    if place.provider is not None:
        _check_calls(scenario, result.answers, place.provider.calls(), beside)
    return result


def prime(load: Load) -> tuple[int, int]:
    """Ask each question once and judge the answer; return the sizes of known answers.

    Raises WrongAnswerError.
    """
    once = replace(load, connections=1, seconds=0, rate=0)
    if isinstance(load.message, Mix):
        bodies = len(load.message.bodies)
        few = min(PRIMING_CONNECTIONS, bodies)
        once = replace(
            once, message=load.message.once(), connections=few, times=math.ceil(bodies / few)
        )
    sizes = run(once).answer_bytes
    return min(sizes, default=0), max(sizes, default=0)


def _load(scenario: Scenario, place: Place, how: How) -> Load:
    tokens = place.tokens
    if scenario.server is Server.NGINX:
        tokens = Always(NGINX_TOKENS)
    elif scenario.server is Server.RAW or (scenario.server.is_bare and scenario.path == COUNT_PATH):
        tokens = Always(BARE_TOKENS)
    elif scenario.alias in GOOGLE_ALIASES:
        tokens = InGoogleForm(tokens)
    address = place.addresses[scenario.server]
    asked = message(scenario, address, place.key, scenario.alias or place.model, tokens)
    if isinstance(asked, Message) and not asked.is_unique:
        tokens = Always(tokens(asked.body))  # a target is asked for what is right, once
    return Load(
        address=address,
        message=asked,
        tokens=tokens,
        connections=scenario.at_once or scenario.connections or how.connections,
        seconds=0 if scenario.at_once else how.seconds,
        rate=how.rate,
    )


def _beside(scenario: Scenario, place: Place) -> Beside | None:
    if scenario.beside is None:
        return None
    beside = Beside(scenario.beside, place.addresses[scenario.server], place.key, place.tokens)
    if place.provider is not None and scenario.beside is Fault.SLOW:
        place.provider.behave(scenario.beside.alias, delay_s=SLOW_S)
    elif place.provider is not None and scenario.beside is Fault.LIMITED:
        place.provider.behave(scenario.beside.alias, status=429)
    return beside


def _check_calls(scenario: Scenario, answers: int, calls: int, beside: Beside | None) -> None:
    if scenario.beside is Fault.LIMITED:
        return  # it is left alone for a while each time it has refused
    expected = {Upstream.NONE: 0, Upstream.EACH: answers, Upstream.ONE: 1}
    if calls != expected[scenario.upstream] + (beside.asked if beside else 0):
        raise WrongAnswerError(
            f"{answers} answers took {calls} calls to the provider;"
            f" there should be {scenario.upstream}"
        )


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _lane_share(before: Hits | None, after: Hits | None) -> float | None:
    if before is None or after is None or after.all == before.all:
        return None
    return (after.by_lane - before.by_lane) / (after.all - before.all)
