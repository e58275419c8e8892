"""Asks again for a sample of what is answered from memory: a count that has changed is found out.

A provider may change how it counts without a new model name. A recount that differs ends the
model's generation (`app.flight`), and with it every count of that model in every tier.
"""

from collections.abc import Callable

from app.auth import Caller
from app.config_sections import Sentinel as Settings
from app.counter import TokenCounter
from app.errors import ProxyError
from app.keys import Answer
from app.question import Question
from cache.background import Background
from cache.tiers import Tiers

MAX_RECOUNTS = 8
RPM_SHARE = 0.01


class Sentinel:
    """Recounts hits, in the background.

    * At most ``per_minute`` for all workers of the host, and 1 % of a deployment's ``rpm``.
    * Only counts that are older than ``min_age_s``: what has just been asked tells nothing new.
    """

    def __init__(
        self,
        settings: Settings,
        counter: TokenCounter,
        tiers: Tiers,
        note: Callable[[str], None],
        wall_clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._counter = counter
        self._tiers = tiers
        self._note = note
        self._wall_clock = wall_clock
        self._every_s = 60 / settings.per_minute if settings.per_minute else float("inf")
        self.next_s = 0.0 if settings.per_minute else float("inf")
        """Until then, on the monotonic clock, nothing is wanted."""
        self._background = Background(MAX_RECOUNTS, lambda: note("failed"))

    def wants(self, answer: Answer, now_s: float) -> bool:
        """Say whether this hit is the one to ask again for; ``now_s`` is monotonic."""
        if now_s < self.next_s or answer.source != "cache":
            return False
        if self._wall_clock() - answer.record.counted_at_s < self._settings.min_age_s:
            return False
        # What was asked with a caller's own credential is that caller's alone.
        if answer.place is not None and answer.place.own is not None:
            return False
        self.next_s = now_s + self._every_s
        deployment = answer.deployment
        # The entry's turn first: one with few requests a minute must not use up the machine's.
        if deployment.rpm is not None:
            every_s = 60 / (deployment.rpm * RPM_SHARE)
            if not self._tiers.claim(f"recount {deployment.name}", every_s):
                return False
        return self._tiers.claim("", self._every_s)

    def recount(self, ask: Callable[[], Question], caller: Caller, answer: Answer) -> None:
        """Ask again behind the answer; ``ask`` reads the request's bytes once more."""
        self._background.run(self._recount(ask, caller, answer))

    async def _recount(self, ask: Callable[[], Question], caller: Caller, answer: Answer) -> None:
        try:
            record = await self._counter.recount(ask(), caller, answer.deployment)
        except ProxyError:
            self._note("failed")
            return
        old = answer.record
        same = (record.input_tokens, record.extra) == (old.input_tokens, old.extra)
        self._note("same" if same else "drift")

    async def close(self) -> None:
        """End what is still out."""
        await self._background.close(0.0)
