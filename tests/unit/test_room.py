"""How the descriptors of a process are shared out."""

import pytest

from app.descriptors import OTHER_FILES, Room
from app.upstream import MAX_CONNECTIONS


@pytest.mark.parametrize("descriptors", [16, 64, 128, 256, 1024, 4096, 20_000, 1_048_576])
def test_all_that_may_be_open_at_a_time_has_a_descriptor(descriptors: int) -> None:
    room = Room.within(descriptors, wanted=10_000)
    files = min(OTHER_FILES, descriptors // 4)
    assert room.clients + room.spare + room.providers + files <= descriptors
    assert min(room.clients, room.spare, room.providers) > 0


def test_where_there_are_enough_everybody_has_what_it_wants() -> None:
    assert Room.within(20_000, 10_000) == Room(10_000, MAX_CONNECTIONS, 2 * MAX_CONNECTIONS)


def test_most_are_for_clients() -> None:
    assert Room.within(1024, 10_000) == Room(clients=480, spare=240, providers=240)
