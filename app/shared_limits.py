"""What all workers of a server share about limits: made by the main process, used in each worker.

A deployment or key that a new configuration keeps goes on in the same memory, so that workers of
the old and the new one share one budget while they are changed.
"""

import hashlib
import multiprocessing
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from adapters.base import Deployment
from app.budget import Budget, Budgets, Cluster
from app.config import Settings
from app.config_sections import CallerKey
from app.key_limits import KeyLimits
from app.last_errors import ErrorMemory
from app.limits import CELLS, Deployments
from app.limits import Note as Heard
from app.log import logger
from cache.host_pace import HostPace, pace_cells
from cache.miss_log import Bounds, MissLog, log_cells
from cache.pace import Pace
from cache.shared_lock import TURNS, LockFile

Note = Callable[[str], None]

LIVE_TRIES, LIVE_PAUSE_S = 100, 0.001
MAX_NUMBERS = 1 << 32
"""Of locks; beyond their bytes, one for each row: held by its worker for as long as it lives."""


class SharedLimits(Struct, frozen=True):
    """The memory of every budget and key, by what it is of, and the number of its lock."""

    file: LockFile
    host: str
    """Tells this server's workers from other machines'."""
    next_number: int
    memory: dict[str, tuple[int, Any]]
    left_alone: Any
    """Until when no deployment of this configuration is asked (`app.limits`): soon found out again,
    and so not kept when the configuration changes."""
    last_errors: ErrorMemory

    def deployments(self, settings: Settings, heard: Heard) -> Deployments:
        """Give a worker the state of every deployment."""
        return Deployments(
            settings.models.deployments, settings.limits, time.monotonic, self.left_alone, heard
        )

    def budgets(self, settings: Settings, row: int, cluster: Cluster, note: Note) -> Budgets:
        """Give the worker of a row its budgets."""
        made: dict[str, Budget] = {}
        names = _names(settings.models.deployments)
        for one in settings.models.deployments:
            if one.rpm is not None:
                name = names[one.name]
                number, cells = self.memory[name]
                pace = Pace.per_minute(one.rpm)
                host_pace = HostPace(pace, cells, self.file, number, row)
                made[one.name] = Budget(name, pace, host_pace, cluster=cluster, host=self.host)
        return Budgets(made, note)

    def key_limits(self, settings: Settings, row: int, note: Note) -> KeyLimits:
        """Give the worker of a row what its callers have asked."""
        logs: dict[str, MissLog] = {}
        for key in settings.keys:
            if key.is_limited:
                number, cells = self.memory[_key_name(key)]
                logs[key.name] = MissLog(
                    _bounds(key), cells, self.file, number, row=row, is_gone=self._is_gone
                )
        return KeyLimits(logs, time.monotonic, note)

    def live(self, row: int) -> None:
        """Say, for as long as this process lives, that the row has a worker."""
        for _ in range(LIVE_TRIES):  # another worker may be looking at this moment
            if self.file.hold(TURNS * MAX_NUMBERS + row):
                return
            time.sleep(LIVE_PAUSE_S)
        logger.error("a worker that has ended still holds row %d of the limits", row)

    def _is_gone(self, row: int) -> bool:
        byte = TURNS * MAX_NUMBERS + row
        gone = self.file.hold(byte)
        if gone:
            self.file.release(byte)
        return gone


def share_limits(settings: Settings, rows: int, before: SharedLimits | None = None) -> SharedLimits:
    """Make what the workers of ``rows`` rows share; ``before``: what they have shared so far."""
    names = [one.name for one in settings.models.deployments]
    last_errors = ErrorMemory.make(names, rows, before.last_errors if before else None)
    before = before or SharedLimits(LockFile(), secrets.token_hex(8), 0, {}, None, last_errors)
    cells = dict.fromkeys(_names(settings.models.deployments).values(), pace_cells(rows))
    limited = [key for key in settings.keys if key.is_limited]
    cells |= {_key_name(key): log_cells(rows, _bounds(key)) for key in limited}
    # Pickled as a handle when a process is started: all see the same memory.
    memory = {
        name: before.memory.get(name)
        or (before.next_number + index, multiprocessing.RawArray("d", count))
        for index, (name, count) in enumerate(cells.items())
    }
    next_number = before.next_number + len(memory)
    left_alone = multiprocessing.RawArray("d", CELLS * len(settings.models.deployments))
    return SharedLimits(before.file, before.host, next_number, memory, left_alone, last_errors)


def _names(deployments: tuple[Deployment, ...]) -> dict[str, str]:
    """Name the budgets by what they are of, whatever its place in the file: the same everywhere.

    Entries that differ in nothing but their credentials are told apart by their order.
    """
    seen: Counter[bytes] = Counter()
    names: dict[str, str] = {}
    for one in deployments:
        if one.rpm is None:
            continue
        at = one.endpoint
        place = (at.base_url, at.scope, at.project, at.location)
        who = msgspec.msgpack.encode((one.alias, one.provider, at.upstream_model, place))
        digest = hashlib.sha256(b"%d %b" % (seen[who], who)).hexdigest()[:32]
        seen[who] += 1
        names[one.name] = digest
    return names


def _key_name(key: CallerKey) -> str:
    return f"key {key.rpm} {key.name}"


def _bounds(key: CallerKey) -> Bounds:
    return Bounds(key.rpm, key.max_parallel_misses)
