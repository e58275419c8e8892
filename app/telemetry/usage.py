"""The ledger: who asked how much, minute by minute; every count is in it, hits of the lane too.

    loop    cell.hits += 1 ─┐ a cell's sums only grow, and the loop alone adds to them
    thread  sums - taken ───┘ what was taken before is kept in the cell by the thread alone
            └─ pending rows ─ added to the file, twice a second, all or none

So nobody locks, and whatever the interleaving, nothing is lost or taken twice: the thread reads a
sum before the loop's addition or after it, and what it has not seen it finds the next time. A
minute that has ended is handed over whole; nothing is added to it any more, since whoever holds a
cell looks at its end first, on the loop, with no await between the look and the addition.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from app.log import describe, logger
from app.telemetry.event import CountEvent
from app.telemetry.record import pseudonym
from app.telemetry.usage_file import OTHER, Row, UsageFile, UsageFileError

FLUSH_S = 0.5
"""How often is written; a worker that is killed loses what it has counted since."""
LAST_S = 1.2
"""How long a worker that ends tries to write the rest."""
MAX_CELLS = 20_000
"""Of one minute; beyond it end users and upstream models are all OTHER."""
MAX_PENDING = 20_000
"""Rows that wait for a file that does not take them; beyond it likewise, up to twice as many."""
MAX_ENDED = 8
"""Minutes that wait for a thread that hangs; beyond it the oldest is lost, and told of."""
ERROR = "error"
_SAVING = frozenset({"cache", "coalesced"})

Sums = tuple[int, int, int, int, int]
"""Requests, tokens, upstream calls, errors, upstream calls saved."""
_NOTHING: Sums = (0, 0, 0, 0, 0)


class Names(NamedTuple):
    """Whose use it is, and of what; ``source`` is the event's, or ERROR."""

    caller: str
    end_user: str
    alias: str
    upstream_model: str
    provider: str
    source: str

    def folded(self) -> "Names":
        """Give the names that the configuration bounds; who is not named stays unnamed."""
        end_user, upstream_model = self.end_user and OTHER, self.upstream_model and OTHER
        return self._replace(end_user=end_user, upstream_model=upstream_model)


class Cell:
    """The sums of some names in one minute, until ``until_s`` on the monotonic clock."""

    __slots__ = (
        "hits",
        "minute",
        "names",
        "requests",
        "saved",
        "taken",
        "tokens",
        "until_s",
        "upstream_calls",
        "written_as",
    )

    def __init__(self, names: Names, minute: int, until_s: float) -> None:
        self.names = names
        self.minute = minute
        self.until_s = until_s
        self.hits = 0
        """Requests of the lane's, each of which saved a call."""
        self.requests = self.tokens = self.upstream_calls = self.saved = 0
        self.taken: Sums = _NOTHING
        self.written_as: Names | None = None
        """These two are the thread's."""

    def sums(self) -> Sums:
        """Add up what there is by now."""
        hits = self.hits
        requests = self.requests + hits
        errors = requests if self.names.source == ERROR else 0
        return requests, self.tokens, self.upstream_calls, errors, self.saved + hits


