"""How many questions are out at a time: so many in all, and so many at one address.

The loop's own semaphores, two for each question, take four times as long.
"""

import asyncio
from collections import Counter, deque


class Rooms:
    """``total`` places, of which one address may have ``share``; who waits comes in turn."""

    def __init__(self, total: int, share: int) -> None:
        self._free = total
        self._share = share
        self._taken: Counter[str] = Counter()
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()

    def take(self, address: str) -> bool:
        """Take a place if there is one. Nobody is overtaken: a place that is left is handed on."""
        if self._free <= 0 or self._taken[address] >= self._share:
            return False
        self._free -= 1
        self._taken[address] += 1
        return True

    async def wait(self, address: str) -> None:
        """Wait for a place, and take it."""
        if self.take(address):
            return
        handed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((address, handed))
        try:
            await handed
        except asyncio.CancelledError:
            # 1 a place is handed on; 2 who waits is cancelled before it runs: the next one's.
            if handed.done() and not handed.cancelled():
                self.leave(address)
            else:
                self._waiting.remove((address, handed))
            raise

    def leave(self, address: str) -> None:
        """Give a place back, or hand it on to the first who waits for one that is free now."""
        self._free += 1
        self._taken[address] -= 1
        if not self._taken[address]:
            del self._taken[address]
        for index, (other, handed) in enumerate(self._waiting):
            if not handed.done() and self.take(other):
                del self._waiting[index]
                handed.set_result(None)
                return
