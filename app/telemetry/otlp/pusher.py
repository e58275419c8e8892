"""The numbers of /metrics on their way to a collector, every so often, by a thread of its own.

There is one for a server: the main process has it, which sees the rows of all workers, outlives
each of them, and is there when the last has ended. So the sums are those of /metrics, they begin
when the server did, whoever was replaced meanwhile, and the last ones are pushed at its end.
"""

import threading
from collections.abc import Callable

from msgspec import Struct

from app.config_sections import Otlp
from app.log import warn_operator
from app.telemetry.layout import Layout, Row, sums_of
from app.telemetry.otlp.metrics import metrics_of
from app.telemetry.otlp.rounds import WORTH_ANOTHER, address, parcel, rejected
from app.telemetry.otlp.values import resource
from app.telemetry.post import LAST_S, PAUSES_S, Poster


class Counting(Struct, frozen=True):
    """What is pushed, and where to: that of one configuration."""

    otlp: Otlp
    layout: Layout
    array: Row

    @property
    def is_pushed(self) -> bool:
        """Say whether anybody wants it."""
        return self.otlp.endpoint is not None and "metrics" in self.otlp.signals


class Pusher:
    """Pushes what ``counting`` says at each time: a reload changes it."""

    def __init__(
        self,
        counting: Callable[[], Counting],
        wall_clock_ns: Callable[[], int],
    ) -> None:
        self._counting = counting
        self._wall_clock_ns = wall_clock_ns
        self._started_ns = wall_clock_ns()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="otlp metrics", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Push for the last time, within LAST_S and a little more."""
        self._stop.set()
        self._thread.join(LAST_S + 0.5)

    def _work(self) -> None:
        while not self._stop.wait(self._counting().otlp.metrics_every_s):
            counting = self._counting()
            self._push(counting, counting.otlp.timeout_s, PAUSES_S)
        self._push(self._counting(), LAST_S, ())

    def _push(self, counting: Counting, timeout_s: float, pauses_s: tuple[float, ...]) -> None:
        """Push once, again where that is of use. A push that is lost is made up by the next."""
        if not counting.is_pushed:
            return
        try:
            failure = self._offer(counting, timeout_s, pauses_s)
        except Exception as error:  # noqa: BLE001 -- its text may quote a header: the type has to do
            failure = type(error).__name__
        if failure:
            warn_operator(f"telemetry.otlp: metrics were not taken: {failure}")

    def _offer(self, counting: Counting, timeout_s: float, pauses_s: tuple[float, ...]) -> str:
        otlp = counting.otlp
        sums = sums_of(counting.layout, counting.array)
        source, now_ns = resource(otlp.service_name), self._wall_clock_ns()
        message = metrics_of(source, counting.layout, sums, self._started_ns, now_ns)
        url = address(otlp, "metrics")
        # Made anew each time: four connections a minute are cheaper than an idle one to look after.
        with Poster(url, WORTH_ANOTHER, self._stop) as poster:
            reply = poster.offer(parcel(otlp, message), timeout_s, pauses_s)
        if reply.failure:
            return reply.failure
        lost = rejected(reply.said)
        return f"{lost} were rejected" if lost else ""
