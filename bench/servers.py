"""The servers that a benchmark starts and stops: each in a session of its own, on 127.0.0.1."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import msgspec
from msgspec import Struct

from bench import machine
from bench.play import Hits
from bench.provider import count_tokens
from bench.scenarios import COUNT_PATH
from bench.slice import Address
from bench.traffic import body

START_S = 60.0
_HITS = re.compile(rb'^tallygate_counts_total\{.*source="cache".*\} (\d+)$', re.MULTILINE)
_LANE_HITS = re.compile(rb"^tallygate_lane_hits_total (\d+)$", re.MULTILINE)
STOP_S = 20.0


class ServerFailedError(Exception):
    """A server that the benchmark needs did not start."""


class Process:
    """A server in a session of its own: Sanic kills its process group when a start fails.

    What it prints goes to a file, to be shown when something fails.
    """

    def __init__(
        self,
        name: str,
        *module: str,
        scratch: Path,
        command: tuple[str, ...] = (),
        environ: Mapping[str, str] = {},
    ) -> None:
        """Start ``python -m MODULE …``, or another ``command``."""
        self.name = name
        self._output = scratch / f"{name}.log"
        inherited = {
            variable: value
            for variable, value in os.environ.items()
            if not variable.startswith("SANIC_") and not variable.lower().endswith("_proxy")
        }
        self._started_s = time.perf_counter()
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command or [sys.executable, "-m", *module],
                cwd=machine.ROOT,
                env={**inherited, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def announced(self) -> Address:
        """The address in its line ``listening on URL``. Raises ServerFailedError."""
        for _ in self._tries():
            for line in self.output().splitlines(keepends=True):
                if line.startswith("listening on ") and line.endswith("\n"):
                    return Address.of(line.split()[-1])
        raise AssertionError

    def first_answer_s(self, at: Address, key: str, model: str) -> float:
        """Seconds from its start to its first count. Raises ServerFailedError."""
        for _ in self._tries():
            with contextlib.suppress(httpx.TransportError):
                count(at, key, body(model, 0)[0])
                break
        return time.perf_counter() - self._started_s

    @property
    def pid(self) -> int:
        """Of the main process."""
        return self._process.pid

    def output(self) -> str:
        """All it has printed."""
        return self._output.read_text(errors="replace")

    def stop(self) -> None:
        """SIGTERM, and time to end; then nothing of its session is left."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _tries(self) -> Iterator[None]:
        while time.perf_counter() - self._started_s < START_S:
            if self._process.poll() is not None:
                raise ServerFailedError(
                    f"{self.name} ended with exit code {self._process.returncode}"
                )
            yield
            time.sleep(0.01)
        raise ServerFailedError(f"{self.name} is not ready after {START_S:g} s")


class SimulatedProvider:
    """The control plane of ``python -m bench.provider``."""

    def __init__(self, at: Address) -> None:
        self._http = httpx.Client(base_url=at.url, trust_env=False)

    def restart(self, delay_s: float) -> None:
        """Forget all calls; from now on take this long for each."""
        self._http.delete("/_sim/requests").raise_for_status()
        if delay_s:
            self._http.post("/_sim/behave", json={"delay_s": delay_s}).raise_for_status()

    def behave(self, model: str, *, status: int | None = None, delay_s: float = 0) -> None:
        """Refuse questions about a model, or take this long for them, until the next restart."""
        told = {"model": model, "status": status, "delay_s": delay_s}
        self._http.post("/_sim/behave", json=told).raise_for_status()

    def calls(self) -> int:
        """Questions it has been asked since."""
        return int(self._http.get("/_sim/stats").raise_for_status().json()["calls"])

    def close(self) -> None:
        """Leave it."""
        self._http.close()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def simulated_tokens(asked: bytes) -> int:
    """What the simulated provider answers to a body."""
    return count_tokens(msgspec.json.decode(asked))


def ask(at: Address, key: str, asked: bytes) -> httpx.Response:
    """Ask once. Raises httpx.TransportError."""
    headers = {
        "x-api-key": key,
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
        **dict(at.headers),
    }
    # Without TLS there is no need to load certificates, which takes longer than the answer.
    with httpx.Client(verify=at.tls, trust_env=False, timeout=START_S) as http:
        return http.post(at.url + COUNT_PATH, content=asked, headers=headers)


def count(at: Address, key: str, asked: bytes) -> int:
    """Ask once. Raises httpx.TransportError, and ServerFailedError for anything but a count."""
    reply = ask(at, key, asked)
    if reply.status_code != httpx.codes.OK:
        raise ServerFailedError(f"{at.url} answered {reply.status_code}: {reply.text}")
    return int(reply.json()["input_tokens"])


def hits(at: Address, key: str) -> Hits | None:
    """What a proxy's /metrics say; None where there are none."""
    headers = {"x-api-key": key}
    try:
        found = httpx.get(
            f"{at.url}/metrics", headers=headers, verify=at.tls, trust_env=False
        ).content
    except httpx.TransportError:
        return None
    lane = _LANE_HITS.search(found)
    return Hits(sum(map(float, _HITS.findall(found))), float(lane[1])) if lane else None


class Started(Struct, frozen=True):
    """A Sanic that answers; ``workers`` are process ids, None where the system does not say."""

    first_answer_s: float
    workers: tuple[str, ...] | None

    def cpu_s(self) -> float | None:
        """Processor time of all workers so far."""
        return None if self.workers is None else sum(map(machine.cpu_s, self.workers))

    def rss_bytes(self) -> tuple[int, ...] | None:
        """Resident memory of each worker."""
        return None if self.workers is None else tuple(map(machine.rss_bytes, self.workers))
