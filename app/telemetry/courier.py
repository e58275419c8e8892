"""What webhooks and collectors have in common: events go out in batches, by a thread of its own.

emit ─ queue, bounded ─ every flush_s: a batch ─ post ── taken ──────────────► sent
          └── full: dropped, counted                └── again after a pause ─► or given up, counted
"""

import contextlib
import time
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import timedelta

from msgspec import Struct
from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError

from app.log import warn_operator
from app.telemetry.event import CountEvent
from app.telemetry.outbox import Outbox
from app.telemetry.sinks import Sampling

PAUSES_S = (0.5, 2.0, 8.0)
"""Before the second, third and fourth attempt at a batch; then it is given up."""
LAST_S = 1.0
"""For the last batch, when the worker ends."""
USER_AGENT = "tallygate/0.1"
_TAKEN = range(200, 300)


class Lost(Struct, frozen=True):
    """What nobody was told of since the last batch that was taken."""

    left_out: int
    """Hits beyond ``telemetry.hit_records_per_s``."""
    dropped: int


class Parcel(Struct, frozen=True):
    """A batch as it is sent: the same body each time, headers that may say when."""

    body: bytes
    headers: Callable[[], Mapping[str, str]]


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
    pack: Callable[[Sequence[CountEvent], Lost], Parcel]

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
        authorities: bytes | None = None,
    ) -> None:
        """``note`` hears of so many events ``sent`` or ``dropped``.

        ``authorities`` are the operator's own, as PEM.
        """
        super().__init__(to.name)
        self._to = to
        self._sampling = sampling
        self._note = note
        self._authorities = authorities
        self._given_up = 0
        """Counted by the posting thread alone."""
        self._told = Lost(0, 0)
        self._noted = 0
        self._thread.start()

    def wait(self, timeout_s: float) -> None:
        """Wait for the last batches, LAST_S; what a receiver that hangs leaves is dropped."""
        super().wait(timeout_s)
        if self._thread.is_alive():
            self._note("dropped", self._abandon())

    def _work(self) -> None:
        with self._client() as client:
            while not self._stop.wait(self._to.flush_s):
                while self._waiting and not self._stop.is_set():
                    self._deliver(client, self._to.timeout_s, PAUSES_S)
                self._tell_drops()
            until = time.monotonic() + LAST_S
            while self._has_more() and (left_s := until - time.monotonic()) > 0:
                self._deliver(client, min(left_s, self._to.timeout_s), ())
        self._given_up += self._abandon()
        self._tell_drops()

    def _client(self) -> SyncClient:
        builder = SyncClientBuilder().follow_redirects(False).user_agent(USER_AGENT)  # noqa: FBT003
        if self._authorities is not None:
            builder = builder.add_root_certificate_pem(self._authorities)
        return builder.build()

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

    def _deliver(self, client: SyncClient, timeout_s: float, pauses_s: tuple[float, ...]) -> None:
        """Post one batch, again after each pause while that is of use. Raises nothing."""
        events = self._take(self._to.batch_events)
        size, lost = len(events), self._lost()
        try:
            failure = self._offer(client, events, lost, timeout_s, pauses_s)
        except Exception as error:  # noqa: BLE001 -- its text may quote a header: the type has to do
            failure = type(error).__name__
        if not failure:
            self._told = lost
            self._note("sent", size)
        else:
            self._given_up += size
            if not size:
                self._told = lost
            warn_operator(f"telemetry.{self._to.name}: events were not taken: {failure}")
        self._tell_drops()

    def _offer(
        self,
        client: SyncClient,
        events: Sequence[CountEvent],
        lost: Lost,
        timeout_s: float,
        pauses_s: tuple[float, ...],
    ) -> str:
        """Post a batch until it is taken; return why it was not, empty if it was."""
        told = self._told
        new = Lost(lost.left_out - told.left_out, lost.dropped - told.dropped)
        parcel = self._to.pack(events, new)
        failure, again = self._post(client, parcel, timeout_s)
        for pause_s in pauses_s:
            if not again or self._stop.wait(pause_s):
                break
            failure, again = self._post(client, parcel, timeout_s)
        return failure

    def _post(self, client: SyncClient, parcel: Parcel, timeout_s: float) -> tuple[str, bool]:
        """Post once; return what went wrong, empty if nothing, and whether to try again."""
        request = client.post(self._to.url).headers(parcel.headers()).body_bytes(parcel.body)
        request = request.timeout(timedelta(seconds=timeout_s))
        try:
            with request.build_streamed() as response:  # what it says besides is not read
                status = response.status
        except (PyreqwestError, TimeoutError) as error:
            return type(error).__name__, True
        if status in _TAKEN:
            return "", False
        return f"status {status}", status in self._to.worth_another
