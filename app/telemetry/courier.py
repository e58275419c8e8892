"""What webhooks and collectors have in common: events go out in batches, by a thread of its own.

emit ─ queue, bounded ─ every flush_s: a batch ─ post ── taken ──────────────► sent
          └── full: dropped, counted                └── again after a pause ─► or given up, counted
"""

import threading
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import timedelta

from msgspec import Struct
from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError

from app.log import warn_operator
from app.telemetry.event import CountEvent
from app.telemetry.sinks import Sampling

MAX_WAITING = 20_000
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
    worth_another: Container[int]
    """Statuses after which a batch is sent again."""
    pack: Callable[[Sequence[CountEvent], Lost], Parcel]


class Courier:
    """Buffers events; a thread of its own posts them, a batch at a time.

    * The event loop only appends to a queue of MAX_WAITING events; more are dropped and counted.
    * A batch that the receiver does not take is sent again; given up, it is counted as dropped. So
      every batch can say what has been lost before it.
    """

    def __init__(self, to: Round, sampling: Sampling, note: Callable[[str, int], None]) -> None:
        """``note`` hears of so many events ``sent`` or ``dropped``."""
        self._to = to
        self._sampling = sampling
        self._note = note
        # Append and popleft are atomic: the loop appends, the thread takes, nobody locks.
        self._waiting: deque[CountEvent] = deque()
        self._dropped = 0
        self._given_up = 0
        """Counted by the posting thread alone, as the other by the loop."""
        self._told = Lost(0, 0)
        self._noted = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._post_forever, name=to.name, daemon=True)
        self._thread.start()

    def emit(self, event: CountEvent) -> None:
        """Keep the event for the next batch, or drop and count it."""
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append(event)

    def close(self) -> None:
        """Post what is left, once; wait a little longer than that may take."""
        self._stop.set()
        self._thread.join(timeout=2 * LAST_S)

    def _post_forever(self) -> None:
        with _client() as client:
            while not self._stop.wait(self._to.flush_s):
                while self._waiting and not self._stop.is_set():
                    self._deliver(client, self._to.timeout_s, PAUSES_S)
                self._tell_drops()
            if self._waiting or self._lost() != self._told:
                self._deliver(client, min(LAST_S, self._to.timeout_s), ())
                self._tell_drops()

    def _tell_drops(self) -> None:
        """Tell the metrics: this thread alone does, the loop only counts."""
        dropped = self._dropped + self._given_up
        self._note("dropped", dropped - self._noted)
        self._noted = dropped

    def _lost(self) -> Lost:
        return Lost(self._sampling.left_out, self._dropped + self._given_up)

    def _deliver(self, client: SyncClient, timeout_s: float, pauses_s: tuple[float, ...]) -> None:
        """Post one batch, again after each pause while that is of use."""
        size = min(len(self._waiting), self._to.batch_events)
        events = [self._waiting.popleft() for _ in range(size)]
        lost, told = self._lost(), self._told
        new = Lost(lost.left_out - told.left_out, lost.dropped - told.dropped)
        parcel = self._to.pack(events, new)
        failure, again = self._post(client, parcel, timeout_s)
        for pause_s in pauses_s:
            if not again or self._stop.wait(pause_s):
                break
            failure, again = self._post(client, parcel, timeout_s)
        if not failure:
            self._told = lost
            self._note("sent", size)
        else:
            self._given_up += size
            warn_operator(f"telemetry.{self._to.name}: events were not taken: {failure}")

    def _post(self, client: SyncClient, parcel: Parcel, timeout_s: float) -> tuple[str, bool]:
        """Post once; return what went wrong, empty if nothing, and whether to try again."""
        request = client.post(self._to.url).headers(parcel.headers()).body_bytes(parcel.body)
        try:
            status = request.timeout(timedelta(seconds=timeout_s)).build().send().status
        except (PyreqwestError, TimeoutError) as error:
            return type(error).__name__, True
        if status in _TAKEN:
            return "", False
        return f"status {status}", status in self._to.worth_another


def _client() -> SyncClient:
    return SyncClientBuilder().follow_redirects(False).user_agent(USER_AGENT).build()  # noqa: FBT003
