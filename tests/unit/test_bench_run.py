"""``python -m bench`` as its user meets it: real processes, a table, or a reason."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
SCENARIOS = ("bare", "repeat", "bare-12k", "repeat-12k", "miss-plain-httpx", "miss", "herd")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "--seconds", "0.2", "--connections", "4", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False
    )


class Fickle(BaseHTTPRequestHandler):
    """Counts right a few times, then wrong."""

    protocol_version = "HTTP/1.1"
    left = 3

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        Fickle.left -= 1
        body = b'{"input_tokens":%d}' % (14 if Fickle.left > 0 else 15)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def fickle_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Fickle) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_wrong_count_is_no_figure_but_a_failure(fickle_url: str) -> None:
    done = bench("--target", fickle_url, "--scenario", "repeat", "--rounds", "1")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "repeat, round 1: input_tokens should be 14" in done.stderr
    assert '{"input_tokens":15}' in done.stderr


def test_what_cannot_be_checked_is_refused(fickle_url: str) -> None:
    done = bench("--target", fickle_url, "--scenario", "miss")
    assert done.returncode == 2
    assert "nobody counts the provider's calls: miss" in done.stderr


@pytest.mark.processes
def test_the_whole_table(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = bench("--rounds", "1", "--json", str(file))
    assert done.returncode == 0, done.stderr
    result = msgspec.json.decode(file.read_bytes())
    assert tuple(result["scenarios"]) == SCENARIOS
    assert all(f" {name} " in done.stdout for name in SCENARIOS)
    assert set(result["scenarios"]["miss"]["ratios"]) == {"bare", "miss-plain-httpx"}
    for scenario in result["scenarios"].values():
        assert len(scenario["rounds"]) == 1
        assert all(ratio > 0 for ratio in scenario["ratios"].values())
    for server in ("bare", "proxy"):
        assert result["servers"][server]["first_answer_s"] > 0
        assert f"{server}: first answer" in done.stdout
    if sys.platform == "linux":
        assert len(result["servers"]["proxy"]["worker_rss_bytes"]) == 1
        assert result["scenarios"]["miss"]["server_cpu_us"] > 0
    assert "key" not in result["settings"]
