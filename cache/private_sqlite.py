"""What other rooms that keep an SQLite file of their own share with the host tier."""

from cache._private import HostFileError, open_private, private_folder, private_status
from cache._sqlite import code_of, connect, is_corrupt, transaction

__all__ = [
    "HostFileError",
    "code_of",
    "connect",
    "is_corrupt",
    "open_private",
    "private_folder",
    "private_status",
    "transaction",
]
