"""What webhooks and collectors have in common: events go out in batches, by a thread of its own.

emit ─ queue, bounded ─ every flush_s: a batch ─ post ── taken ──────────────► sent
          └── full: dropped, counted                └── again after a pause ─► or given up, counted
"""

import contextlib
import time
from collections.abc import Callable, Container, Iterable

from msgspec import Struct

from app.log import warn_operator
from app.telemetry.event import CountEvent
from app.telemetry.outbox import Outbox, gently
from app.telemetry.post import LAST_S, PAUSES_S, Parcel, Poster
from app.telemetry.sinks import Sampling


class Lost(Struct, frozen=True):
    """What nobody was told of since the last batch that was taken."""

    left_out: int
    """Hits beyond ``telemetry.hit_records_per_s``."""
    dropped: int


class Round(Struct, frozen=True):
    """Where batches go, how large they are, and how long the receiver may take."""

    name: str
    url: str
    batch_events: int
    flush_s: float
    timeout_s: float
    tells_losses: bool
    """Whether a batch says what was lost: then one without events is worth while."""
    worth_another: Container[int]
    """Statuses after which a batch is sent again."""
    pack: Callable[[Iterable[CountEvent], Lost], Parcel]
    wants: Callable[[CountEvent], bool] | None = None
    """Which events are for this receiver, where not all are."""
    rejected: Callable[[bytes], int] | None = None
    """How many of a batch an answer says that it has not taken, where answers say so."""

    def __repr__(self) -> str:
        return f"<Round to {self.name}>"  # an address may hold a token, and pack a key


class Courier(Outbox):
    """Posts events, a batch at a time.

    A batch that the receiver does not take is sent again; given up, it is counted as dropped. So
    every batch can say what has been lost before it.
    """

    def __init__(
        self,
        to: Round,
        sampling: Sampling,
        note: Callable[[str, int], None],
    ) -> None:
        """``note`` hears of so many events ``sent`` or ``dropped``."""
        super().__init__(to.name)
        self._to = to
        self._sampling = sampling
        self._note = note
        self._given_up = 0
        """Counted by the posting thread alone."""
        self._told = Lost(0, 0)
        self._noted = 0
        self._thread.start()

    def emit(self, event: CountEvent) -> None:
        """Keep the event for the thread if it is for this receiver, or drop and count it."""
        if self._to.wants is None or self._to.wants(event):
            super().emit(event)

    def wait(self, timeout_s: float) -> None:
        """Wait for the last batches, LAST_S; what a receiver that hangs leaves is dropped."""
        super().wait(timeout_s)
        if self._thread.is_alive():
            self._note("dropped", self._abandon())

    def _work(self) -> None:
        to = self._to
        with Poster(to.url, to.worth_another, self._stop) as poster:
            while not self._stop.wait(to.flush_s):
                while self._waiting and not self._stop.is_set():
                    self._deliver(poster, to.timeout_s, PAUSES_S)
                self._tell_drops()
            until = time.monotonic() + LAST_S
            while self._has_more() and (left_s := until - time.monotonic()) > 0:
                self._deliver(poster, min(left_s, to.timeout_s), ())
        self._given_up += self._abandon()
        self._tell_drops()

    def _has_more(self) -> bool:
        return bool(self._waiting) or (self._to.tells_losses and self._lost() != self._told)

    def _abandon(self) -> int:
        """Hold nothing any more, and say how many events that were."""
        abandoned = 0
        with contextlib.suppress(IndexError):
            while True:
                self._waiting.popleft()
                abandoned += 1
        return abandoned

    def _tell_drops(self) -> None:
        """Tell the metrics: this thread alone does, the loop only counts."""
        dropped = self._dropped + self._given_up
        self._note("dropped", dropped - self._noted)
        self._noted = dropped

    def _lost(self) -> Lost:
        return Lost(self._sampling.left_out, self._dropped + self._given_up)

    def _deliver(self, poster: Poster, timeout_s: float, pauses_s: tuple[float, ...]) -> None:
        """Post one batch, again after each pause while that is of use. Raises nothing."""
        events = self._take(self._to.batch_events)
        size, lost = len(events), self._lost()
        rejected = 0
        try:
            new = Lost(lost.left_out - self._told.left_out, lost.dropped - self._told.dropped)
            reply = poster.offer(self._to.pack(gently(events), new), timeout_s, pauses_s)
            failure = reply.failure
            if not failure and self._to.rejected is not None:
                rejected = min(self._to.rejected(reply.said), size)
        except Exception as error:  # noqa: BLE001 -- its text may quote a header: the type has to do
            failure = type(error).__name__
        if not failure:
            self._told = lost
            self._note("sent", size - rejected)
            self._given_up += rejected
        else:
            self._given_up += size
            if not size:
                self._told = lost
        if failure or rejected:
            why = failure or f"{rejected} of {size} were rejected"
            warn_operator(f"telemetry.{self._to.name}: events were not taken: {why}")
        self._tell_drops()
