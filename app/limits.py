"""Whether a deployment may be asked now: cooldown, breaker, retry budget. No await, no I/O.

            429 ──────────► cooling ── retry-after, or COOLDOWN_S ──► may be asked
    5 failures in a row ──► open ──── probe_s ──► one question goes, the others are refused
                             ▲                       │
                             └──────── fails ────────┴─ an answer of any kind ──► closed

Until when a deployment cools, and until when its breaker is open, are numbers that all workers of
the server share: neither ends the other. The failures in a row, and what the last one was, each
worker knows by itself.
"""

import math
import re
from collections.abc import Callable, Iterable, MutableSequence
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from adapters.base import Deployment, UpstreamError
from app.config_sections import Limits as Settings
from app.errors import LONG_WAIT_S
from app.telemetry.layout import ERROR_TYPES

COOLDOWN_S = 5.0
"""After a 429 that does not say when to come back."""
WINDOW_S = 10
OK, TOO_MANY, SERVER_ERRORS, BAD_GATEWAY, GATEWAY_TIMEOUT = 200, 429, 500, 502, 504
COOL_UNTIL, OPEN_UNTIL, STATUS, CELLS = range(4)
"""What workers share about a deployment; 0: it does not cool, its breaker is not open. The status
is that of the last failure, below 0 where our credential was refused: nothing stands in then."""
Happening = Literal["calls", "failures", "limited", "openings", "retries"]
Note = Callable[[str, Happening, UpstreamError | None], None]
"""Is told by a deployment's name what happens to it."""
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_TYPES = {429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error"}


class Phase(NamedTuple):
    """How a deployment stands, and for how many seconds more; ``probing``: one question goes."""

    state: Literal["closed", "cooling", "open", "probing"]
    left_s: float


def unheard(deployment: str, happening: Happening, error: UpstreamError | None) -> None:
    """Tell nobody."""


class Deployments:
    """What this worker knows about the state of each deployment.

    ``cells`` holds CELLS numbers for each, in the configuration's order, and may be shared memory:
    each write is one store of a double, the later one stays, and either is true.
    """

    def __init__(
        self,
        deployments: Iterable[Deployment],
        settings: Settings,
        clock: Callable[[], float],
        cells: MutableSequence[float] | None = None,
        note: Note = unheard,
    ) -> None:
        names = [one.name for one in deployments]
        if cells is None or len(cells) != CELLS * len(names):
            cells = [0.0] * (CELLS * len(names))
        self._states = {
            name: State(name, settings, clock, cells, CELLS * index, note=note)
            for index, name in enumerate(names)
        }

    def of(self, deployment: Deployment) -> "State":
        """Return the state of a deployment: of its entry, whatever its wildcard stands for."""
        return self._states[deployment.name]


class State:
    """One deployment, as this worker sees it."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        clock: Callable[[], float],
        cells: MutableSequence[float],
        cell: int,
        *,
        note: Note = unheard,
    ) -> None:
        self.name = name
        self.in_flight = 0
        self.retries = RetryBudget(
            settings.retry_ratio,
            settings.retries_per_s,
            clock,
            lambda: note(name, "retries", None),
        )
        self._note = note
        self._settings = settings
        self._clock = clock
        self._cells = cells
        self._cell = cell
        self._row = 0
        self._last_limit: UpstreamError | None = None
        self._last_failure: UpstreamError | None = None

    @property
    def closed_s(self) -> float:
        """How long it is to be left alone from now on; 0 when it may be asked."""
        cells, cell = self._cells, self._cell
        until = max(cells[cell + COOL_UNTIL], cells[cell + OPEN_UNTIL])
        return max(until - self._clock(), 0.0) if until else 0.0

    @property
    def phase(self) -> Phase:
        """Say how it stands: what keeps it from being asked the longest."""
        now, cool, open_ = self._clock(), self._get(COOL_UNTIL), self._get(OPEN_UNTIL)
        if cool > max(now, open_):
            return Phase("cooling", cool - now)
        if open_ > now:
            return Phase("open", open_ - now)
        return Phase("probing" if open_ > 0 else "closed", 0.0)

    def take_off(self) -> None:
        """Count a question that goes out now.

        The first one after a pause is the probe of an open breaker: until it has landed, and for
        ``probe_s`` at most, every worker takes the breaker for open.
        """
        self.in_flight += 1
        self.retries.asked()
        self._note(self.name, "calls", None)
        if self._is_open:
            self._set(OPEN_UNTIL, self._clock() + self._settings.breaker_probe_s)

    def land(self, error: UpstreamError | None) -> None:
        """Hear how the question ended; None: with a count."""
        self.in_flight -= 1
        if error is not None and is_failure(error):
            self._fail(error)
        elif error is None or error.upstream_status:
            self._row = 0
            self._set(OPEN_UNTIL, 0.0)
        if error is not None and error.status == TOO_MANY:
            self._cool(error)

    def _fail(self, error: UpstreamError) -> None:
        if self._row >= self._settings.breaker_failures and not self._is_open:
            self._row = 0  # another worker's probe has been answered
        self._row += 1
        self._last_failure = error
        self._note(self.name, "failures", error)
        if self._row >= self._settings.breaker_failures or self._is_open:
            self._set(STATUS, _shown(error))
            if not self._is_open:
                self._note(self.name, "openings", error)
            self._set(OPEN_UNTIL, self._clock() + self._settings.breaker_probe_s)

    def _cool(self, error: UpstreamError) -> None:
        """Leave it alone for as long as it said, and not less long than it said before."""
        self._last_limit = error
        self._note(self.name, "limited", error)
        until = self._clock() + min(_wait_s(error), self._settings.cooldown_max_s)
        self._set(COOL_UNTIL, max(self._get(COOL_UNTIL), until))

    def refusal(self) -> UpstreamError:
        """Say why it is not asked now: the true reason, and when to come back."""
        wait_s = max(math.ceil(self.closed_s), 1)
        if self._get(COOL_UNTIL) > self._get(OPEN_UNTIL):
            status, last = TOO_MANY, self._last_limit
        else:
            status, last = int(self._get(STATUS)) or BAD_GATEWAY, self._last_failure
        if last is None or _shown(last) != status:
            last = UpstreamError(
                abs(status),
                _TYPES.get(status, "api_error"),
                "",
                f"status {abs(status)}",
                credential_fault=status < 0,
            )
        if status == TOO_MANY:
            message = f"the provider limits how often it is asked; it is asked again in {wait_s} s"
        else:
            message = (
                f"the provider fails ({last.reason}); it is asked again in {wait_s} s, "
                "what is remembered is answered meanwhile"
            )
        return msgspec.structs.replace(
            last,
            # A type that the provider made up is its text, and this goes to other callers.
            type=last.type if last.type in ERROR_TYPES else "api_error",
            message=message,
            details=b"",
            headers=wait_headers(wait_s),
            upstream_request_id="",
        )

    @property
    def _is_open(self) -> bool:
        return self._get(OPEN_UNTIL) > 0

    def _get(self, which: int) -> float:
        return self._cells[self._cell + which]

    def _set(self, which: int, value: float) -> None:
        self._cells[self._cell + which] = value


def wait_headers(wait_s: int) -> tuple[tuple[str, str], ...]:
    """Say when to come back, and that a client should not sit out a long wait by itself."""
    headers: tuple[tuple[str, str], ...] = (("retry-after", str(wait_s)),)
    return headers if wait_s <= LONG_WAIT_S else (*headers, ("x-should-retry", "false"))


def _shown(error: UpstreamError) -> int:
    """Return the status that callers see, below 0 for our credential: it is never theirs."""
    return -BAD_GATEWAY if error.credential_fault else error.status


def is_failure(error: UpstreamError) -> bool:
    """Say whether the deployment failed, rather than refused what was asked or limited us.

    A refused credential is such a failure: whoever asks next is refused too. What we ourselves
    could not write or send is none.
    """
    if error.credential_fault:
        return True
    if error.upstream_status:
        return error.upstream_status == OK or error.upstream_status >= SERVER_ERRORS
    return error.broken or is_late(error)


def is_late(error: UpstreamError) -> bool:
    """Say whether nothing was heard in time."""
    return not error.upstream_status and error.status == GATEWAY_TIMEOUT


def is_worth_a_retry(error: UpstreamError) -> bool:
    """Say whether the same deployment may well answer the same question a moment later.

    A connection that broke, or a 5xx; not a timeout, which has used up the time.
    """
    if error.upstream_status:
        return error.upstream_status >= SERVER_ERRORS
    return error.broken


class _Second(Struct):
    asked: int = 0
    retried: int = 0


class RetryBudget:
    """Retries are at most a share of what was asked lately, and a few a second always."""

    def __init__(
        self,
        ratio: float,
        per_s: int,
        clock: Callable[[], float],
        taken: Callable[[], None] = lambda: None,
    ) -> None:
        self._ratio = ratio
        self._per_s = per_s
        self._clock = clock
        self._taken = taken
        self._seconds: dict[int, _Second] = {}

    def asked(self) -> None:
        """Count a question that goes out."""
        self._now().asked += 1

    def take(self) -> bool:
        """Take one retry, if there is one."""
        now = self._now()
        seconds = self._seconds.values()
        asked, retried = sum(one.asked for one in seconds), sum(one.retried for one in seconds)
        if now.retried >= self._per_s and retried >= self._ratio * asked:
            return False
        now.retried += 1
        self._taken()
        return True

    def _now(self) -> _Second:
        second = int(self._clock())
        found = self._seconds.get(second)
        if found is None:
            for old in [one for one in self._seconds if one <= second - WINDOW_S]:
                del self._seconds[old]
            found = self._seconds[second] = _Second()
        return found


def _wait_s(error: UpstreamError) -> float:
    """Read the provider's retry-after; one that cannot be read is none."""
    found = _SECONDS.fullmatch(dict(error.headers).get("retry-after", ""))
    return float(found[0]) if found else COOLDOWN_S
