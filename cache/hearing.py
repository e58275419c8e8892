"""How a worker hears that a model's generation has ended, and sees that the others hear it too.

Each second it reads what the host's file and the cluster say, keeps the greatest, and writes back
what they lack: a write that was dropped, a file that was begun anew, a server that was emptied.
"""

import asyncio
import logging
import sqlite3
import traceback

from cache.cluster import ClusterCache
from cache.generations import Generations
from cache.host import HostCache

EVERY_S = 1.0

logger = logging.getLogger("tallygate.cache")


class Hearing:
    """Listens to the shared tiers, and keeps an eye on the cluster's breaker."""

    def __init__(
        self, generations: Generations, host: HostCache | None, cluster: ClusterCache | None
    ) -> None:
        self._generations = generations
        self._host = host
        self._cluster = cluster
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Hear what holds, and go on listening."""
        loop = asyncio.get_running_loop()
        self.hear_host()
        self._tasks.append(loop.create_task(self._listen()))
        if self._cluster is not None:
            self._tasks.append(loop.create_task(self._cluster.probe_forever()))

    async def _listen(self) -> None:
        while True:
            try:
                if self._cluster is not None:
                    await self._hear_cluster(self._cluster)
                await asyncio.sleep(EVERY_S)
                self.hear_host(tell=True)
            except Exception as error:  # noqa: BLE001
                # Whatever it was: a worker that stops listening would serve what was purged.
                self._tell(error)
                await asyncio.sleep(EVERY_S)

    def _tell(self, error: Exception) -> None:
        """Log a fault of ours by its place; its text may quote what was read."""
        place = "".join(traceback.format_tb(error.__traceback__))
        logger.error("generations could not be heard: %s\n%s", type(error).__name__, place)

    async def _hear_cluster(self, cluster: ClusterCache) -> None:
        heard = await cluster.generations()
        if heard is None:
            return
        self._generations.merge(heard)
        for model, generation in self._generations.ahead_of(heard).items():
            await cluster.raise_generation(model, generation)

    def hear_host(self, *, tell: bool = False) -> None:
        """Hear the host's file at once, in a few microseconds; ``tell`` it what it lacks."""
        if self._host is None:
            return
        try:
            heard = self._host.generations()
        except (sqlite3.Error, OSError):
            return
        self._generations.merge(heard)
        if tell and self._host.healthy:
            for model, generation in self._generations.ahead_of(heard).items():
                self._host.raise_generation(model, generation)

    async def close(self) -> None:
        """Stop listening."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
