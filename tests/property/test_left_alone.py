"""When a deployment is left alone, by all workers together, whatever is answered and in what order:
against a plain model, on an injected clock.
"""

import itertools
import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Struct

from adapters.base import Deployment, Endpoint, UpstreamError
from app.config_sections import Limits
from app.limits import CELLS, COOLDOWN_S, Deployments, State

WORKERS = 3
LIMITS = Limits()
ONE = Deployment("a[0]", "a", "anthropic", Endpoint("m", "http://x"), 30.0)
GENERAL = {504: "timeout_error", 529: "overloaded_error"}

FAILURES = [
    UpstreamError(500, "api_error", "", "status 500", 500),
    UpstreamError(529, "overloaded_error", "", "status 503", 503),
    UpstreamError(502, "api_error", "", "unreachable", broken=True),
    UpstreamError(502, "api_error", "", "malformed", upstream_status=200),
    UpstreamError(504, "timeout_error", "", "no answer in time"),
    UpstreamError(403, "permission_error", "", "bad key", 403, credential_fault=True),
]
ANSWERS = [
    None,
    UpstreamError(400, "invalid_request_error", "", "bad request", 400),
    UpstreamError(404, "not_found_error", "", "unknown", 404, model_not_counted=True),
]
UNHEARD = [
    UpstreamError(499, "api_error", "", "cancelled"),
    UpstreamError(500, "api_error", "", "KeyError"),
]
WAITS_S = {None: COOLDOWN_S, "": COOLDOWN_S, "soon": COOLDOWN_S, "-3": COOLDOWN_S}
WAITS_S |= {"0": 0, "0.5": 0.5, "7": 7, "59": 59, "60": 60, "3600": 60}
workers = st.integers(0, WORKERS - 1)
PASSES_S = st.one_of(st.integers(0, 8), st.integers(0, 280)).map(lambda quarters: quarters / 4)
"""Quarters, so that times are added without a rounding."""


class Flight(Struct, eq=False):
    worker: int
    error: UpstreamError | None = None


def limited(retry_after: str | None) -> UpstreamError:
    headers = () if retry_after is None else (("retry-after", retry_after),)
    return UpstreamError(429, "rate_limit_error", "", "limited", 429, headers=headers)


def shown(error: UpstreamError) -> tuple[int, bool]:
    """What workers tell each other: the status, and whether it was our credential."""
    return 502 if error.credential_fault else error.status, error.credential_fault


