"""Who of a pool is asked, whatever the entries answer, in whatever order, to however many at once:
against a plain model, with the upstream's answers written down and the clock injected.
"""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Struct

from adapters.base import Count, CountRequest, Deployment, Endpoint, UpstreamError, UpstreamRequest
from app.budget import Budgets, OverBudgetError
from app.config_sections import Limits
from app.dispatch import Dispatcher
from app.leader import Journey, Outcome
from app.limits import Deployments
from app.routing import Pool, pooled

LIMITS = Limits(breaker_failures=2)
PATIENT_S = 1000.0
TURNS_OF_THE_LOOP = 20
AGAIN = [
    UpstreamError(500, "api_error", "", "status 500", 500),
    UpstreamError(502, "api_error", "", "unreachable", broken=True),
]
"""What the same entry may be asked again after."""
ELSEWHERE = [
    UpstreamError(504, "timeout_error", "", "no answer in time"),
    UpstreamError(502, "api_error", "", "malformed", upstream_status=200),
    UpstreamError(403, "permission_error", "", "bad key", 403, credential_fault=True),
    UpstreamError(404, "not_found_error", "", "not here", 404, model_not_counted=True),
    UpstreamError(429, "rate_limit_error", "", "limited", 429),
]
"""What only another entry may do better."""
FINAL = UpstreamError(400, "invalid_request_error", "", "bad request", 400)
UNSENDABLE = UpstreamError(400, "invalid_request_error", "", "cannot be expressed")


class Asked(Struct, eq=False):
    """One question that is out with one entry."""

    deployment: Deployment
    number: int
    answer: asyncio.Future[Outcome]


class Question(Struct, eq=False):
    """One question, and what has become of it so far."""

    task: asyncio.Task[Outcome] | None = None
    asked: list[str] = []
    over_budget: set[str] = set()
    heard: list[UpstreamError] = []
    again: set[str] = set()
    counted_by: tuple[int, str] | None = None
    sendable: bool = True
    is_final: bool = False


class ByHand(Budgets):
    """Budgets of which some have no turn left."""

    def __init__(self, pool: "PoolMachine") -> None:
        super().__init__({}, lambda _: None)
        self._pool = pool

    def wait_s(self, deployment: Deployment) -> float:
        return float(deployment.name in self._pool.without_turns)

    async def take(self, deployment: Deployment, until: float) -> None:
        del until
        if deployment.name in self._pool.without_turns:
            raise OverBudgetError(deployment, 7.0)


