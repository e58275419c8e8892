"""Providers that cannot be reached, or do not speak in time. Rows U1, U3, U4, U13, P8."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import pytest

from adapters.base import UpstreamRequest
from app.upstream import Upstream
from tests.e2e.exchange import anthropic, model_list, question
from tests.faults.scripted_provider import End, Script, ScriptedProvider, Slices, reply, truly
from tests.faults.upstream_checks import (
    PAIRS,
    Asker,
    fails_and_recovers,
    hanging,
    hit_rates,
    until_closed,
)
from tests.server import Tallygate, free_port

DEADLINE_S, CONNECT_S = 1.0, 5.0
PRECISION_S = 0.1
HUNG = 100
LEAST_RATE = 0.8
"""Of the rate without trouble; what is printed is the claim."""
MODEL, BRIEF, NOBODY = "m", "brief", "nobody"
PATIENT = [f"patient-{turn}" for turn in range(PAIRS)]
"""A provider that has hung so often is asked no more: one for each turn."""
TIMEOUT = (504, "timeout_error")


@pytest.fixture(scope="module")
def asker(start: Callable[..., Tallygate], scripted: ScriptedProvider) -> Iterator[Asker]:
    """One worker, and entries that differ in their patience."""
    models = {
        MODEL: anthropic("m", scripted.url),
        BRIEF: anthropic("brief", scripted.url, timeout=DEADLINE_S),
        **{name: anthropic(name, scripted.url, timeout=4) for name in PATIENT},
        NOBODY: anthropic("nobody", f"http://127.0.0.1:{free_port()}"),
    }
    with Asker(start({"model_list": model_list(**models)})) as one:
        yield one


def test_u1_a_refused_connection_is_a_bad_gateway_at_once(asker: Asker) -> None:
    asker.is_refused(502, "api_error", NOBODY)
    times_s = []
    for _ in range(5):
        started = perf_counter()
        asker.is_refused(502, "api_error", NOBODY)
        times_s.append(perf_counter() - started)
    print(f"u1: refused after {min(times_s) * 1000:.0f} ms at best")
    assert min(times_s) < CONNECT_S + 0.05


SLOW: dict[str, Script] = {
    "head": (Slices(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 900, 1, 0.05),),
    "body": (reply(b"", length=900)[:-2] + b"\r\n", Slices(b" " * 900, 1, 0.05)),
    "chunks": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        Slices(b"1\r\n \r\n" * 900, 6, 0.05),
    ),
    "interim answers": (Slices(b"HTTP/1.1 103 Early\r\n\r\n" * 900, 22, 0.05),),
    "error": (
        b"HTTP/1.1 503 No\r\ncontent-length: 900\r\n\r\n",
        Slices(b" " * 900, 1, 0.05),
    ),
    "after the head": (reply(b"{", length=900), End.SILENCE),
    "silence": (End.SILENCE,),
}


@pytest.mark.parametrize("name", SLOW)
def test_u3_a_slow_answer_ends_at_the_deadline(
    asker: Asker, scripted: ScriptedProvider, name: str
) -> None:
    times_s = []
    for _ in range(3):
        scripted.always(*SLOW[name])
        asked_at_s = perf_counter()
        asker.is_refused(*TIMEOUT, BRIEF)
        times_s.append(perf_counter() - asked_at_s)
    scripted.script = truly
    asker.answers(question(BRIEF))
    print(f"u3: {name}: {', '.join(f'{one * 1000:.0f}' for one in times_s)} ms")
    assert min(times_s) > DEADLINE_S - PRECISION_S
    # A busy machine only adds.
    assert min(times_s) < DEADLINE_S + PRECISION_S
    until_closed(scripted, but=1)


def test_u3_an_answer_after_the_deadline_is_given_to_nobody(
    asker: Asker, scripted: ScriptedProvider
) -> None:
    for _ in range(3):
        scripted.always(DEADLINE_S + 0.3, reply(b'{"input_tokens":666666}'))
        fails_and_recovers(asker, scripted, BRIEF, TIMEOUT)


@pytest.mark.timeout(180)
def test_u4_hits_do_not_notice_requests_that_hang(asker: Asker, scripted: ScriptedProvider) -> None:
    @contextmanager
    def hung() -> Iterator[None]:
        scripted.always(End.SILENCE)
        with hanging(asker.server, next(patient), HUNG, TIMEOUT):
            yield
        until_closed(scripted, but=1)
        scripted.script = truly

    patient = iter(PATIENT)
    known = question(MODEL)
    asker.answers(known)
    rates = hit_rates(asker, known, hung)
    print(f"u4: {HUNG} requests hang: hits at {rates:.1%} of the rate without")
    assert rates >= LEAST_RATE
    for _ in range(20):
        asker.answers(question(MODEL))


def closed_unsaid(received: Any) -> Script:
    return (*truly(received), End.FIN)


@pytest.mark.processes
def test_u13_connections_that_were_closed_between_requests_are_replaced(
    asker: Asker, scripted: ScriptedProvider
) -> None:
    scripted.script = closed_unsaid
    failed = 0
    for _ in range(1_000):
        response = asker.ask(question(MODEL))
        failed += response.status_code != 200
    print(f"u13: {failed} of 1,000 failed")
    assert failed == 0


def test_p8_connections_in_use_and_kept_are_bounded() -> None:
    """Of eight, six may be in use at a time; of the two others each of two hosts keeps one."""

    async def run() -> None:
        async with ScriptedProvider() as one, ScriptedProvider() as other:
            upstream, most = Upstream({}, connections=8, hosts=2), 0
            for provider in (one, other):
                provider.always(0.1, reply(b'{"input_tokens":5}'))
                request = UpstreamRequest("POST", f"{provider.url}/v1", (), b"{}")
                sent = [upstream.send(request, provider.url, 20) for _ in range(24)]
                asked = [asyncio.create_task(asking) for asking in sent]
                while not all(task.done() for task in asked):
                    most = max(most, provider.open_connections)
                    await asyncio.sleep(0.01)
                assert {(await task).status for task in asked} == {200}
                await asyncio.to_thread(until_closed, provider, but=1)
            assert 2 <= most <= 8
            assert (one.open_connections, other.open_connections) == (1, 1)
            await upstream.close()

    asyncio.run(run())