class LeftAlone(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.now = 1000.0
        cells = [0.0] * CELLS
        self.states: list[State] = [
            Deployments((ONE,), LIMITS, lambda: self.now, cells).of(ONE) for _ in range(WORKERS)
        ]
        self.flights: list[Flight] = []
        # The model: what the operator's page says, in as many words.
        self.in_a_row = [0] * WORKERS
        self.cools_until = 0.0
        self.is_open = False
        self.asked_again_at = 0.0
        self.probes: list[float] = []
        self.last_failure: UpstreamError | None = None
        self.own_failure: list[UpstreamError | None] = [None] * WORKERS

    def left_alone_s(self) -> float:
        until = max(self.cools_until, self.asked_again_at if self.is_open else 0.0)
        return max(until - self.now, 0.0)

    @rule(worker=workers)
    def ask(self, worker: int) -> None:
        """A question goes, if one may; it may never land."""
        if self.states[worker].closed_s > 0:
            return
        self.states[worker].take_off()
        self.flights.append(Flight(worker))
        if self.is_open:
            self.probes.append(self.now)
            self.asked_again_at = self.now + LIMITS.breaker_probe_s

    def land(self, at: int, error: UpstreamError | None) -> int:
        flight = self.flights.pop(at % len(self.flights))
        self.states[flight.worker].land(error)
        return flight.worker

    @precondition(lambda self: self.flights)
    @rule(at=st.integers(0, 30), error=st.sampled_from(FAILURES))
    def fail(self, at: int, error: UpstreamError) -> None:
        worker = self.land(at, error)
        self.in_a_row[worker] += 1
        self.own_failure[worker] = error
        if self.is_open or self.in_a_row[worker] >= LIMITS.breaker_failures:
            self.is_open, self.last_failure = True, error
            self.asked_again_at = self.now + LIMITS.breaker_probe_s

    @rule(worker=workers, error=st.sampled_from(FAILURES))
    def fail_five_times(self, worker: int, error: UpstreamError) -> None:
        """What chance alone would seldom bring about."""
        for _ in range(LIMITS.breaker_failures):
            before = len(self.flights)
            self.ask(worker)
            if len(self.flights) > before:
                self.fail(before, error)

    @precondition(lambda self: self.flights)
    @rule(at=st.integers(0, 30), error=st.sampled_from(ANSWERS))
    def answer(self, at: int, error: UpstreamError | None) -> None:
        self.recover(self.land(at, error))

    @precondition(lambda self: self.flights)
    @rule(at=st.integers(0, 30), retry_after=st.sampled_from(list(WAITS_S)))
    def limit(self, at: int, retry_after: str | None) -> None:
        self.recover(self.land(at, limited(retry_after)))
        self.cools_until = max(self.cools_until, self.now + WAITS_S[retry_after])

    def recover(self, worker: int) -> None:
        self.in_a_row[worker] = 0
        if self.is_open:  # those who helped to open it begin anew with it
            self.is_open = False
            full = LIMITS.breaker_failures
            self.in_a_row = [0 if row >= full else row for row in self.in_a_row]

    @precondition(lambda self: self.flights)
    @rule(at=st.integers(0, 30), error=st.sampled_from(UNHEARD))
    def hear_nothing(self, at: int, error: UpstreamError) -> None:
        self.land(at, error)

    @rule(seconds=PASSES_S)
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: hasattr(self, "states") and self.left_alone_s() > 0)
    @rule(worker=workers)
    def refuse(self, worker: int) -> None:
        """What is told is true: the reason, and that asking is allowed after the time."""
        left_s, refusal = self.left_alone_s(), self.states[worker].refusal()
        cools = self.cools_until > (self.asked_again_at if self.is_open else 0.0)
        if cools:
            assert (refusal.status, refusal.type) == (429, "rate_limit_error")
        else:
            last, own = self.last_failure, self.own_failure[worker]
            assert last is not None
            if own is not None and shown(own) == shown(last):
                # Our bad key is made the operator's 502 where the answer is written.
                assert (refusal.status, refusal.type) == (own.status, own.type)
                assert own.reason in refusal.message
            else:
                status, is_ours = shown(last)
                kind = GENERAL.get(status, "api_error")
                assert (refusal.status, refusal.type) == (status, kind)
                assert refusal.credential_fault == is_ours
        wait_s = int(dict(refusal.headers)["retry-after"])
        assert wait_s == max(math.ceil(left_s), 1)
        assert f"in {wait_s} s" in refusal.message
        before, self.now = self.now, self.now + wait_s
        assert {state.closed_s for state in self.states} == {0.0}
        self.now = before

    @invariant()
    def every_worker_sees_the_same(self) -> None:
        for state in getattr(self, "states", ()):
            assert state.closed_s == self.left_alone_s()
            assert state.closed_s <= LIMITS.cooldown_max_s

    @invariant()
    def probes_keep_their_distance(self) -> None:
        probes = getattr(self, "probes", [])
        assert all(
            later - earlier >= LIMITS.breaker_probe_s
            for earlier, later in itertools.pairwise(probes)
        )

    @invariant()
    def what_is_out_is_counted(self) -> None:
        for worker, state in enumerate(getattr(self, "states", ())):
            assert state.in_flight == sum(one.worker == worker for one in self.flights)


TestLeftAlone = LeftAlone.TestCase
TestLeftAlone.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
