"""What other rooms that keep an SQLite file of their own share with the host tier."""

from cache._file_set import FileSet, inode
from cache._private import HostFileError, private_folder, private_status
from cache._sqlite import code_of, connect, is_corrupt, transaction

__all__ = [
    "FileSet",
    "HostFileError",
    "code_of",
    "connect",
    "inode",
    "is_corrupt",
    "private_folder",
    "private_status",
    "transaction",
]
