"""A real Prometheus that scrapes a server each second: a process on loopback, ended by its pid."""

import math
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
import pytest
import yaml

from tests.server import free_port

START_S = 30.0
SCRAPE_S = 1


def binary(name: str) -> str:
    """Find one of its programs, without which there is nothing to test (CI has them)."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing")
    return path


class Sample(NamedTuple):
    """One series at one moment."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """Scrapes ``/metrics`` of ``address``, which is ``host:port``; keeps it all in ``folder``.

    It has done so once when it is made. ``rules`` are files of its own kind.
    """

    def __init__(self, folder: Path, address: str, *rules: Path) -> None:
        program = binary("prometheus")
        job = {"job_name": "tallygate", "static_configs": [{"targets": [address]}]}
        written = {
            "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
            "rule_files": [str(rule) for rule in rules],
            "scrape_configs": [job],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(written))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "prometheus.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'series'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_scraped()

    def query(self, expression: str) -> list[Sample]:
        """Evaluate PromQL now. What is no number is left out; an error fails the test."""
        asked = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10)
        answer: dict[str, Any] = asked.json()
        assert answer["status"] == "success", f"{expression}: {answer['error']}"
        found = answer["data"]["result"]
        if answer["data"]["resultType"] == "scalar":
            found = [{"metric": {}, "value": found}]
        samples = [Sample(one["metric"], float(one["value"][1])) for one in found]
        return [one for one in samples if not math.isnan(one.value)]

    def value(self, expression: str) -> float:
        """Evaluate what is one number; 0 where nobody has told of it yet."""
        samples = self.query(expression)
        assert len(samples) <= 1, f"{expression}: {samples}"
        return samples[0].value if samples else 0.0

    def _wait_until_scraped(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            try:
                ready = httpx.get(f"{self.url}/-/ready").status_code == httpx.codes.OK
                if ready and self.value("up"):
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
