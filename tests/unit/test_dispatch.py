"""Who of a pool is asked, and who once more: with a leader whose answers are written down."""

import asyncio
import time
from typing import Any

import pytest

from adapters.base import Count, CountRequest, Deployment, Endpoint, UpstreamError, UpstreamRequest
from app.budget import Budgets
from app.config_sections import Limits
from app.dispatch import Dispatcher
from app.leader import Journey, Outcome
from app.limits import Deployments
from app.routing import Pool

A, B = (
    Deployment(name, "alias", "anthropic", Endpoint("m", "http://x"), 30.0, rpm=60)
    for name in ("a", "b")
)
UNSENDABLE = Outcome(error=UpstreamError(400, "invalid_request_error", "", "cannot be expressed"))
WRITTEN = UpstreamRequest("POST", "http://x/", (), b"")
ASKED = CountRequest(b"{}", "2023-06-01")
FAILED = UpstreamError(503, "api_error", "", "status 503", 503)
BAD_KEY = UpstreamError(401, "authentication_error", "", "bad key", 401, credential_fault=True)
LATE = UpstreamError(504, "timeout_error", "", "no answer in time")
NOT_COUNTED = UpstreamError(404, "not_found_error", "", "not here", 404, model_not_counted=True)


class Script:
    """A leader that answers for each deployment what is written down, the last one for ever."""

    def __init__(self, **errors: list[UpstreamError | None]) -> None:
        self.asked: list[str] = []
        self.unsendable: list[Outcome] = []
        self._errors = errors

    async def write(self, *_: Any) -> UpstreamRequest | Outcome:
        return self.unsendable.pop() if self.unsendable else WRITTEN

    async def lead(self, _request: Any, deployment: Deployment, *_: Any) -> Outcome:
        self.asked.append(deployment.name)
        errors = self._errors[deployment.name]
        error = errors.pop(0) if len(errors) > 1 else errors[0]
        counted = Count(7) if error is None else None
        return Outcome(counted, error, deployment=deployment)


class Queue(Budgets):
    """Turns that come after a while."""

    def __init__(self, wait_s: float) -> None:
        super().__init__({}, lambda _: None)
        self._wait = wait_s

    async def take(self, deployment: Deployment, until: float) -> None:
        del deployment, until
        await asyncio.sleep(self._wait)


class Turns(Budgets):
    """Turns that come at once, and are counted."""

    def __init__(self) -> None:
        super().__init__({}, lambda _: None)
        self.taken = 0

    async def take(self, deployment: Deployment, until: float) -> None:
        del deployment, until
        self.taken += 1


def dispatched(
    script: Script,
    *members: Deployment,
    wait_s: float = 0.0,
    timeout_s: float = 5.0,
    times: int = 1,
) -> tuple[list[Outcome], Deployments]:
    states = Deployments(members, Limits(), time.monotonic)
    leader: Any = script

    async def run() -> list[Outcome]:
        dispatcher = Dispatcher(leader, states, Queue(wait_s), chance=lambda: 0.0)
        return [
            await dispatcher.ask(ASKED, Pool.of(*members), timeout_s, Journey(), as_caller=False)
            for _ in range(times)
        ]

    return asyncio.run(run()), states


def test_what_cannot_be_sent_spends_no_turn_and_no_probe() -> None:
    """Nobody waits with it, whatever its number; the next one that can be sent is the probe."""
    script, limits, now = Script(a=[FAILED]), Limits(), [1000.0]
    states = Deployments((A,), limits, lambda: now[0])
    leader: Any = script
    turns = Turns()
    dispatcher = Dispatcher(leader, states, turns)

    async def ask() -> Outcome:
        return await dispatcher.ask(ASKED, Pool.of(A), 5.0, Journey(), as_caller=False)

    async def run() -> None:
        while not states.of(A).closed_s:
            await ask()
        now[0] += limits.breaker_probe_s
        spent, asked = turns.taken, len(script.asked)
        script.unsendable = [UNSENDABLE] * 100
        for _ in range(100):
            assert (await ask()).error is UNSENDABLE.error
            assert not states.of(A).closed_s
        assert (turns.taken, len(script.asked)) == (spent, asked)
        await ask()
        assert (turns.taken, len(script.asked)) == (spent + 1, asked + 1)
        assert states.of(A).closed_s

    asyncio.run(run())


@pytest.mark.parametrize("first", [BAD_KEY, LATE], ids=["refused our key", "was late"])
def test_only_who_may_answer_now_is_asked_once_more(first: UpstreamError) -> None:
    script = Script(a=[first], b=[FAILED])
    (outcome,), _ = dispatched(script, A, B)
    assert script.asked == ["a", "b", "b"]
    assert outcome.error is not None
    assert ("x-should-retry", "false") in outcome.error.headers


