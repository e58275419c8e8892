"""A server process that need not come up: what it says, and how it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.e2e.exchange import PATIENCE_S
from tests.server import ROOT

SANIC = (sys.executable, "-m", "sanic", "app.main")


class Launch:
    """Runs a command on a configuration, which may be data, text, or None for no file at all."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any] | str | None,
        *arguments: str,
        command: tuple[str, ...] = SANIC,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.config = folder / "config.yaml"
        self.out, self.err = folder / "stdout", folder / "stderr"
        if config is not None:
            text = config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False)
            self.config.write_text(text)
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self._process = subprocess.Popen(
                [*command, *arguments],
                cwd=ROOT,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(folder),
                    "TALLYGATE_CONFIG": str(self.config),
                    **(environ or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def ends(self) -> int:
        """Wait for the process to end by itself, and return its exit code."""
        return self._process.wait(timeout=PATIENCE_S)

    def says(self, text: str) -> None:
        """Wait until standard error holds the text."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.err.read_text():
            assert self._process.poll() is None, self.err.read_text()
            assert time.monotonic() < deadline, self.err.read_text()
            time.sleep(0.05)

    def answers(self, port: int) -> None:
        """Wait until somebody answers on the port."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert self._process.poll() is None, self.err.read_text()
            try:
                url = f"http://127.0.0.1:{port}/health/liveliness"
                assert httpx.get(url).json() == "I'm alive!"
            except httpx.TransportError:
                assert time.monotonic() < deadline, self.err.read_text()
                time.sleep(0.05)
            else:
                return

    def refusal(self) -> str:
        """Wait for a refusal to start: exit code 1, and the one line that it says."""
        assert self.ends() == 1
        assert self.out.read_text() == ""
        (line,) = self.err.read_text().splitlines()
        return line

    def terminate(self) -> int:
        """End it as an operator does, and return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=2 * PATIENCE_S)

    def kill(self) -> None:
        """End what still runs, workers included."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