class Usage:
    """One worker's ledger; without a ``file`` nothing is kept.

    ``observe`` is told of requests that were ``sent`` to the file or ``dropped``. The loop calls
    ``emit`` and ``cell``, which never wait; a thread writes.
    """

    def __init__(
        self,
        file: UsageFile | None,
        max_end_users: int,
        pseudonym_key: bytes | None,
        observe: Callable[[str, int], None],
        wall_clock: Callable[[], float],
    ) -> None:
        self.file = file
        self.complete_until_s = wall_clock()
        """What this worker counted until then is in the file."""
        self.readers = ThreadPoolExecutor(1, "usage-report")
        """Reports are made here, one at a time."""
        self.waiting_readers = 0
        self._max_end_users = max_end_users
        self._pseudonym_key = pseudonym_key
        self._observe = observe
        self._wall_clock = wall_clock
        self._cells: dict[Names, Cell] = {}
        self._end_users: dict[str, set[str]] = {}
        self._minute, self._until_s = 0, 0.0
        self._lost = 0
        self._ended: deque[list[Cell]] = deque()
        # From here on the thread's, or whose who holds the lock.
        self._flushing = threading.Lock()
        self._pending: dict[tuple[int, Names], Sums] = {}
        self._lost_before = self._dropped = self._tidied = 0
        self._trouble = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="usage", daemon=True)
        if file is not None:
            self._thread.start()

    def emit(self, event: CountEvent) -> None:
        """Add one event."""
        source = event.source or ERROR
        names = Names(
            event.caller,
            event.end_user,
            event.alias,
            event.upstream_model,
            event.provider,
            source,
        )
        cell = self.cell(names, time.monotonic())
        cell.requests += 1
        cell.tokens += event.input_tokens
        cell.upstream_calls += event.upstream_calls
        if source in _SAVING and not event.upstream_calls:
            cell.saved += 1

    def cell(self, names: Names, now_s: float) -> Cell:
        """Find where this is counted, up to the cell's ``until_s``."""
        if now_s >= self._until_s:
            self._turn(now_s)
        return self._cells.get(names) or self._begin(names)

    def end(self) -> None:
        """Begin to end: what is left is written. Does not wait."""
        self._stop.set()
        self.readers.shutdown(wait=False, cancel_futures=True)

    def wait(self, timeout_s: float) -> None:
        """Wait until it is, or is left."""
        if self.file is not None:
            self._thread.join(timeout_s)

    def flush(self) -> bool:
        """Write all that has been counted by now; say whether it is written. In any thread."""
        if self.file is None:
            return False
        with self._flushing:
            now_s = self._wall_clock()
            self._gather()
            minute = int(now_s // 60)
            try:
                self.file.write([Row(at, *names, *sums) for (at, names), sums in self._all()])
                self._observe("sent", sum(sums[0] for _, sums in self._all()))
                self._pending.clear()
                if minute != self._tidied:
                    self.file.tidy(minute)
                    self._tidied = minute
            except UsageFileError as error:
                self._complain(str(error))
                return False
            self._complain("")
            self.complete_until_s = now_s
            return True

    def _all(self) -> list[tuple[tuple[int, Names], Sums]]:
        return list(self._pending.items())

    def _turn(self, now_s: float) -> None:
        """Begin the next minute, and hand over the one that has ended."""
        wall_s = self._wall_clock()
        self._minute = int(wall_s // 60)
        self._until_s = now_s + 60 - wall_s % 60
        if self._cells and self.file is not None:
            if len(self._ended) >= MAX_ENDED:
                oldest = self._ended.popleft()
                self._lost += sum(cell.sums()[0] - cell.taken[0] for cell in oldest)
            self._ended.append(list(self._cells.values()))
        self._cells, self._end_users = {}, {}

    def _begin(self, names: Names) -> Cell:
        end_user = names.end_user
        if end_user:
            known = self._end_users.setdefault(names.caller, set())
            if end_user not in known and len(known) >= self._max_end_users:
                names = names._replace(end_user=OTHER)
            else:
                known.add(end_user)
        if len(self._cells) >= MAX_CELLS:
            names = names.folded()
        cell = self._cells.get(names)
        if cell is None:
            cell = self._cells[names] = Cell(names, self._minute, self._until_s)
        return cell

    def _work(self) -> None:
        while not self._stop.wait(FLUSH_S):
            self._try()
        until_s = time.monotonic() + LAST_S
        while not self._try() and time.monotonic() < until_s:
            time.sleep(0.05)
        with self._flushing:
            self._drop(sum(sums[0] for sums in self._pending.values()))
            self._pending.clear()
            if self._dropped:
                logger.error("telemetry.usage: %d requests are not in it", self._dropped)
            if self.file is not None:
                self.file.close()

    def _try(self) -> bool:
        try:
            return self.flush()
        except Exception as error:  # noqa: BLE001 -- the thread outlives whatever it is
            self._complain(describe(error))
            return False

    def _gather(self) -> None:
        """Take what has been counted since the last time."""
        lost, self._lost_before = self._lost - self._lost_before, self._lost
        self._drop(lost)
        while True:
            try:
                ended = self._ended.popleft()
            except IndexError:  # the loop takes from it, too, when there are too many
                break
            self._take(ended)
        # One step of the interpreter: nothing is added to the map meanwhile.
        self._take(list(self._cells.values()))

    def _take(self, cells: list[Cell]) -> None:
        for cell in cells:
            sums, taken = cell.sums(), cell.taken
            if sums == taken:
                continue
            cell.taken = sums
            if cell.written_as is None:
                cell.written_as = self._written_as(cell.names)
            requests, tokens, calls, errors, saved = map(int.__sub__, sums, taken)
            self._keep(cell.minute, cell.written_as, (requests, tokens, calls, errors, saved))

    def _keep(self, minute: int, names: Names, more: Sums) -> None:
        pending, at = self._pending, (minute, names)
        if at not in pending and len(pending) >= MAX_PENDING:
            at = (minute, names.folded())
            if at not in pending and len(pending) >= 2 * MAX_PENDING:
                self._drop(more[0])
                return
        requests, tokens, calls, errors, saved = map(int.__add__, pending.get(at, _NOTHING), more)
        pending[at] = requests, tokens, calls, errors, saved

    def _written_as(self, names: Names) -> Names:
        """Hash the end user where that is wished, and leave nothing that a terminal obeys."""
        end_user = names.end_user
        if self._pseudonym_key and end_user not in {"", OTHER}:
            end_user = pseudonym(self._pseudonym_key, end_user)
        return Names(*map(inert, names._replace(end_user=end_user)))

    def _drop(self, requests: int) -> None:
        if requests:
            self._dropped += requests
            self._observe("dropped", requests)

    def _complain(self, trouble: str) -> None:
        """Say once what keeps the file from being written, and once that nothing does any more."""
        if trouble and not self._trouble:
            logger.error("telemetry.usage: %s; counting goes on, in memory", trouble)
        elif self._trouble and not trouble:
            logger.warning("telemetry.usage: written again")
        self._trouble = trouble


def inert(text: str) -> str:
    """Write characters that are no text, line ends and terminal commands say, as escapes."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
