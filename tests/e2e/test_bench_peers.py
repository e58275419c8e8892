"""``python -m bench peers`` with a real nginx in front of the provider, and no other peer."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
PEER = ("--peer", "nginx-cache", "--rounds", "1", "--seconds", "0.2", "--connections", "4")
MISCOUNTING = """#!/bin/sh
# nginx, but what it is told to ask the provider it answers by itself.
for config; do :; done
sed -i 's/proxy_pass .*;/return 200 "{\\\\"input_tokens\\\\":1}";/' "$config"
exec %s "$@"
"""


@pytest.fixture
def nginx() -> str:
    path = shutil.which("nginx")
    if path is None:
        pytest.skip("nginx is not on PATH")
    return path


def bench(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", "peers", *PEER, "--engine", "own", *arguments],
        cwd=ROOT,
        env=os.environ if path is None else {**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.usefixtures("nginx")
def test_a_plain_cache_is_measured_and_what_it_does_is_told(tmp_path: Path) -> None:
    file, bars = tmp_path / "result.json", tmp_path / "bars.json"
    hopeless = {"scenario": "repeat", "compared_with": "nginx-cache", "at_least": 1e6}
    bars.write_bytes(msgspec.json.encode({"noise": 0.1, "bars": [hopeless]}))
    done = bench("--json", str(file), "--baseline", str(bars))
    assert done.returncode == 1, done.stderr
    assert "FAIL repeat / nginx-cache, throughput >= 1e+06" in done.stdout
    assert (
        "nginx-cache: the same question twice asked the provider once; under a wrong key it was"
        " answered, which asked the provider not at all" in done.stdout
    )
    assert "proxy: the same question twice asked the provider once; under a wrong key it was" in (
        done.stdout
    )
    result = msgspec.json.decode(file.read_bytes())
    assert list(result["scenarios"]) == ["nginx-cache", "nginx-cache-miss", "repeat", "miss"]
    assert result["scenarios"]["repeat"]["ratios"]["nginx-cache"] > 0
    assert result["scenarios"]["miss"]["ratios"]["nginx-cache-miss"] > 0
    assert result["servers"]["nginx-cache"]["first_answer_s"] > 0
    assert result["missing"] == {}
    assert len(result["notes"]) == 2
    if sys.platform == "linux":
        assert result["scenarios"]["nginx-cache-miss"]["server_cpu_us"] > 0
        master_and_worker = result["servers"]["nginx-cache"]["worker_rss_bytes"]
        assert len(master_and_worker) >= 2


def test_a_wrong_count_of_a_peer_is_no_figure_but_a_failure(nginx: str, tmp_path: Path) -> None:
    miscounting = tmp_path / "nginx"
    miscounting.write_text(MISCOUNTING % shlex.quote(nginx))
    miscounting.chmod(0o755)
    done = bench(path=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "FAILED: nginx-cache, round 1: input_tokens should be" in done.stderr
    assert '{"input_tokens":1}' in done.stderr


def test_a_peer_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = bench(path=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not measured: nginx is not on PATH") == 2
