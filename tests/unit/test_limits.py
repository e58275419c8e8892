"""When a deployment is asked, asked again, or left alone: decided on an injected clock."""

import pytest

from adapters.base import Deployment, Endpoint, UpstreamError
from app.config_sections import Limits
from app.errors import from_upstream
from app.limits import CELLS, COOLDOWN_S, Deployments, RetryBudget, State, is_worth_a_retry

FAILED = UpstreamError(500, "api_error", "a text that may quote", "status 500", 500)
BROKEN = UpstreamError(502, "api_error", "", "unreachable: reset", broken=True)
SLOW = UpstreamError(504, "timeout_error", "", "no answer in time")
MALFORMED = UpstreamError(502, "api_error", "", "malformed: {}", upstream_status=200)
BAD_KEY = UpstreamError(401, "authentication_error", "", "bad key", 401, credential_fault=True)
MISTAKE = UpstreamError(400, "invalid_request_error", "", "bad request", 400)
OURS = UpstreamError(400, "invalid_request_error", "", "cannot be expressed")
LIMITS = Limits()
ONE = Deployment("a[0]", "a", "anthropic", Endpoint("m", "http://x"), 30.0)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cells() -> list[float]:
    return [0.0] * CELLS


@pytest.fixture
def state(clock: Clock, cells: list[float]) -> State:
    return Deployments((ONE,), LIMITS, clock, cells).of(ONE)


def ask(state: State, error: UpstreamError | None) -> None:
    state.take_off()
    state.land(error)


def limited(retry_after: str | None) -> UpstreamError:
    headers = () if retry_after is None else (("retry-after", retry_after),)
    return UpstreamError(429, "rate_limit_error", "slow down", "limited", 429, headers=headers)


@pytest.mark.parametrize("error", [FAILED, BROKEN, SLOW, MALFORMED, BAD_KEY])
def test_five_failures_in_a_row_open_the_breaker(state: State, error: UpstreamError) -> None:
    for _ in range(4):
        ask(state, error)
        assert not state.closed_s
    ask(state, error)
    assert state.closed_s == LIMITS.breaker_probe_s


@pytest.mark.parametrize("answer", [None, MISTAKE], ids=["a count", "a refusal"])
def test_an_answer_ends_the_row(state: State, answer: UpstreamError | None) -> None:
    for error in (FAILED, FAILED, FAILED, FAILED, answer, FAILED, FAILED, FAILED, FAILED):
        ask(state, error)
    assert not state.closed_s


def test_what_we_cannot_send_says_nothing_about_the_provider(state: State) -> None:
    for _ in range(10):
        ask(state, OURS)
    assert not state.closed_s
    for error in (FAILED, FAILED, FAILED, FAILED, OURS, FAILED):
        ask(state, error)
    assert state.closed_s


def opened(state: State) -> None:
    for _ in range(LIMITS.breaker_failures):
        ask(state, FAILED)


def test_one_probe_at_a_time_closes_the_breaker(state: State, clock: Clock) -> None:
    opened(state)
    clock.now += LIMITS.breaker_probe_s
    assert not state.closed_s
    state.take_off()
    assert state.closed_s == LIMITS.breaker_probe_s
    state.land(None)
    assert not state.closed_s
    ask(state, FAILED)
    assert not state.closed_s


def test_a_probe_that_fails_keeps_it_open(state: State, clock: Clock) -> None:
    opened(state)
    for _ in range(3):
        clock.now += LIMITS.breaker_probe_s
        ask(state, FAILED)
        assert state.closed_s == LIMITS.breaker_probe_s


def test_a_probe_that_never_lands_is_followed_by_another(state: State, clock: Clock) -> None:
    opened(state)
    clock.now += LIMITS.breaker_probe_s
    state.take_off()
    clock.now += LIMITS.breaker_probe_s
    assert not state.closed_s


def test_a_success_elsewhere_ends_the_row(state: State, clock: Clock, cells: list[float]) -> None:
    other = Deployments((ONE,), LIMITS, clock, cells).of(ONE)
    opened(state)
    clock.now += LIMITS.breaker_probe_s
    ask(other, None)
    for _ in range(LIMITS.breaker_failures - 1):
        ask(state, FAILED)
        assert not state.closed_s
    ask(state, FAILED)
    assert state.closed_s


@pytest.mark.parametrize("later", [limited("1"), FAILED], ids=["a limit", "failures"])
def test_what_lands_later_ends_no_limit(state: State, later: UpstreamError) -> None:
    ask(state, limited("60"))
    for _ in range(LIMITS.breaker_failures):
        ask(state, later)
    assert state.closed_s == 60
    assert state.refusal().status == 429
    ask(state, None)
    assert state.closed_s == 60


def test_a_question_that_lands_unanswered_lets_no_second_probe_go(
    state: State, clock: Clock
) -> None:
    """1 it goes; 2 the breaker opens, a probe goes; 3 it lands: the probe is still out."""
    state.take_off()
    opened(state)
    clock.now += LIMITS.breaker_probe_s
    state.take_off()
    state.land(OURS)
    assert state.closed_s == LIMITS.breaker_probe_s


