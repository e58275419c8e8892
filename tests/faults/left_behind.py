"""Everything that a server leaves, by the place in which it was left."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import redis

from tests.faults.redis_server import RedisServer
from tests.server import ROOT


class LeftBehind:
    """Bytes by where they were found."""

    def __init__(self) -> None:
        self.places: dict[str, bytes] = {}

    def keep(self, place: str, data: bytes) -> None:
        """Add to what was found there."""
        self.places[place] = self.places.get(place, b"") + b"\n" + data

    def answers(self, place: str, answers: Iterable[httpx.Response]) -> None:
        """Keep answers as a client reads them, headers included."""
        for one in answers:
            self.keep(place, b"\n".join([*map(b": ".join, one.headers.raw), one.content]))

    def files(self, folder: Path, *but: str) -> None:
        """Keep every file below a folder, and their names; not those that are named in ``but``."""
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name not in but:
                self.keep(str(path.relative_to(folder)), path.read_bytes())
                self.keep("names of files", str(path.relative_to(folder)).encode())

    def processes(self, pid: int) -> None:
        """Keep command lines, open files and shared memory of a process and its descendants."""
        for one in _family(pid):
            with contextlib.suppress(OSError):  # a worker may end meanwhile
                self.keep("process list", Path(f"/proc/{one}/cmdline").read_bytes())
                for data in _open_files(one):
                    self.keep("open files", data)
                for data in _shared_memory(one):
                    self.keep("shared memory", data)

    def commands(self, *lines: str, environ: dict[str, str]) -> None:
        """Run ``python -m app …`` for each line, all at once, and keep what they print."""
        environ = {"PATH": os.environ["PATH"], **environ}
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "app", *line.split()],
                cwd=ROOT,
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for line in lines
        ]
        for line, one in zip(lines, running, strict=True):
            self.keep(f"app {line}", one.communicate()[0])


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _family(int(child))


def _open_files(pid: int) -> Iterator[bytes]:
    """Read what is no socket, no pipe and no device; a file without a name too."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if descriptor.is_file():
                yield str(descriptor.readlink()).encode()
                yield descriptor.read_bytes()


def _shared_memory(pid: int) -> Iterator[bytes]:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights = line.split()[:2]
            if rights.startswith("r") and rights.endswith("s"):
                start, end = (int(part, 16) for part in place.split("-"))
                with contextlib.suppress(OSError):
                    memory.seek(start)
                    yield memory.read(end - start)


class GuardedRedis(RedisServer):
    """Wants a password, and notes every command that it is sent: what is kept for a moment too."""

    def __init__(self, folder: Path, password: str) -> None:
        self._password = password
        self._heard = bytearray()
        # Compressed values could not be searched.
        super().__init__(
            folder, "redis-server", "--requirepass", password, "--rdbcompression", "no"
        )
        self.url = f"redis://:{quote(password, safe='')}@127.0.0.1:{self.port}/0"

    def do(self, *command: str | bytes | int) -> Any:
        """Run a command as the operator, who knows the password."""
        with redis.Redis(port=self.port, password=self._password, socket_timeout=10) as client:
            return client.execute_command(*command)

    def contents(self) -> bytes:
        """Read every key and value."""
        with redis.Redis.from_url(self.url) as client:
            return b"\n".join(key + b" " + (client.dump(key) or b"") for key in client.scan_iter())

    def heard(self) -> bytes:
        """Give every command so far, without the quoting of MONITOR."""
        return self._heard.decode("unicode_escape").encode("latin-1")

    def __enter__(self) -> Self:
        self._line = socket.create_connection(("127.0.0.1", self.port))
        login = b"AUTH", self._password.encode()
        self._line.sendall(_command(*login) + _command(b"MONITOR"))
        assert self._line.recv(10) == b"+OK\r\n+OK\r\n"
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        return super().__enter__()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._line.recv(65_536):
                self._heard += data

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._listener.join()
        self._line.close()


def _command(*words: bytes) -> bytes:
    parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n%b" % (len(words), b"".join(parts))
