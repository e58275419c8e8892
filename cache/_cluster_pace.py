"""A pace that all machines share: the arithmetic of `cache.pace`, by the server's own clock."""

from msgspec import Struct

from cache._cluster_faults import AwayError
from cache._cluster_link import Link
from cache._cluster_scripts import PACE
from cache.pace import Pace

LATELY_S = 2.0


class Paced(Struct, frozen=True):
    """What a machine got: how many slots, how long until the next, and among how many machines."""

    taken: int
    wait_s: float
    hosts: int


async def take_slots(
    link: Link, key: str, pace: Pace, wanted: int, host: str, *, owed: int
) -> Paced:
    """Take at most ``wanted`` slots. Raises AwayError for an answer that is none."""
    interval_us = pace.interval_s * 1e6
    # Who waits asks again at each slot.
    lately_us = max(LATELY_S, 2 * pace.interval_s) * 1e6
    args = (f"{interval_us:.17g}", pace.burst, wanted, host, f"{lately_us:.0f}", owed)
    reply = await link.run(PACE, [key, f"{key}:hosts"], *args)
    if not isinstance(reply, list) or len(reply) != 3:  # noqa: PLR2004
        raise AwayError
    taken, wait_us, hosts = (int(one) for one in reply)
    return Paced(taken, wait_us / 1e6, hosts)
