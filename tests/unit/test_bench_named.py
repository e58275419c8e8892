"""What runs only when it is named: providers, faults, scale, a soak; no figure where it lies."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from bench import options
from bench.answers import WrongAnswerError
from bench.histogram import Histogram
from bench.load import Run
from bench.named import ADAPTERS, ALL, GROUPS, NAMED
from bench.play import SOAK_PARTS, Always, How, Place, play, slices
from bench.report import summarise
from bench.scenarios import BARE_TOKENS, SCENARIOS, Server
from bench.slice import Address

ROOT = Path(__file__).parents[2]
HOW = How(connections=2, seconds=0.3, soak_s=1)


@pytest.fixture(scope="module")
def constant() -> Iterator[Address]:
    """The raw socket that answers every question with the same count, at once."""
    command = [sys.executable, "-m", "bench.bare"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield Address.of(process.stdout.readline().removeprefix("listening on ").strip())
        process.terminate()


def place(at: Address, tokens: int = BARE_TOKENS) -> Place:
    """Nobody counts the calls of a provider here."""
    return Place(
        addresses=dict.fromkeys(Server, at),
        key="sk-test-0123456789",
        model="bench-model",
        tokens=Always(tokens),
        provider=None,
        scratch=Path(),
    )


def test_without_names_only_the_standard_set_runs() -> None:
    assert options.parse([]).scenario == list(SCENARIOS)
    assert not SCENARIOS.keys() & NAMED.keys()


def test_the_name_of_a_group_names_its_scenarios() -> None:
    chosen = options.parse(["--scenario", "providers", "soak"]).scenario
    assert set(chosen) == {*GROUPS["providers"], "soak"}
    for alias in ADAPTERS:
        assert {f"miss-{alias}", f"repeat-{alias}"} <= set(chosen)


def test_what_is_compared_comes_before() -> None:
    names = list(ALL)
    for name, scenario in NAMED.items():
        assert all(names.index(other) < names.index(name) for other in scenario.compared_with)


@pytest.mark.processes
def test_a_herd_that_has_no_descriptors_is_not_measured_and_fails_nothing(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    command = f"{sys.executable} -m bench --scenario herd --rounds 1 --json {file}"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n 1024; exec {command}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "not measured: too few descriptors" in done.stdout
    assert msgspec.json.decode(file.read_bytes())["scenarios"] == {}


def test_what_is_asked_beside_is_answered_too(constant: Address) -> None:
    assert play(NAMED["beside-well"], place(constant), HOW).answers > 0


@pytest.mark.parametrize("name", ["beside-slow", "beside-429"])
def test_a_fault_that_does_not_happen_gives_no_figure(constant: Address, name: str) -> None:
    with pytest.raises(WrongAnswerError, match="beside: 200"):
        play(NAMED[name], place(constant), HOW)


def test_a_wrong_count_beside_gives_no_figure(constant: Address) -> None:
    where = place(constant, tokens=BARE_TOKENS + 1)
    scenario = replace(NAMED["beside-well"], server=Server.RAW)  # whose own count is known
    with pytest.raises(WrongAnswerError, match="beside: 200"):
        play(scenario, where, HOW)


def test_a_soak_ends_by_itself_after_its_parts(constant: Address) -> None:
    runs = list(slices(NAMED["soak"], place(constant), HOW))
    assert len(runs) == SOAK_PARTS
    assert all(len(run.latency) for run in runs)


def test_a_million_is_played_until_it_is_one(
    constant: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.play.LONG_SLICE_S", 0.1)
    first = next(slices(NAMED["million"], place(constant), HOW)).answers
    wanted = replace(NAMED["million"], until_answers=2 * first)
    runs = [run.answers for run in slices(wanted, place(constant), HOW)]
    assert sum(runs) >= wanted.until_answers > sum(runs[:-1])


def grown(minute: float, worker_mb: float, latency_ns: int = 1_000_000) -> Run:
    latency = Histogram()
    latency.record(latency_ns)
    sizes = (1_000_000, round(worker_mb * 1e6))
    return Run(1, 1.0, 0.5, latency, rss_bytes=sizes, ended_s=minute * 60)


def test_memory_that_grows_is_told_by_the_minute() -> None:
    sizes = [10, 50, 60, 62, 64, 66]  # it fills, then it grows
    found = summarise({"soak": [grown(number / 2, size) for number, size in enumerate(sizes)]}, {})
    assert found["soak"].growth_mb_per_min == pytest.approx(4)
    assert found["soak"].worker_mb == 66
    assert [part.worker_mb for part in found["soak"].rounds] == sizes


def test_latency_beside_a_fault_is_a_ratio_within_rounds() -> None:
    runs = {
        "beside-well": [grown(1, 1, 1_000_000), grown(1, 1, 4_000_000), grown(1, 1, 2_000_000)],
        "beside-429": [grown(2, 1, 2_000_000), grown(2, 1, 4_000_000), grown(2, 1, 6_000_000)],
    }
    ratio = summarise(runs, {})["beside-429"].p99_ratios["beside-well"]
    assert ratio == pytest.approx(2, rel=0.1)


@pytest.mark.processes
@pytest.mark.timeout(180)
def test_each_provider_and_each_fault_through_real_servers(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    names = ("providers", "faults", "host-file", "soak")
    command = [sys.executable, "-m", "bench", "--scenario", *names, "--rounds", "1"]
    short = ["--seconds", "0.3", "--connections", "4", "--soak-s", "3", "--engine", "own"]
    done = subprocess.run(
        [*command, *short, "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured = msgspec.json.decode(file.read_bytes())["scenarios"]
    assert set(measured) == {*GROUPS["providers"], *GROUPS["faults"], "host-file", "soak"}
    for name in ("beside-slow", "beside-429"):
        assert measured[name]["ratios"]["beside-well"] > 0
        assert measured[name]["p99_ratios"]["beside-well"] > 0
    assert measured["host-file"]["lane_share"] < 0.5  # the worker itself remembers too little
    assert len(measured["soak"]["rounds"]) == SOAK_PARTS
    assert "p99 of each part" in done.stdout
    if sys.platform == "linux":
        assert measured["soak"]["worker_mb"] > 0
        assert measured["soak"]["growth_mb_per_min"] is not None
