"""Files that only this user's processes share: their folder, their owner, their kind."""

import os
import stat
from pathlib import Path


class HostFileError(Exception):
    """A file that cannot be used, and why; the text names no content."""


def private_folder(folder: Path) -> None:
    """Make the folder (0700) where it is missing. Raises HostFileError, OSError.

    Whoever may write to the folder may put another file in ours' place: it must be this user's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise HostFileError(f"{folder}: not a folder, or a link to one")
    if status.st_uid != os.geteuid():
        raise HostFileError(f"{folder}: belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise HostFileError(f"{folder}: others may write to it")


def private_status(path: Path) -> os.stat_result | None:
    """Look at the file without opening it; None when there is none. Raises HostFileError, OSError.

    Never opens: closing any descriptor of a file drops the record locks that this process holds
    on it, SQLite's own included.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise HostFileError(f"{path}: not a regular file")
    if status.st_uid != os.geteuid():
        raise HostFileError(f"{path}: belongs to another user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        path.chmod(0o600)
    return status


def open_private(path: Path, flags: int = 0) -> int:
    """Open a file of our own to read and write, made (0600) where it is missing.

    Returns a descriptor that no child inherits. Raises HostFileError, OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        os.close(descriptor)
        raise HostFileError(f"{path}: not a regular file of this user")
    return descriptor