class PoolMachine(RuleBasedStateMachine):
    @initialize(weights=st.lists(st.sampled_from([1, 2, 5]), min_size=1, max_size=4))
    def begin(self, weights: list[int]) -> None:
        self.now = 1000.0
        self.members = tuple(
            Deployment(
                f"a[{at}]", "a", "anthropic", Endpoint("m", "http://x"), 30.0, rpm=60, weight=weight
            )
            for at, weight in enumerate(weights)
        )
        self.states = Deployments(self.members, LIMITS, lambda: self.now)
        self.without_turns: set[str] = set()
        leader: Any = self
        self.dispatcher = Dispatcher(leader, self.states, ByHand(self), chance=lambda: 0.0)
        self.loop = asyncio.new_event_loop()
        self.questions: list[Question] = []
        self.out: list[Asked] = []

    # What the dispatcher sees of the world.

    async def write(
        self, count: CountRequest, deployment: Deployment, _: float
    ) -> UpstreamRequest | Outcome:
        """Hear whom it has chosen: nobody of the others was the better choice."""
        question = self.questions[int(count.body)]
        again = deployment.name in question.asked
        if again:
            assert len(question.asked) == len(set(question.asked)), "once more, and once only"
            assert deployment.name in question.again
        used = {*question.asked, *question.over_budget}
        open_ = [
            one
            for one in self.members
            if self.is_open(one)
            and (one.name not in used or (again and one.name in question.again))
        ]
        assert deployment in open_
        assert self.busy(deployment) == min(self.busy(one) for one in open_)
        if not question.sendable:
            question.is_final = True
            return Outcome(error=UNSENDABLE)
        if deployment.name in self.without_turns:
            question.over_budget.add(deployment.name)
        return UpstreamRequest("POST", "http://x/", (), count.body)

    async def lead(
        self, request: UpstreamRequest, deployment: Deployment, _: float, __: Journey
    ) -> Outcome:
        """Ask: the answer comes when the machine says so."""
        self.questions[int(request.body)].asked.append(deployment.name)
        asked = Asked(deployment, int(request.body), self.loop.create_future())
        self.out.append(asked)
        return await asked.answer

    def is_open(self, deployment: Deployment) -> bool:
        return self.states.of(deployment).closed_s == 0

    def busy(self, deployment: Deployment) -> tuple[bool, float]:
        out = sum(one.deployment is deployment for one in self.out)
        return deployment.name in self.without_turns, out / deployment.weight

    # What happens.

    @rule(sendable=st.integers(0, 9).map(bool))
    def come(self, sendable: bool) -> None:
        count = CountRequest(b"%d" % len(self.questions), "2023-06-01")
        question = Question(sendable=sendable)
        self.questions.append(question)
        ask = self.dispatcher.ask(
            count, Pool.of(*self.members), PATIENT_S, Journey(), as_caller=False
        )
        question.task = self.loop.create_task(ask)
        self.go_on()

    def answer(self, at: int, outcome: Outcome) -> None:
        asked = self.out.pop(at % len(self.out))
        question = self.questions[asked.number]
        if outcome.error is not None:
            question.heard.append(outcome.error)
            question.is_final |= outcome.error is FINAL
            if outcome.error in AGAIN:
                question.again.add(asked.deployment.name)
        else:
            question.counted_by = (asked.number + 1, asked.deployment.name)
            outcome = Outcome(Count(asked.number + 1), deployment=asked.deployment)
        asked.answer.set_result(outcome)
        self.go_on()

    @precondition(lambda self: self.out)
    @rule(at=st.integers(0, 9))
    def count(self, at: int) -> None:
        self.answer(at, Outcome(Count(1)))

    @precondition(lambda self: self.out)
    @rule(at=st.integers(0, 9), error=st.sampled_from([*AGAIN, *AGAIN, *ELSEWHERE, FINAL]))
    def fail(self, at: int, error: UpstreamError) -> None:
        self.answer(at, Outcome(error=error))

    @rule(member=st.integers(0, 3))
    def change_turns(self, member: int) -> None:
        """An entry uses up its budget, or has turns again."""
        if member < len(self.members):
            self.without_turns ^= {self.members[member].name}

    @rule(seconds=st.sampled_from([0.25, 1, 5, 60]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def go_on(self) -> None:
        for _ in range(TURNS_OF_THE_LOOP):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        for question in self.questions:
            if question.task is not None and question.task.done():
                self.judge(question, question.task.result())
                question.task = None

    def judge(self, question: Question, outcome: Outcome) -> None:
        if question.counted_by is not None:
            tokens, name = question.counted_by
            assert outcome.counted == Count(tokens)
            assert outcome.deployment is not None
            assert outcome.deployment.name == name
            return
        error = outcome.error
        assert error is not None
        if not question.sendable and not question.asked and question.is_final:
            assert error.reason == UNSENDABLE.reason
        elif question.heard:
            told = {one.reason for one in question.heard}
            told |= {f"over the rpm of {name}" for name in question.over_budget}
            assert error.reason in told
        else:
            # Our bad key is made the operator's 502 where the answer is written.
            assert error.credential_fault or error.status in {429, 500, 502, 504}
            assert "retry-after" in dict(error.headers)
        retried = len(question.asked) > len(set(question.asked))
        if retried:
            assert ("x-should-retry", "false") in error.headers
        if not question.is_final:  # nobody was left
            used = {*question.asked, *question.over_budget}
            assert not any(self.is_open(one) and one.name not in used for one in self.members)

    @invariant()
    def what_is_out_is_counted(self) -> None:
        for one in getattr(self, "members", ()):
            out = sum(asked.deployment is one for asked in self.out)
            assert self.states.of(one).in_flight == out

    @invariant()
    def nobody_is_forgotten(self) -> None:
        if hasattr(self, "out"):
            open_ = sum(question.task is not None for question in self.questions)
            assert open_ == len(self.out)

    def teardown(self) -> None:
        """Whatever has been asked is answered in the end, and nothing is left in flight."""
        if not hasattr(self, "out"):
            return
        while self.out:
            self.fail(0, ELSEWHERE[0])
        assert not any(question.task for question in self.questions)
        assert not any(self.states.of(one).in_flight for one in self.members)
        self.loop.close()


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@given(counters=st.lists(st.sampled_from("abc"), max_size=8))
def test_entries_with_other_counters_are_pools_in_the_order_of_the_file(
    counters: list[str],
) -> None:
    entries = tuple(
        Deployment(f"m[{at}]", "m", "anthropic", Endpoint(counter, "http://x"), 30.0)
        for at, counter in enumerate(counters)
    )
    pools = pooled(entries)
    assert [pool.first.endpoint.upstream_model for pool in pools] == list(dict.fromkeys(counters))
    for pool in pools:
        counter = pool.first.endpoint.upstream_model
        expected = [one for one in entries if one.endpoint.upstream_model == counter]
        assert list(pool.members) == expected
