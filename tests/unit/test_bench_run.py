"""``python -m bench`` as its user meets it: real processes, a table, or a reason."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from bench.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]


def bench(
    *arguments: str, timeout_s: float = 55, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "--seconds", "0.2", "--connections", "4", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=None if path is None else {**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
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


@pytest.mark.parametrize("engine", ["auto", "own"])
@pytest.mark.parametrize("right", [3, 20])
def test_a_wrong_count_is_no_figure_but_a_failure(fickle_url: str, right: int, engine: str) -> None:
    Fickle.left = right
    arguments = ("--scenario", "repeat", "--rounds", "1", "--engine", engine)
    done = bench("--target", fickle_url, *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "repeat, round 1: input_tokens should be 14" in done.stderr
    assert '{"input_tokens":15}' in done.stderr


def test_what_cannot_be_checked_is_refused(fickle_url: str) -> None:
    done = bench("--target", fickle_url, "--scenario", "miss")
    assert done.returncode == 2
    assert "nobody counts the provider's calls: miss" in done.stderr


@pytest.fixture
def raw_url() -> Iterator[str]:
    """A server that gives the same right answer to everything."""
    command = [sys.executable, "-m", "bench.bare"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process.stdout.readline().removeprefix("listening on ").strip()
        process.terminate()


@pytest.mark.parametrize(("bar", "status"), [(0.001, 0), (1000.0, 1)])
def test_below_a_bar_the_exit_code_says_so(
    raw_url: str, tmp_path: Path, bar: float, status: int
) -> None:
    bars, result = tmp_path / "bars.json", tmp_path / "result.json"
    one = {"scenario": "repeat", "compared_with": "bare", "at_least": bar}
    bars.write_bytes(msgspec.json.encode({"noise": 0.1, "bars": [one]}))
    done = bench(
        *("--target", raw_url, "--scenario", "bare", "repeat", "nginx", "--rounds", "1"),
        *("--baseline", str(bars), "--json", str(result)),
        path="",
    )
    assert done.returncode == status, done.stderr
    assert f"{'FAIL' if status else 'ok  '} repeat / bare, throughput" in done.stdout
    assert "not measured: nginx is not on PATH" in done.stdout
    found = msgspec.json.decode(result.read_bytes())
    assert set(found["scenarios"]) == {"bare", "repeat"}
    assert found["missing"] == {"nginx": "nginx is not on PATH"}
    assert {"p50", "p90", "p99", "p99.9", "p99.99"} < set(found["scenarios"]["bare"]["latency_ms"])
    shown = result.with_suffix(".html").read_text()
    assert all(text in shown for text in ("<td>repeat</td>", "nginx is not on PATH"))


H2LOAD = """\
#!{python}
import sys
log = next(one for one in sys.argv if one.startswith("--log-file=")).partition("=")[2]
open(log, "w").write("1\\t200\\t50\\n" * 1000)
assert "--header=x-api-key: sk-bench-0123456789abcdef" in sys.argv
body = next(one for one in sys.argv if one.startswith("--data=")).partition("=")[2]
assert len(open(body).read()) == 300
print("requests: 1000 total, 1000 started, 1000 done, 1000 succeeded", end=", ")
print("0 failed, 0 errored, 0 timeout")
print("status codes: 1000 2xx, 0 3xx, 0 4xx, 0 5xx")
print("traffic: {received}B ({received}) total, 1B (1) headers (space savings 0.00%), 1B (1) data")
"""


@pytest.mark.parametrize(("answer_bytes", "status"), [(114, 0), (57, 1)])
def test_h2load_asks_one_question_and_its_answers_must_have_the_right_size(
    raw_url: str, tmp_path: Path, answer_bytes: int, status: int
) -> None:
    program, result = tmp_path / "h2load", tmp_path / "result.json"
    program.write_text(H2LOAD.format(python=sys.executable, received=answer_bytes * 1000))
    program.chmod(0o755)
    arguments = ("--target", raw_url, "--engine", "h2load", "--rounds", "1", "--json", str(result))
    done = bench(*arguments, "--scenario", "repeat", "other-bytes", path=str(tmp_path))
    assert done.returncode == status, done.stderr
    if status:
        assert "1000 answers had 57000 bytes; the right ones have 114 to 114 each" in done.stderr
        return
    found = msgspec.json.decode(result.read_bytes())["scenarios"]
    assert found["repeat"]["engine"] == "h2load"
    assert found["repeat"]["latency_ms"]["p99.99"] == pytest.approx(0.05, rel=0.001)
    assert found["other-bytes"]["engine"] == "own"


@pytest.mark.parametrize("engine", ["wrk", "h2load"])
def test_who_is_to_ask_has_to_be_there(engine: str) -> None:
    done = bench("--engine", engine, path="")
    assert done.returncode == 2
    assert f"{engine} is not on PATH" in done.stderr


@pytest.mark.processes
@pytest.mark.parametrize(("bar", "status"), [(0.05, 0), (50.0, 1)])
def test_a_gate_of_processor_time_shuts_on_real_servers(
    tmp_path: Path, bar: float, status: int
) -> None:
    bars, result = tmp_path / "bars.json", tmp_path / "result.json"
    one = {"scenario": "repeat", "compared_with": "bare", "figure": "cpu", "at_least": bar}
    bars.write_bytes(msgspec.json.encode({"noise": 0, "bars": [one]}))
    done = bench(
        *("--scenario", "bare", "repeat", "--rounds", "1", "--engine", "own"),
        *("--baseline", str(bars), "--json", str(result)),
    )
    assert done.returncode == status, done.stderr
    assert f"{'FAIL' if status else 'ok  '} repeat / bare, cpu >= {bar:g}" in done.stdout


@pytest.mark.processes
@pytest.mark.timeout(180)
def test_the_whole_table(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = bench("--rounds", "1", "--engine", "own", "--json", str(file), timeout_s=170)
    assert done.returncode == 0, done.stderr
    result = msgspec.json.decode(file.read_bytes())
    measured = result["scenarios"]
    assert set(measured) | set(result["missing"]) == set(SCENARIOS)
    assert set(result["missing"]) <= {"nginx"}
    assert all(f" {name} " in done.stdout for name in SCENARIOS)
    assert set(measured["miss"]["ratios"]) == {"bare-own", "miss-plain-httpx"}
    for scenario in measured.values():
        assert len(scenario["rounds"]) == 1
        assert all(ratio > 0 for ratio in scenario["ratios"].values())
    for server in ("bare", "proxy", "ordinary", "workers-2"):
        assert result["servers"][server]["first_answer_s"] > 0
        assert f"{server}: first answer" in done.stdout
    for name in ("repeat", "repeat-1m", "zipf", "claude-code", "open-loop", "workers-2"):
        assert measured[name]["lane_share"] > 0.9
    assert measured["ordinary"]["lane_share"] == 0
    assert measured["miss-latency"]["added_p50_ms"] > 0
    if sys.platform == "linux":
        assert len(result["servers"]["proxy"]["worker_rss_bytes"]) == 1
        assert len(result["servers"]["workers-2"]["worker_rss_bytes"]) == 2
        assert measured["miss"]["server_cpu_us"] > 0
        assert measured["repeat"]["cpu_ratios"]["bare"] > 0
    assert "key" not in result["settings"]
