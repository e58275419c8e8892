"""Providers that refuse, limit or fail for a while. Rows U1, U8, U9 and U10."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
import pytest

from tests.e2e.exchange import (
    BEARER,
    COUNT,
    PATIENCE_S,
    anthropic,
    model_list,
    question,
    refused,
    until,
)
from tests.faults.scripted_provider import End, Received, Script, ScriptedProvider, reply, truly
from tests.faults.upstream_checks import Asker, hit_p99s_ms
from tests.server import Tallygate

WAITS = {
    "seconds": (b"retry-after: 2", 2),
    "none": (b"x: y", 5),
    "date": (b"retry-after: Wed, 21 Oct 2099 07:28:00 GMT", 5),
    "milliseconds": (b"retry-after-ms: 86400000", 5),
    "garbage": (b"retry-after: soon", 5),
    "negative": (b"retry-after: -5", 5),
    "for ever": (b"retry-after: 1000000000", 5),
    "an hour": (b"retry-after: 3600", 60),
}
"""What a limit says, and the seconds after which the provider is asked again."""
FAILING = ("500", "502", "503", "504", "529")
REFUSALS = {
    400: (400, "invalid_request_error"),
    401: (502, "api_error"),
    402: (502, "api_error"),
    403: (502, "api_error"),
    404: (404, "not_found_error"),
    413: (413, "request_too_large"),
}
"""The provider's status, and what the caller is answered."""
BREAKER_FAILURES, PROBE_S = 5, 5.0
OPENED, RETURNED, HALF, KEPT, FAILED = "opened", "returned", "half", "kept", "failed"
EVERY_S = 0.02
"""How often something new is asked beside hits."""
SECRET = "sk-ant-api03-upstream"


@pytest.fixture(scope="module")
def asker(start: Callable[..., Tallygate], scripted: ScriptedProvider) -> Iterator[Asker]:
    """One worker, and an entry for each case: what one has met is no other's business."""
    names = [*WAITS, *FAILING, *map(str, REFUSALS), OPENED, RETURNED, HALF, KEPT, FAILED]
    models = {name: anthropic(name, scripted.url) for name in names}
    with Asker(start({"model_list": model_list(**models)})) as one:
        yield one


def error(status: int | str, *fields: bytes) -> bytes:
    text = f"no; your key {SECRET} is known here"
    body = b'{"type":"error","error":{"type":"%b","message":"%b"}}'
    return reply(
        body % (TYPES.get(int(status), b"api_error"), text.encode()), *fields, status=f"{status} No"
    )


TYPES = {
    400: b"invalid_request_error",
    404: b"not_found_error",
    413: b"request_too_large",
    429: b"rate_limit_error",
    529: b"overloaded_error",
}


@pytest.mark.parametrize("name", WAITS)
def test_u8_a_limit_is_kept(asker: Asker, scripted: ScriptedProvider, name: str) -> None:
    field, wait_s = WAITS[name]
    scripted.always(error(429, field))
    before = len(scripted.requests)
    started = time.monotonic()
    asker.is_refused(429, "rate_limit_error", name)
    for _ in range(20):
        response = asker.is_refused(429, "rate_limit_error", name)
        said_s = float(response.headers["retry-after"])
        assert wait_s - (time.monotonic() - started) <= said_s <= wait_s
        assert response.headers.get("x-should-retry") == ("false" if said_s > 30 else None)
    assert len(scripted.requests) == before + 1
    scripted.script = truly
    if wait_s <= 2:
        time.sleep(wait_s)
        asker.answers(question(name))


@pytest.mark.parametrize("status", FAILING)
def test_u9_a_provider_that_fails_is_hardly_asked(
    asker: Asker, scripted: ScriptedProvider, status: str
) -> None:
    misses = 300
    scripted.always(error(status))
    before = len(scripted.requests)
    for _ in range(misses):
        response = asker.ask(question(status))
        assert response.status_code >= 500
        assert response.headers.get("retry-after", "1").isdigit()
    calls = len(scripted.requests) - before
    print(f"u9: {status}: {calls} calls for {misses} misses")
    assert calls / misses <= 1.2


