"""Who of a pool is asked, and who next: each entry once, one of them a second time at most.

choose ─ leader.write ─ budgets.take ─ leader.lead ──count, or the question's own error──► Outcome
  ▲           └── cannot be sent: no turn is spent ─────────────────────────────────────► Outcome
  │                                        │ the deployment failed or limits us
  ├── another may be asked ────────────────┤
  └── none; one retry is left, and the budget has one: a short pause ── the same again
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus

import msgspec
from msgspec import Struct

from adapters.base import CountRequest, Deployment, UpstreamError
from app.budget import Budgets, OverBudgetError
from app.leader import Journey, Leader, Outcome
from app.limits import Deployments, is_failure, is_late, is_worth_a_retry
from app.routing import Pool

PAUSE_S = 0.25
"""A retry comes after a random part of this: those who failed together do not come back together.
https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/ (2026-11)"""
WAIT_SHARE = 0.9
"""Of a try's time, at most so much is spent on waiting for the turn."""
CANCELLED = UpstreamError(499, "api_error", "the server ends", "cancelled")
TOO_LATE = UpstreamError(
    504, "timeout_error", "no time was left to ask the provider", "too late to ask"
)


class _Tries(Struct):
    """What has been tried of one pool for one question."""

    until: float
    failed: set[str] = set()
    worth: set[str] = set()
    """Whom one may ask once more."""
    uncounted: set[str] = set()
    """Who does not count the model, which in a pool only all together decide."""
    outcome: Outcome | None = None