def test_a_type_that_a_provider_made_up_is_told_to_nobody_else(state: State) -> None:
    for _ in range(LIMITS.breaker_failures):
        ask(state, UpstreamError(500, "as you said: hush", "", "status 500", 500))
    assert state.refusal().type == "api_error"


def test_other_workers_hear_of_it(state: State, clock: Clock, cells: list[float]) -> None:
    other = Deployments((ONE,), LIMITS, clock, cells).of(ONE)
    opened(state)
    assert other.closed_s == LIMITS.breaker_probe_s
    assert (other.refusal().status, other.refusal().type) == (500, "api_error")
    clock.now += LIMITS.breaker_probe_s
    ask(other, None)
    assert not state.closed_s


def test_our_bad_key_is_never_the_callers(state: State, clock: Clock, cells: list[float]) -> None:
    other = Deployments((ONE,), LIMITS, clock, cells).of(ONE)
    for _ in range(LIMITS.breaker_failures):
        ask(state, BAD_KEY)
    assert state.refusal().credential_fault
    assert other.refusal().status == 502
    told = [from_upstream(one.refusal(), caller_credential=False) for one in (state, other)]
    assert [one.status for one in told] == [502, 502]
    assert not any(one.is_outage for one in told)  # no last known count stands in
    assert [one.headers.get("x-should-retry") for one in told] == ["false", "false"]


@pytest.mark.parametrize(
    ("retry_after", "pause_s"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("3600", 60),
        ("1000000000", COOLDOWN_S),
        ("Wed, 25 Nov 2026 07:28:00 GMT", COOLDOWN_S),
        ("-1", COOLDOWN_S),
        ("nan", COOLDOWN_S),
        (None, COOLDOWN_S),
    ],
)
def test_a_limit_is_respected(state: State, retry_after: str | None, pause_s: float) -> None:
    ask(state, limited(retry_after))
    assert state.closed_s == pytest.approx(pause_s)
    assert state.refusal().status == 429
    assert "slow down" not in state.refusal().message


def test_a_limit_that_has_passed_is_no_open_breaker(state: State, clock: Clock) -> None:
    ask(state, limited("7"))
    clock.now += 7
    state.take_off()
    assert not state.closed_s
    state.land(FAILED)
    assert not state.closed_s


def test_a_refusal_says_why_and_until_when_and_quotes_nobody(state: State, clock: Clock) -> None:
    opened(state)
    clock.now += 1.5
    refusal = state.refusal()
    assert (refusal.status, refusal.upstream_status) == (500, 500)
    assert dict(refusal.headers) == {"retry-after": "4"}
    assert "status 500" in refusal.message
    assert "quote" not in refusal.message


def test_a_long_wait_is_not_worth_a_clients_own_retry(state: State) -> None:
    ask(state, limited("45"))
    assert dict(state.refusal().headers) == {"retry-after": "45", "x-should-retry": "false"}


@pytest.mark.parametrize(
    ("error", "worth"),
    [(FAILED, True), (BROKEN, True), (SLOW, False), (MALFORMED, False), (MISTAKE, False)],
)
def test_what_is_tried_again(error: UpstreamError, worth: bool) -> None:
    assert is_worth_a_retry(error) is worth


def test_retries_are_a_share_of_what_was_asked(clock: Clock) -> None:
    budget = RetryBudget(0.2, 3, clock)
    for _ in range(1000):
        budget.asked()
    assert sum(budget.take() for _ in range(1000)) == 200
    clock.now += 1
    assert sum(budget.take() for _ in range(1000)) == 3
    clock.now += 20
    assert sum(budget.take() for _ in range(1000)) == 3


def test_retries_can_be_switched_off(clock: Clock) -> None:
    budget = RetryBudget(0, 0, clock)
    budget.asked()
    assert not budget.take()


def test_what_happens_to_a_deployment_is_told(clock: Clock) -> None:
    told: list[tuple[str, str, UpstreamError | None]] = []
    state = Deployments((ONE,), LIMITS, clock, None, lambda *note: told.append(note)).of(ONE)
    ask(state, None)
    assert told == [("a[0]", "calls", None)]
    told.clear()
    ask(state, MISTAKE)
    assert [note[1] for note in told] == ["calls"]
    told.clear()
    ask(state, limited("3"))
    assert [note[1] for note in told] == ["calls", "limited"]
    told.clear()
    for _ in range(6):
        ask(state, FAILED)
    assert [note[1] for note in told] == ["calls", "failures"] * 4 + [
        "calls",
        "failures",
        "openings",
        "calls",
        "failures",
    ]
    assert {note[2] for note in told if note[1] == "failures"} == {FAILED}
    told.clear()
    assert state.retries.take()
    assert told == [("a[0]", "retries", None)]


def test_its_phase_is_what_all_workers_say(clock: Clock, cells: list[float]) -> None:
    state, other = (Deployments((ONE,), LIMITS, clock, cells).of(ONE) for _ in range(2))
    assert other.phase == ("closed", 0.0)
    ask(state, limited("3"))
    assert other.phase == ("cooling", 3.0)
    for _ in range(5):
        ask(state, FAILED)
    assert other.phase == ("open", LIMITS.breaker_probe_s)
    clock.now += LIMITS.breaker_probe_s
    assert other.phase == ("probing", 0.0)
    ask(other, None)
    assert state.phase == ("closed", 0.0)