def test_who_opens_while_one_is_asked_again_is_asked_too() -> None:
    states = Deployments((A, B), Limits(), time.monotonic)
    limited = UpstreamError(429, "rate_limit_error", "", "limited", 429)
    for _ in range(Limits().breaker_failures):
        states.of(B).take_off()
        states.of(B).land(FAILED)
    assert states.of(B).closed_s

    class Opening(Script):
        async def lead(self, request: Any, deployment: Deployment, *rest: Any) -> Outcome:
            outcome = await super().lead(request, deployment, *rest)
            if len(self.asked) == 2:  # another question's answer comes just then
                states.of(B).take_off()
                states.of(B).land(None)
            return outcome

    script: Any = Opening(a=[FAILED, limited], b=[None])
    dispatcher = Dispatcher(script, states, Queue(0.0), chance=lambda: 0.0)
    ask = dispatcher.ask(ASKED, Pool.of(A, B), 5.0, Journey(), as_caller=False)
    outcome = asyncio.run(ask)
    assert script.asked == ["a", "a", "b"]
    assert (outcome.counted, outcome.deployment) == (Count(7), B)


def test_another_entry_may_count_what_one_does_not() -> None:
    script = Script(a=[NOT_COUNTED], b=[None])
    (outcome,), _ = dispatched(script, A, B)
    assert script.asked == ["a", "b"]
    assert outcome.counted == Count(7)
    assert outcome.deployment is B


def test_a_model_is_not_counted_when_every_entry_says_so() -> None:
    (outcome,), _ = dispatched(Script(a=[NOT_COUNTED], b=[NOT_COUNTED]), A, B)
    assert outcome.error is not None
    assert outcome.error.model_not_counted


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_one_that_fails_leaves_it_open_whether_a_model_is_counted(order: str) -> None:
    errors: dict[str, list[UpstreamError | None]] = {order[0]: [NOT_COUNTED], order[1]: [LATE]}
    script = Script(**errors)
    (outcome,), _ = dispatched(script, A, B)
    assert outcome.error is not None
    assert outcome.error.status == 504
    assert not outcome.error.model_not_counted


def test_what_was_not_asked_again_is_not_said_to_be() -> None:
    """1 it fails, and is to be asked once more; 2 others' failures close it during the pause."""
    states = Deployments((A,), Limits(), time.monotonic)
    leader: Any = Script(a=[FAILED])
    dispatcher = Dispatcher(leader, states, Turns(), chance=lambda: 0.2)
    journey = Journey()

    async def run() -> Outcome:
        asked = dispatcher.ask(ASKED, Pool.of(A), 5.0, journey, as_caller=False)
        task = asyncio.create_task(asked)
        await asyncio.sleep(0)
        for _ in range(Limits().breaker_failures):
            states.of(A).take_off()
            states.of(A).land(FAILED)
        return await task

    outcome = asyncio.run(run())
    assert leader.asked == ["a"]
    assert outcome.error == FAILED
    assert not journey.retried


def test_who_has_no_time_left_to_ask_blames_nobody() -> None:
    script = Script(a=[None])
    (outcome,), _ = dispatched(script, A, timeout_s=-1.0)
    assert not script.asked
    assert outcome.error is not None
    assert (outcome.error.status, outcome.error.type) == (504, "timeout_error")


def test_time_that_went_in_our_own_queue_is_no_failure_of_theirs() -> None:
    calls = 2 * Limits().breaker_failures
    script = Script(a=[LATE])
    _, states = dispatched(script, A, wait_s=0.06, timeout_s=0.1, times=calls)
    assert len(script.asked) == calls
    assert not states.of(A).closed_s


def test_one_that_is_late_though_it_had_its_time_is_left_alone() -> None:
    script = Script(a=[LATE])
    _, states = dispatched(script, A, timeout_s=0.1, times=2 * Limits().breaker_failures)
    assert len(script.asked) == Limits().breaker_failures
    assert states.of(A).closed_s


@pytest.mark.parametrize("looks", range(1, 8))
def test_one_that_opens_while_it_is_refused_is_refused_for_its_true_reason(looks: int) -> None:
    """Or it is asked: it is closed for so many looks, and open from then on."""
    limited = UpstreamError(429, "rate_limit_error", "", "status 429", 429)
    script, now = Script(a=[limited, None]), [1000.0]

    def clock() -> float:
        nonlocal looks
        if len(script.asked) == 1:
            looks -= 1
        return now[0] if looks >= 0 else now[0] + 60

    states = Deployments((A,), Limits(), clock)
    leader: Any = script
    dispatcher = Dispatcher(leader, states, Queue(0.0), chance=lambda: 0.0)

    async def ask() -> Outcome:
        return await dispatcher.ask(ASKED, Pool.of(A), 5.0, Journey(), as_caller=False)

    asyncio.run(ask())
    outcome = asyncio.run(ask())
    assert outcome.counted or (outcome.error and outcome.error.status == 429)
