"""The places of questions against a plain model: bounds, turns, and none that is lost."""

import asyncio
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.rooms import Rooms

addresses = st.sampled_from(["a", "b", "c"])


class RoomsMachine(RuleBasedStateMachine):
    """Who waits is cancelled before, while and after a place is handed to it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.inside: list[str] = []
        self.waiting: list[tuple[str, asyncio.Task[None]]] = []

    @initialize(total=st.integers(1, 4), share=st.integers(1, 4))
    def open(self, total: int, share: int) -> None:
        self.total, self.share = total, min(share, total)
        self.rooms = Rooms(self.total, self.share)

    def has_room(self, address: str) -> bool:
        taken = Counter(self.inside)
        return len(self.inside) < self.total and taken[address] < self.share

    def settle(self) -> None:
        """Let the loop turn, and expect inside who comes first of those that there is room for."""
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.run_until_complete(asyncio.sleep(0))
        for one in list(self.waiting):
            address, task = one
            if self.has_room(address):
                assert task.done()
                self.inside.append(address)
                self.waiting.remove(one)
            else:
                assert not task.done()

    @rule(address=addresses)
    def take(self, address: str) -> None:
        expected = self.has_room(address)
        assert self.rooms.take(address) == expected
        if expected:
            self.inside.append(address)

    @rule(address=addresses)
    def wait(self, address: str) -> None:
        self.waiting.append((address, self.loop.create_task(self.rooms.wait(address))))
        self.settle()

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.rooms.leave(self.inside.pop(data.draw(st.integers(0, len(self.inside) - 1))))
        self.settle()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), left=st.sampled_from(["", "before", "after"]))
    def cancel(self, data: st.DataObject, left: str) -> None:
        """Cancel who waits; a place may be left before or after that, in the same turn."""
        _, task = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        leaver = self.inside.pop() if left and self.inside else ""
        if leaver and left == "before":
            self.rooms.leave(leaver)
        task.cancel()
        if leaver and left == "after":
            self.rooms.leave(leaver)
        self.settle()
        assert task.cancelled()

    @invariant()
    def is_counted(self) -> None:
        if hasattr(self, "rooms"):
            assert self.rooms._free == self.total - len(self.inside)

    def teardown(self) -> None:
        for _, task in self.waiting:
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        for address in self.inside:
            self.rooms.leave(address)
        self.loop.close()
        assert self.rooms._free == self.total
        assert not self.rooms._taken
        assert not self.rooms._waiting


RoomsMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=30)
TestRooms = RoomsMachine.TestCase
