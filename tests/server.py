"""A real server: `sanic app.main` as a process of its own, stopped by its pid."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

ROOT = Path(__file__).parent.parent
KEY = "sk-test-0123456789abcdef"
START_S = 30.0


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Tallygate:
    """Starts in ``folder``'s configuration and waits until every worker answers.

    ``config`` is written to config.yaml; a ``general_settings.master_key`` of KEY is added when
    it has none, and the end waits for no load balancer to look. Standard output (the JSON lines)
    and standard error are files in ``folder``.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *,
        workers: int = 1,
        environ: dict[str, str] | None = None,
        command: tuple[str, ...] = (sys.executable, "-m", "sanic", "app.main"),
        arguments: tuple[str, ...] = (),
    ) -> None:
        general = {"master_key": KEY, **config.get("general_settings", {})}
        listening = {"drain_notice_s": 0, **config.get("server", {})}
        config = {**config, "general_settings": general, "server": listening}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.out, self.err = folder / "stdout", folder / "stderr"
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with self.out.open("wb") as out, self.err.open("wb") as err:
            # A session of its own: a failed start of Sanic kills its whole process group.
            self._process = subprocess.Popen(
                [*command, "--workers", str(workers), "--port", str(self.port), *arguments],
                cwd=ROOT,
                env={
                    **kept,
                    "TALLYGATE_CONFIG": str(folder / "config.yaml"),
                    "XDG_CACHE_HOME": str(folder),
                    **(environ or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self._wait_until_ready()

    @property
    def pid(self) -> int:
        """The main process."""
        return self._process.pid

    def count(self, body: dict[str, Any] | bytes, **headers: str) -> httpx.Response:
        """Ask once, over a connection of its own, with KEY unless another credential is given."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if not {"authorization", "x-api-key", "x-litellm-api-key"} & sent.keys():
            sent["authorization"] = f"Bearer {KEY}"
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        url = f"{self.url}/v1/messages/count_tokens"
        return httpx.post(url, headers=sent, timeout=30, verify=False, **content)

    def metrics(self) -> dict[str, float]:
        """Read every series of ``/metrics``."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def stop(self) -> int:
        """End the server as an operator does, and return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        return self._process.returncode

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError(f"the server ended: {self.err.read_text()}")
            try:
                if httpx.get(f"{self.url}/health/readiness").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        self.stop()
        raise AssertionError(f"the server did not start: {self.err.read_text()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
