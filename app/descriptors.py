"""How the descriptors of a worker are shared out: clients, providers, files."""

import resource
import sys

from msgspec import Struct

from app.upstream import MAX_CONNECTIONS

OTHER_FILES = 64
"""Files, pipes, the cluster, and what credentials are asked of."""


class Room(Struct, frozen=True):
    """For how many connections a worker has descriptors."""

    clients: int
    spare: int
    """For clients who are told that there is no room."""
    providers: int

    @classmethod
    def within(cls, descriptors: int, wanted: int) -> "Room":
        """Share out descriptors, of which ``wanted`` at most are for clients."""
        files = min(OTHER_FILES, descriptors // 4)
        quarter = (descriptors - files) // 4
        spare, providers = min(MAX_CONNECTIONS, quarter), min(2 * MAX_CONNECTIONS, quarter)
        left = descriptors - files - spare - providers
        return cls(max(min(wanted, left), 1), spare, providers)


def room_for_connections(wanted: int) -> Room:
    """Take all descriptors that the system gives, and share them out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    descriptors = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    return Room.within(descriptors, wanted)
