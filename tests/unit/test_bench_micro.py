"""Every stage is judged before it is timed; what comes of it, pyperf can read and compare."""

import subprocess
import sys
from pathlib import Path

import pyperf
import pytest

ROOT = Path(__file__).parents[2]
JUDGED = """
import os, sys
from pathlib import Path
os.environ["XDG_CACHE_HOME"] = sys.argv[1]
from msgspec.structs import replace
from bench.micro.house import House
from bench.micro.stage import BrokenStageError, prepared
from bench.micro.stages import STAGES

def idle(make):
    return lambda house: replace(make(house), call=lambda _input: None)

with House(Path(sys.argv[1])) as house:
    for stage in STAGES.values():
        try:
            prepared(replace(stage, make=idle(stage.make)), house)
        except BrokenStageError as error:
            print("refused", error)
        prepared(stage, house)
        print("right", stage.name)
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_each_stage_does_its_work_and_one_that_does_nothing_is_refused(tmp_path: Path) -> None:
    done = python("-c", JUDGED, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    refused = [line.split()[1] for line in lines if line.startswith("refused ")]
    right = [line.split()[1] for line in lines if line.startswith("right ")]
    assert refused == right
    assert {"head-new", "auth", "digest-1m", "memo", "key-300", "tier-host", "event"} <= set(right)
    assert {"answer", "repeat", "other-bytes", "miss-request", "miss-record"} <= set(right)


@pytest.mark.processes
def test_two_results_are_compared_stage_by_stage(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("old.json", "new.json")]
    stages = {"memo", "digest-1m"}
    for file in files:
        once = ("-m", "bench", "micro", "--debug-single-value", "--json", file)
        done = python(*once, *stages)
        assert done.returncode == 0, done.stderr
        assert all(f" {name} " in done.stdout for name in stages)
        suite = pyperf.BenchmarkSuite.load(file)
        assert set(suite.get_benchmark_names()) == stages
        assert all(one.median() > 0 for one in suite.get_benchmarks())
    compared = python("-m", "pyperf", "compare_to", *files)
    assert compared.returncode == 0, compared.stderr
    assert all(name in compared.stdout for name in stages)


def test_a_stage_that_there_is_not_is_named() -> None:
    done = python("-m", "bench", "micro", "haed-known")
    assert done.returncode == 2
    assert "no such stage: haed-known" in done.stderr
