"""A figure below its bar fails, one not measured says so, and the worst change is first."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench import gates
from bench.gates import Bar, Bars
from bench.named import ALL
from bench.report import FORMAT, Result, ServerFacts, Summary
from bench.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]
BARS = ROOT / "bench" / "bars.json"


def summary(**figures: object) -> Summary:
    blank = {
        "says": "",
        "engine": "own",
        "requests_per_s": 100.0,
        "server_cpu_us": None,
        "lane_share": None,
        "latency_ms": {"p50": 1.0, "p99": 2.0},
        "ratios": {},
        "cpu_ratios": {},
        "added_p50_ms": None,
        "ceiling_requests_per_s": None,
        "rounds": (),
    }
    return msgspec.convert({**blank, **figures}, Summary)


def result(**scenarios: Summary) -> Result:
    """The server that ``repeat`` asks took 1.5 s to its first answer."""
    return Result(
        format=FORMAT,
        started_at="2026-01-01T00:00:00+00:00",
        commit="abc",
        machine={},
        versions={},
        settings={},
        servers={"proxy": ServerFacts(1.5, None)},
        scenarios=scenarios,
        missing={},
        warnings=(),
    )


def verdict(bar: Bar, measured: Result, noise: float = 0.1) -> bool:
    return gates.passes(gates.judge(measured, Bars(noise, (bar,))))


@pytest.mark.parametrize(("ratio", "passes"), [(3.0, True), (2.71, True), (2.69, False)])
def test_a_ratio_may_miss_its_bar_by_the_noise_and_no_more(ratio: float, *, passes: bool) -> None:
    bar = Bar("repeat", "bare", at_least=3.0)
    assert verdict(bar, result(repeat=summary(ratios={"bare": ratio}))) is passes


@pytest.mark.parametrize(("added_ms", "passes"), [(0.6, True), (0.65, True), (0.67, False)])
def test_a_time_may_be_at_most_its_bar(added_ms: float, *, passes: bool) -> None:
    bar = Bar("miss", figure="added_p50_ms", at_most=0.6)
    assert verdict(bar, result(miss=summary(added_p50_ms=added_ms))) is passes


def test_a_share_is_given_no_room() -> None:
    bar = Bar("zipf", figure="lane_share", at_least=0.9)
    assert verdict(bar, result(zipf=summary(lane_share=0.9)))
    assert not verdict(bar, result(zipf=summary(lane_share=0.89)))


def test_processor_time_has_bars_of_its_own() -> None:
    bar = Bar("two", "one", figure="cpu", at_least=0.9)
    measured = summary(ratios={"one": 9.0}, cpu_ratios={"one": 0.5})
    assert not verdict(bar, result(two=measured))


@pytest.mark.parametrize(
    ("figure", "compared_with", "found"),
    [
        ("p99", "bare", {"p99_ratios": {"bare": 1.5}}),
        ("worker_mb", None, {"worker_mb": 1.5}),
        ("growth_mb_per_min", None, {"growth_mb_per_min": 1.5}),
        ("first_answer_s", None, {}),
    ],
)
def test_what_should_be_small_has_a_bar_above_it(
    figure: gates.Figure, compared_with: str | None, found: dict[str, object]
) -> None:
    measured = result(repeat=summary(**found))
    assert verdict(Bar("repeat", compared_with, figure, at_most=1.5), measured, noise=0)
    assert not verdict(Bar("repeat", compared_with, figure, at_most=1.4), measured, noise=0)


def test_what_was_not_measured_is_named_and_nothing_at_all_is_no_pass() -> None:
    bars = Bars(0.1, (Bar("repeat", "bare", at_least=1), Bar("repeat", "nginx", at_least=1)))
    verdicts = gates.judge(result(repeat=summary(ratios={"bare": 2.0})), bars)
    assert gates.passes(verdicts)
    lines = gates.verdict_lines(verdicts, 0.1)
    assert "by 10%" in lines[0]
    assert lines[1] == "  ok   repeat / bare, throughput >= 1: 2"
    assert lines[2] == "  ?    repeat / nginx, throughput >= 1: not measured"
    assert not gates.passes(gates.judge(result(), bars))


@pytest.mark.parametrize(
    "bar",
    [
        {"scenario": "a", "compared_with": "b"},
        {"scenario": "a", "compared_with": "b", "at_least": 1, "at_most": 2},
        {"scenario": "a", "at_least": 1},
        {"scenario": "a", "compared_with": "b", "figure": "lane_share", "at_least": 1},
        {"scenario": "a", "compared_with": "b", "at_least": 1, "at_lest": 1},
    ],
)
def test_a_bar_that_means_nothing_is_refused(bar: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "bars.json"
    file.write_bytes(msgspec.json.encode({"noise": 0.1, "bars": [bar]}))
    with pytest.raises(msgspec.ValidationError):
        gates.read_bars(file)


def test_the_committed_bars_are_about_what_is_measured() -> None:
    for bar in gates.read_bars(BARS).bars:
        scenario = ALL[bar.scenario]
        assert bar.compared_with is None or bar.compared_with in scenario.compared_with
        assert bar.figure != "added_p50_ms" or scenario.added_to


def test_make_gates_measures_all_that_its_bars_judge() -> None:
    makefile = (ROOT / "Makefile").read_text()
    gated = makefile.partition("\nGATES := ")[2].partition("\n")[0].split()
    bars = gates.read_bars(ROOT / "bench" / "bars-ci.json").bars
    assert {bar.figure for bar in bars} == {"cpu", "lane_share"}  # no times, of any machine
    for bar in bars:
        scenario = SCENARIOS[bar.scenario]
        assert bar.scenario in gated
        assert bar.compared_with in {None, *scenario.compared_with}
        assert bar.compared_with in {None, *gated}


def test_two_results_are_compared_worst_first(tmp_path: Path) -> None:
    before = result(
        a=summary(ratios={"bare": 2.0}, cpu_ratios={"bare": 2.0}),
        b=summary(ratios={"bare": 4.0}),
        gone=summary(ratios={"bare": 1.0}),
    )
    after = result(
        a=summary(ratios={"bare": 2.2}, cpu_ratios={"bare": 1.0}),
        b=summary(ratios={"bare": 3.0}),
        new=summary(ratios={"bare": 1.0}),
    )
    names = [change.what for change in gates.compare(before, after)]
    assert names[:3] == ["a / bare, by CPU", "b / bare", "a / bare"]
    assert sorted(names[3:]) == ["gone / bare", "new / bare"]

    files = tmp_path / "a.json", tmp_path / "b.json"
    for file, one in zip(files, (before, after), strict=True):
        file.write_bytes(msgspec.json.encode(one))
    done = compare(*files)
    assert done.returncode == 0, done.stderr
    rows = [" ".join(line.replace("│", " ").split()) for line in done.stdout.splitlines()]
    assert rows.index("a / bare, by CPU 2.00 1.00 0.50") < rows.index("b / bare 4.00 3.00 0.75")


def test_what_is_no_result_is_not_compared(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("{}")
    done = compare(file, file)
    assert done.returncode == 1
    assert done.stderr.startswith("FAILED: ")


def compare(before: Path, after: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "--compare", str(before), str(after)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
