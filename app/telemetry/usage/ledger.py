"""One worker's ledger: a thread takes what the loop has counted, and adds it to the file."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from app.log import describe, logger
from app.telemetry.event import CountEvent
from app.telemetry.inert import inert
from app.telemetry.record import pseudonym
from app.telemetry.usage.cells import NOTHING, Cell, Cells, Names, Sums
from app.telemetry.usage.file import UsageFile, UsageFileError
from app.telemetry.usage.table import OTHER, Row

FLUSH_S = 0.5
"""How often is written; a worker that is killed loses what it has counted since."""
LAST_S = 0.4
"""How long a worker that ends tries again to write the rest; one try may take a second."""
MAX_PENDING = 20_000
"""Rows that wait for a file that does not take them; beyond it end users and upstream models are
all OTHER; of these, as many again."""


class Usage:
    """Counts every event; without a ``file`` nothing is kept.

    ``observe`` is told of requests that were ``sent`` to the file or ``dropped``. The loop calls
    ``emit`` and ``cell``, which never wait.
    """

    def __init__(
        self,
        file: UsageFile | None,
        max_end_users: int,
        pseudonym_key: bytes | None,
        observe: Callable[[str, int], None],
        wall_clock: Callable[[], float],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.file = file
        self.complete_until_s = wall_clock()
        """What this worker counted until then is in the file."""
        self.readers = ThreadPoolExecutor(1, "usage-report")
        """Reports are made here, one at a time."""
        self.waiting_readers = 0
        self._cells = Cells(max_end_users, wall_clock, clock, is_kept=file is not None)
        self.emit: Callable[[CountEvent], None] = self._cells.add
        self.cell: Callable[[Names, float], Cell] = self._cells.find
        self._pseudonym_key = pseudonym_key
        self._observe = observe
        self._wall_clock = wall_clock
        # From here on the thread's, or whose who holds the lock.
        self._flushing = threading.Lock()
        self._pending: dict[tuple[int, Names], Sums] = {}
        self._lost_before = self._dropped = self._tidied = 0
        self._trouble = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="usage", daemon=True)
        if file is not None:
            self._thread.start()

    def end(self) -> None:
        """Begin to end: what is left is written. Does not wait."""
        self._stop.set()
        self.readers.shutdown(wait=False, cancel_futures=True)

    def wait(self, timeout_s: float) -> None:
        """Wait until it is, or is left; then say how much that is."""
        if self.file is None:
            return
        self._thread.join(timeout_s)
        self._drop(sum(sums[0] for sums in tuple(self._pending.values())))
        if self._dropped:
            logger.error("telemetry.usage: %d requests are not in it", self._dropped)

    def flush(self) -> bool:
        """Write all that has been counted by now; say whether it is written. In any thread."""
        if self.file is None:
            return False
        with self._flushing:
            now_s = self._wall_clock()
            self._gather()
            try:
                self._write(self.file, int(now_s // 60))
            except UsageFileError as error:
                self._complain(str(error))
                return False
            self._complain("")
            self.complete_until_s = now_s
            return True

    def _write(self, file: UsageFile, minute: int) -> None:
        file.write([Row(at, *names, *sums) for (at, names), sums in self._pending.items()])
        self._observe("sent", sum(sums[0] for sums in self._pending.values()))
        self._pending.clear()
        if minute != self._tidied:
            self._tidied = minute
            file.tidy(minute)

    def _work(self) -> None:
        while not self._stop.wait(FLUSH_S):
            self._try()
        until_s = time.monotonic() + LAST_S
        while not self._try() and time.monotonic() < until_s:
            time.sleep(0.05)
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
        lost = self._cells.lost
        self._drop(lost - self._lost_before)
        self._lost_before = lost
        for cells in self._cells.hand_over():
            for cell in cells:
                sums, taken = cell.sums(), cell.taken
                if sums != taken:
                    cell.taken = sums
                    self._keep(cell, _added(sums, tuple(-one for one in taken)))

    def _keep(self, cell: Cell, more: Sums) -> None:
        if cell.written_as is None:
            cell.written_as = self._written_as(cell.names)
        pending, at = self._pending, (cell.minute, cell.written_as)
        if at not in pending and len(pending) >= MAX_PENDING:
            at = (cell.minute, cell.written_as.folded())
            if at not in pending and len(pending) >= 2 * MAX_PENDING:
                self._drop(more[0])
                return
        pending[at] = _added(pending.get(at, NOTHING), more)

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


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> Sums:
    requests, tokens, calls, errors, saved = map(int.__add__, one, other)
    return requests, tokens, calls, errors, saved
