"""Full disks and readers that stop: rows P9 and P10.

The disk is full in that the server's processes may not make a file longer (RLIMIT_FSIZE), which the
test lifts from outside; or it is /dev/full.
"""

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import msgspec
import pytest

from bench.load import run
from bench.provider import SimulatedProvider, count_tokens
from bench.questions import Message
from bench.slice import Address, Load
from tests.e2e.exchange import BEARER, COUNT, MODEL, anthropic, model_list, question, request, until
from tests.faults.crowd import workers
from tests.faults.upstream_checks import PAIRS
from tests.server import Tallygate

FULL_BYTES = 24 * 1024
SANIC = (sys.executable, "-m", "sanic", "app.main")
LIMIT = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({FULL_BYTES}, resource.RLIM_INFINITY))
os.execv(sys.argv[1], sys.argv[1:])
"""
LIMITED = (sys.executable, "-c", LIMIT, *SANIC)
LEAST_RATE = 0.75
"""Of the rate with a reader; what is printed is the claim."""


def _all_counted(server: Tallygate, number: int) -> None:
    """Ask so many new questions, each twice, and get the right number every time."""
    with httpx.Client(base_url=server.url, headers=BEARER, timeout=30) as client:
        for _ in range(number):
            body = question()
            for source in ("live", "cache"):
                answer = client.post(COUNT, json=body)
                assert answer.json() == {"input_tokens": count_tokens(body)}
                assert answer.headers["x-tallygate-source"] == source


def _host(server: Tallygate) -> dict[str, Any]:
    """Ask what the host's tier says of itself."""
    stats: dict[str, Any] = httpx.get(f"{server.url}/cache/stats", headers=BEARER).json()
    shown: dict[str, Any] = stats["host"]
    return shown


@pytest.fixture
def models(provider: SimulatedProvider) -> list[dict[str, Any]]:
    provider.clear()
    return model_list(**{MODEL: anthropic("claude-x", provider.url)})


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="limits a running process as Linux does")
def test_p9_disk_full(tmp_path: Path, models: list[dict[str, Any]]) -> None:
    """Counts stay right while lines and remembered counts cannot be written, and go on after.

    Every event is a line of its own, or counted among those that are dropped.
    """
    lines = tmp_path / "lines"
    config = {
        "model_list": models,
        "telemetry": {"hit_records_per_s": 1_000_000, "jsonl": {"path": str(lines)}},
    }
    with Tallygate(tmp_path, config, command=LIMITED) as server:
        _all_counted(server, 300)
        until(lambda: lines.stat().st_size == FULL_BYTES)
        full = _host(server)
        (worker,) = workers(server.pid).values()
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(worker, resource.RLIMIT_FSIZE, unlimited)
        _all_counted(server, 20)
        until(lambda: _host(server)["trouble"] is None)
        _all_counted(server, 20)
        until(lambda: _host(server)["entries"] >= 20)
        assert workers(server.pid) == {"Sanic-Server-0-0": worker}
    assert full["dropped"] > 0
    assert full["errors"] > 0
    whole, torn, dropped = 0, 0, 0
    for line in lines.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            torn += 1
            continue
        whole += record["event"] == "count"
        dropped += record.get("dropped", 0) if record["event"] == "records_left_out" else 0
    print(f"680 events: {whole} lines, {dropped} dropped and told, {torn} torn")
    assert torn <= 1
    assert dropped > 0
    assert whole + dropped == 2 * (300 + 20 + 20)
    assert "Traceback" not in server.err.read_text()


@pytest.mark.processes
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_p9_no_line_can_be_written(tmp_path: Path, models: list[dict[str, Any]]) -> None:
    config = {"model_list": models, "telemetry": {"jsonl": {"path": "/dev/full"}}}
    with Tallygate(tmp_path, config) as server:
        _all_counted(server, 50)
    assert server.stop() == 0
    assert "Traceback" not in server.err.read_text()


@contextmanager
def _stopped_reader(folder: Path) -> Iterator[Callable[[], bytes]]:
    """Make the server's standard output a pipe that is not read but by calling what is yielded."""
    os.mkfifo(folder / "stdout")
    reader = os.open(folder / "stdout", os.O_RDONLY | os.O_NONBLOCK)

    def read() -> bytes:
        try:
            return os.read(reader, 1 << 20)
        except BlockingIOError:
            return b""

    yield read
    os.close(reader)


@pytest.mark.timeout(180)
def test_p10_reader_stopped(tmp_path: Path, models: list[dict[str, Any]]) -> None:
    """Hits are as fast as with a reader; what the full queue has no room for is counted."""
    config = {"model_list": models, "telemetry": {"hit_records_per_s": 1_000_000}}
    (tmp_path / "read").mkdir()
    (tmp_path / "unread").mkdir()
    body = question()
    with (
        _stopped_reader(tmp_path / "unread") as read,
        Tallygate(tmp_path / "unread", config) as unread,
        Tallygate(tmp_path / "read", config) as heard,
    ):
        for server in (unread, heard):
            assert server.count(body).json() == {"input_tokens": count_tokens(body)}
        answered = 1
        while answered <= 20_000 + 5_000:  # the queue, and what the pipe and the writer hold
            answered += run(_hits(unread, body)).answers
        ratios = []
        for _ in range(PAIRS):
            loud = run(_hits(heard, body)).rate
            slice_ = run(_hits(unread, body))
            answered += slice_.answers
            ratios.append(slice_.rate / loud)
        rate = median(ratios)
        print(f"hits while nobody reads the lines: {rate:.1%} of the rate with a reader")
        text = b""
        over = threading.Event()

        def listen() -> None:
            nonlocal text
            while not over.is_set():
                text += read()
                time.sleep(0.001)

        reader = threading.Thread(target=listen)
        reader.start()
        size = -1
        while size != len(text):
            size = len(text)
            time.sleep(1)
        assert unread.stop() == 0
        over.set()
        reader.join()
        text += read()
    records = [json.loads(line) for line in text.splitlines()]
    dropped = sum(one.get("dropped", 0) for one in records if one["event"] == "records_left_out")
    told = sum(one["event"] == "count" for one in records)
    print(f"{answered} counts: {told} lines, {dropped} dropped and told")
    assert dropped > 0
    assert told + dropped >= answered
    assert rate >= LEAST_RATE


def _hits(server: Tallygate, known: dict[str, Any]) -> Load:
    body = msgspec.json.encode(known)
    return Load(
        address=Address.of(server.url),
        message=Message(request(body).removesuffix(body), body),
        tokens=lambda asked: count_tokens(msgspec.json.decode(asked)),
        connections=8,
        seconds=1.0,
    )
