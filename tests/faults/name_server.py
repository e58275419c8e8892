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
NO_SUCH_NAME, SERVER_FAILURE, REFUSED = 3, 2, 5


class NameServer:
    """Answers each question with the error ``code``, or not at all (None)."""

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
                    # The question comes back, as an answer with recursion, and with the code.
                    flags = bytes([0x81, 0x80 | self.code])
                    counts = asked[4:6] + bytes(6)
                    end = asked.index(b"\0", 12) + 5
                    self._socket.sendto(asked[:2] + flags + counts + asked[12:end], sender)

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
