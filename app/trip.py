"""One caller's question on its way to a pool, and until when it waits."""

from msgspec import Struct

from app.auth import Caller
from app.errors import ProxyError, operator_fault
from app.freshness import Freshness
from app.keys import Place
from app.leader import Journey
from app.question import Question
from app.routing import Pool

LANDING_S = 0.25
"""What a waiter allows a flight beyond its deadline to land: the leader's error says more."""


class Trip(Struct, frozen=True, gc=False):
    """One caller's question on its way."""

    question: Question
    caller: Caller
    deadline: float
    """On the monotonic clock, for the pool that is asked now."""
    leaves_at: float
    """When this caller waits no longer; what is out goes on, for others and for the next time."""
    stale_at: float
    """When a count that was known before is good enough."""
    journey: Journey
    place: Place | None = None
    """Where the first pool's answer is remembered, if that has been composed already."""

    def wait_s(self, now: float) -> float:
        """Say how long the caller waits: to the end, when the flight tells more; less if asked."""
        if self.leaves_at < self.deadline:
            return max(self.leaves_at - now, 0.001)
        return max(self.deadline - now, 0.001) + LANDING_S


def not_asked(pool: Pool, fresh: Freshness) -> ProxyError:
    """Say why nobody was asked for what is not remembered."""
    if fresh.only_if_cached:
        message = "not in the cache, and only-if-cached was asked"
        return ProxyError(504, "timeout_error", message)
    names = ", ".join(dict.fromkeys(name for one in pool.members for name in one.endpoint.missing))
    return operator_fault(f"{pool.first.name}: not set in the environment: {names}")