def test_u9_retries_are_a_share_of_what_is_asked(asker: Asker, scripted: ScriptedProvider) -> None:
    """A provider that fails and answers in turns is never left alone: only the budget bounds it."""
    misses, asked_before = 500, len(scripted.requests)
    turns = iter(range(10**9))

    def script(received: Received) -> Script:
        return truly(received) if next(turns) % 4 == 0 else (error(500),)

    scripted.script = script
    started = time.monotonic()
    statuses = [asker.ask(question(HALF)).status_code for _ in range(misses)]
    took_s = time.monotonic() - started
    calls = len(scripted.requests) - asked_before
    print(f"u9: 3 of 4 answers are errors: {calls} calls for {misses} misses in {took_s:.1f} s")
    assert 200 in statuses
    assert calls - misses <= 0.2 * calls + 3 * (took_s + 1)


@pytest.mark.slow
def test_u9_hits_keep_their_p99_while_a_provider_fails(
    asker: Asker, scripted: ScriptedProvider
) -> None:
    """Beside the same misses, which are answered in one case and refused in the other."""
    known = question(KEPT)
    asker.answers(known)

    @contextmanager
    def missing(script: Callable[[Received], Script], expected: set[int]) -> Iterator[None]:
        scripted.script = script
        over, statuses = threading.Event(), set()

        def miss() -> None:
            with httpx.Client(base_url=asker.server.url, headers=BEARER, timeout=60) as client:
                while not over.wait(EVERY_S):
                    statuses.add(client.post(COUNT, json=question(FAILED)).status_code)

        asking = threading.Thread(target=miss)
        asking.start()
        yield
        over.set()
        asking.join()
        assert statuses <= expected
        assert statuses

    def recovered() -> AbstractContextManager[None]:
        scripted.script = truly
        until(lambda: asker.ask(question(FAILED)).status_code == 200)
        return missing(truly, {200})

    def failing() -> AbstractContextManager[None]:
        return missing(lambda _: (error(500),), {500, 502})

    rounds = hit_p99s_ms(asker, known, recovered, failing)
    calm_ms, failing_ms = (statistics.median(one) for one in zip(*rounds, strict=True))
    more_ms = statistics.median(failed - calm for calm, failed in rounds)
    print(f"u9: p99 of hits {failing_ms:.2f} ms, {calm_ms:.2f} ms where the provider answers")
    assert more_ms <= max(0.1 * calm_ms, 1.0)


@pytest.mark.parametrize("status", REFUSALS)
def test_u10_a_refusal_is_passed_on_once(
    asker: Asker, scripted: ScriptedProvider, status: int
) -> None:
    expected, type_ = REFUSALS[status]
    scripted.always(error(status))
    before = len(scripted.requests)
    asked = question(str(status))
    response = asker.ask(asked)
    refused(response, expected, type_)
    assert SECRET not in response.text
    assert len(scripted.requests) == before + 1
    if expected == 502:
        assert response.headers["x-should-retry"] == "false"
    asker.forgot(asked)
    assert SECRET.encode() not in asker.server.err.read_bytes() + asker.server.out.read_bytes()
    scripted.script = truly
    asker.answers(asked)


def test_u1_a_provider_that_cannot_be_reached_is_probed(
    asker: Asker, scripted: ScriptedProvider
) -> None:
    """What is asked meanwhile is told the true reason at once, and when to come back."""
    scripted.always(End.RESET)
    before = len(scripted.requests)
    for _ in range(BREAKER_FAILURES + 1):
        asker.is_refused(502, "api_error", OPENED)
    opened = len(scripted.requests) - before
    assert opened <= 2 * BREAKER_FAILURES
    started = time.monotonic()
    times_s = []
    while time.monotonic() - started < 2.2 * PROBE_S:
        response = asker.is_refused(502, "api_error", OPENED)
        times_s.append(response.elapsed.total_seconds())
        assert 1 <= float(response.headers.get("retry-after", 1)) <= PROBE_S
    probes = len(scripted.requests) - before - opened
    scripted.script = truly
    print(f"u1: {opened} calls until it opened, {probes} probes for {len(times_s)} misses in 11 s")
    assert 1 <= probes <= 3 * 2  # each of them with the one retry at most
    assert sorted(times_s)[len(times_s) // 2] < 0.1
    known = question(OPENED)
    deadline = time.monotonic() + PATIENCE_S
    back_s = time.monotonic()
    while asker.ask(known).status_code != 200:
        assert time.monotonic() < deadline
    back_s = time.monotonic() - back_s
    print(f"u1: back {back_s:.1f} s after the provider")
    asker.answers(known, "cache")
