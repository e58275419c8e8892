"""A name server that knows what to say of every name, and a process that asks nobody else."""

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

ADDRESS = "127.53.0.53"
LOOPBACK, NO_SUCH_NAME, SERVER_FAILURE, REFUSED = 0, 3, 2, 5
_IPV4 = b"\x00\x01"
_AT_LOOPBACK = b"\xc0\x0c" + _IPV4 + b"\x00\x01" + bytes(4) + b"\x00\x04" + bytes([127, 0, 0, 1])
"""The name of the question, its IPv4 address, not to be kept."""


class NameServer:
    """Answers each question with the error ``code``, with LOOPBACK, or not at all (None)."""

    def __init__(self) -> None:
        self.code: int | None = NO_SUCH_NAME
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((ADDRESS, 53))
        except OSError as error:
            self._socket.close()
            pytest.xfail(f"{ADDRESS}:53 cannot be listened on: {error}")
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                asked, sender = self._socket.recvfrom(4096)
                if not asked:
                    return
                self.asked += 1
                if self.code is not None:
                    self._socket.sendto(_answer(asked, self.code), sender)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (ADDRESS, 53))
        self._thread.join()
        self._socket.close()


def _answer(asked: bytes, code: int) -> bytes:
    """Send the question back, as an answer with recursion, and with the code."""
    end = asked.index(b"\0", 12) + 5
    found = code == LOOPBACK and asked[end - 4 : end - 2] == _IPV4
    head = asked[:2] + bytes([0x81, 0x80 | code]) + asked[4:6] + bytes([0, found]) + bytes(4)
    return head + asked[12:end] + (_AT_LOOPBACK if found else b"")


def with_name_server(folder: Path) -> tuple[str, ...]:
    """Compose the start of a command whose process sees a resolv.conf of its own.

    Where the kernel allows none, the test ends as expected to fail: no package would help.
    """
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-rm", "true"], check=False).returncode
    ):
        pytest.xfail("no mount namespace can be made here: names are looked up as the machine does")
    conf = folder / "resolv.conf"
    conf.write_text(f"nameserver {ADDRESS}\noptions timeout:30 attempts:1\n")
    script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    return (
        "unshare",
        "-rm",
        "sh",
        "-c",
        script,
        str(conf),
        sys.executable,
        "-m",
        "sanic",
        "app.main",
    )
