"""Work that no answer waits for: bounded, never raising, ended with its owner."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Background:
    """Runs at most ``max_tasks`` coroutines at a time; more are dropped and told to ``dropped``."""

    def __init__(self, max_tasks: int, dropped: Callable[[], None]) -> None:
        self._max_tasks = max_tasks
        self._dropped = dropped
        self._tasks: set[asyncio.Task[object]] = set()

    def run(self, work: Coroutine[Any, Any, object]) -> None:
        """Start the work, or drop it."""
        if len(self._tasks) >= self._max_tasks:
            work.close()
            self._dropped()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        # Looked at, so that nothing is reported as never retrieved: a lost write is a later miss.
        if not task.cancelled() and task.exception() is not None:
            self._dropped()

    async def close(self, wait_s: float) -> None:
        """Let what is out finish for ``wait_s`` seconds, then cancel the rest."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=wait_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    def __len__(self) -> int:
        return len(self._tasks)
