"""The loop's side of the ledger: what is counted in this minute, without a lock.

    loop    cell.hits += 1 ─┐ a cell's sums only grow, and the loop alone adds to them
    thread  sums - taken ───┘ what was taken before is kept in the cell by the thread alone

Whatever the interleaving, nothing is lost or taken twice: the thread reads a sum before the loop's
addition or after it, and what it has not seen it finds the next time. A minute that has ended is
handed over whole, and nothing is added to it any more: whoever holds a cell looks at its end first,
on the loop, with no await between the look and the addition.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from app.telemetry.event import CountEvent
from app.telemetry.usage.table import OTHER

MAX_CELLS = 20_000
"""Of one minute; beyond it end users and upstream models are all OTHER."""
MAX_ENDED = 8
"""Minutes that wait for a thread that hangs; beyond it the oldest is lost, and told of."""
ERROR = "error"
_SAVING = frozenset({"cache", "coalesced"})

Sums = tuple[int, int, int, int, int]
"""Requests, tokens, upstream calls, errors, upstream calls saved."""
NOTHING: Sums = (0, 0, 0, 0, 0)


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
        self.taken: Sums = NOTHING
        self.written_as: Names | None = None
        """These two are the thread's."""

    def sums(self) -> Sums:
        """Add up what there is by now."""
        hits = self.hits
        requests = self.requests + hits
        errors = requests if self.names.source == ERROR else 0
        return requests, self.tokens, self.upstream_calls, errors, self.saved + hits


class Cells:
    """The cells of this minute, and those of ended ones until the thread takes them.

    Of one caller's end users ``max_end_users`` have cells of their own. Where nothing ``is_kept``,
    ended minutes are forgotten.
    """

    def __init__(
        self,
        max_end_users: int,
        wall_clock: Callable[[], float],
        clock: Callable[[], float],
        *,
        is_kept: bool,
    ) -> None:
        self.lost = 0
        """Requests of minutes that nobody took in time."""
        self._max_end_users = max_end_users
        self._wall_clock = wall_clock
        self._clock = clock
        self._is_kept = is_kept
        self._cells: dict[Names, Cell] = {}
        self._end_users: dict[str, set[str]] = {}
        self._minute, self._until_s = 0, 0.0
        self._ended: deque[list[Cell]] = deque()

    def add(self, event: CountEvent) -> None:
        """Count one event."""
        source = event.source or ERROR
        names = Names(
            event.caller,
            event.end_user,
            event.alias,
            event.upstream_model,
            event.provider,
            source,
        )
        cell = self.find(names, self._clock())
        cell.requests += 1
        cell.tokens += event.input_tokens
        cell.upstream_calls += event.upstream_calls
        if source in _SAVING and not event.upstream_calls:
            cell.saved += 1

    def find(self, names: Names, now_s: float) -> Cell:
        """Find where this is counted, up to the cell's ``until_s``."""
        if now_s >= self._until_s:
            self._turn(now_s)
        return self._cells.get(names) or self._begin(names)

    def hand_over(self) -> Iterator[list[Cell]]:
        """Give the thread all that there may be something new in."""
        while True:
            try:
                ended = self._ended.popleft()
            except IndexError:  # the loop takes from it, too, when there are too many
                break
            yield ended
        # One step of the interpreter: nothing is added to the map meanwhile.
        yield list(self._cells.values())

    def _turn(self, now_s: float) -> None:
        """Begin the next minute, and hand over the one that has ended."""
        wall_s = self._wall_clock()
        self._minute = int(wall_s // 60)
        self._until_s = now_s + 60 - wall_s % 60
        if self._cells and self._is_kept:
            if len(self._ended) >= MAX_ENDED:
                oldest = self._ended.popleft()
                self.lost += sum(cell.sums()[0] - cell.taken[0] for cell in oldest)
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