class Dispatcher:
    """Asks a pool, within one deadline, with the state of each deployment in view."""

    def __init__(
        self,
        leader: Leader,
        deployments: Deployments,
        budgets: Budgets,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._leader = leader
        self._deployments = deployments
        self._budgets = budgets
        self._chance = chance

    async def ask(
        self,
        count: CountRequest,
        pool: Pool,
        timeout_s: float,
        journey: Journey,
        *,
        as_caller: bool,
    ) -> Outcome:
        """Ask until there is an answer, or nobody left. Raises nothing.

        At least one entry can be asked: its credential is there. ``as_caller``: with the caller's
        own credential, whose limits and failures are not ours.
        """
        if as_caller:
            return await self._ask_as_caller(count, pool.first, timeout_s, journey)
        members = pool.equipped
        tries = _Tries(time.monotonic() + timeout_s)
        done = False
        while not done:
            chosen = (
                self._choose(members, tries)
                or await self._pause(members, tries, journey)
                or self._choose(members, tries)  # one may have opened during the pause
            )
            if chosen is None:
                break
            done = await self._try(count, chosen, members, tries, journey)
        return _told(tries, members, journey) or Outcome(error=self._refusal(members, tries))

    async def _ask_as_caller(
        self, count: CountRequest, deployment: Deployment, timeout_s: float, journey: Journey
    ) -> Outcome:
        until = time.monotonic() + timeout_s
        journey.deployment = deployment
        request = await self._leader.write(count, deployment, timeout_s)
        if isinstance(request, Outcome):
            return request
        return await self._leader.lead(request, deployment, _left_s(until), journey)

    async def _try(
        self,
        count: CountRequest,
        deployment: Deployment,
        members: Sequence[Deployment],
        tries: _Tries,
        journey: Journey,
    ) -> bool:
        """Ask one, which may use its even share of the time that is left; say whether that is all.

        All: a count, or an error that the next one would answer too.
        """
        others = len(members)
        if others > 1:
            others = max(sum(self._may_be_asked(one, tries) for one in members), 1)
        share_s = _left_s(tries.until) / others
        until = time.monotonic() + share_s
        journey.deployment = deployment
        tries.failed.add(deployment.name)
        request = await self._leader.write(count, deployment, share_s)
        if isinstance(request, Outcome):
            return _note(tries, deployment, request)
        try:
            await self._in_budget(deployment, until, journey)
        except OverBudgetError as error:
            tries.outcome = tries.outcome or Outcome(error=error.refusal())
            return False
        state = self._deployments.of(deployment)
        if state.closed_s > 0:  # others have found out while this one waited for its turn
            tries.outcome = tries.outcome or Outcome(error=state.refusal())
            return False
        state.take_off()
        heard: UpstreamError | None = CANCELLED
        try:
            left_s = _left_s(until)
            outcome = await self._leader.lead(
                request, deployment, min(left_s, deployment.timeout_s), journey
            )
            heard = outcome.error
            if heard is not None and is_late(heard) and left_s < share_s / 2:
                heard = CANCELLED  # its time went in our own queue
        finally:
            state.land(heard)
        return _note(tries, deployment, outcome)

    async def _in_budget(self, deployment: Deployment, until: float, journey: Journey) -> None:
        """Wait for the deployment's turn. Raises OverBudgetError.

        A turn that leaves no time to ask would be taken from another for nothing.
        """
        if deployment.rpm is None:
            return
        began = time.monotonic()
        try:
            await self._budgets.take(deployment, began + WAIT_SHARE * (until - began))
        finally:
            journey.budget_wait_ms += (time.monotonic() - began) * 1000

    def _choose(self, members: Sequence[Deployment], tries: _Tries) -> Deployment | None:
        """Take who has room in its rpm, and of these the least busy for its weight.

        Where all are alike, chance and weight decide.
        """
        if time.monotonic() >= tries.until:
            return None
        open_ = [one for one in members if self._may_be_asked(one, tries)]
        if len(open_) < 2:  # noqa: PLR2004 -- no choice
            return open_[0] if open_ else None
        return min(
            open_,
            key=lambda one: (
                self._budgets.wait_s(one),
                self._deployments.of(one).in_flight / one.weight,
                # Of these keys the greatest is an entry's as often as its share of the weights is:
                # Efraimidis and Spirakis, Information Processing Letters 97 (2006).
                -(self._chance() ** (1 / one.weight)),
            ),
        )

    def _may_be_asked(self, deployment: Deployment, tries: _Tries) -> bool:
        closed = self._deployments.of(deployment).closed_s > 0
        return deployment.name not in tries.failed and not closed

    async def _pause(
        self, members: Sequence[Deployment], tries: _Tries, journey: Journey
    ) -> Deployment | None:
        """Wait before the one retry, and say of whom; None where there is none."""
        if journey.retried:
            return None
        pause_s = PAUSE_S * self._chance()
        worth = _Tries(tries.until, failed=tries.failed - tries.worth)
        chosen = self._choose(members, worth)
        if chosen is None or time.monotonic() + pause_s >= tries.until:
            return None
        if not self._deployments.of(chosen).retries.take():
            return None
        await asyncio.sleep(pause_s)
        # Others' failures may have closed it meanwhile.
        again = self._choose([chosen], worth)
        journey.retried = again is not None
        return again

    def _refusal(self, members: Sequence[Deployment], tries: _Tries) -> UpstreamError:
        """Say why nobody was asked: in the words of the one that may be asked first.

        It may have opened since: where time is left, what it was closed for is the reason.
        """
        if time.monotonic() >= tries.until:
            return TOO_LATE
        states = [self._deployments.of(one) for one in members]
        return min(states, key=lambda one: one.closed_s).refusal()


def _left_s(until: float) -> float:
    return max(until - time.monotonic(), 0.001)


def _note(tries: _Tries, deployment: Deployment, outcome: Outcome) -> bool:
    """Remember how a try ended; say whether that is all."""
    error = outcome.error
    if error is None:
        tries.outcome = outcome
        return True
    if is_worth_a_retry(error):
        tries.worth.add(deployment.name)
    if error.model_not_counted:
        tries.uncounted.add(deployment.name)
    # Where one has failed, that another one does not count the model is not the whole truth.
    if tries.outcome is None or not error.model_not_counted:
        tries.outcome = outcome
    limited = error.status == HTTPStatus.TOO_MANY_REQUESTS
    return not (is_failure(error) or limited or error.model_not_counted)


def _told(tries: _Tries, members: Sequence[Deployment], journey: Journey) -> Outcome | None:
    """Let the caller not repeat what has been repeated here."""
    outcome = tries.outcome
    if outcome is None or outcome.error is None:
        return outcome
    error = outcome.error
    if journey.retried:
        headers = (*error.headers, ("x-should-retry", "false"))
        error = msgspec.structs.replace(error, headers=headers)
    if error.model_not_counted and tries.uncounted != {one.name for one in members}:
        error = msgspec.structs.replace(error, model_not_counted=False)
    return msgspec.structs.replace(outcome, error=error)
