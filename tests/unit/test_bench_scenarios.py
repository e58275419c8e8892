"""A scenario that is not what its name says gives no figure, and ratios pair rounds."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench.answers import WrongAnswerError
from bench.histogram import Histogram
from bench.load import Run
from bench.play import Always, How, Place, play
from bench.questions import NONCE_BYTES, Message
from bench.report import summarise, warnings
from bench.scenarios import BARE_TOKENS, COUNT_PATH, SCENARIOS, Server, Upstream
from bench.slice import Address
from bench.traffic import body, message

ROOT = Path(__file__).parents[2]


class CountingProvider:
    """A provider that claims to have been asked so many times."""

    def __init__(self, calls: int) -> None:
        self._calls = calls

    def restart(self, delay_s: float) -> None:
        self.delay_s = delay_s

    def behave(self, model: str, *, status: int | None = None, delay_s: float = 0) -> None:
        self.told = model, status, delay_s

    def calls(self) -> int:
        return self._calls


@pytest.fixture(scope="module")
def constant() -> Iterator[Address]:
    """The raw socket that answers every question with the same count."""
    command = [sys.executable, "-m", "bench.bare"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield Address.of(process.stdout.readline().removeprefix("listening on ").strip())
        process.terminate()


def place(at: Address, calls: int | None) -> Place:
    return Place(
        addresses=dict.fromkeys(Server, at),
        key="sk-test-0123456789",
        model="bench-model",
        tokens=Always(BARE_TOKENS),
        provider=None if calls is None else CountingProvider(calls),
        scratch=Path(),
    )


def asked(name: str) -> Message:
    found = message(SCENARIOS[name], Address("127.0.0.1", 1), "sk-test", "bench-model", len)
    assert isinstance(found, Message)
    return found


def test_a_question_has_the_size_it_is_named_after() -> None:
    for size in (300, 12_000):
        question, nonce_at = body("bench-model", size)
        assert len(question) == size
        assert question[nonce_at : nonce_at + NONCE_BYTES] == b"0" * NONCE_BYTES
        assert msgspec.json.decode(question)["model"] == "bench-model"


def test_only_a_unique_scenario_changes_its_question() -> None:
    assert asked("miss").is_unique
    assert asked("repeat").nonce_at is None
    assert asked("repeat").body != asked("repeat").body


def test_every_comparison_is_with_a_scenario_that_runs_before() -> None:
    names = list(SCENARIOS)
    for name, scenario in SCENARIOS.items():
        others = {*scenario.compared_with, scenario.added_to} - {None}
        assert all(names.index(str(other)) < names.index(name) for other in others)


@pytest.mark.parametrize(
    ("name", "calls"), [("repeat", 1), ("miss", 0), ("herd", 0), ("herd", 2), ("bare", 1)]
)
def test_a_wrong_number_of_calls_to_the_provider_fails(
    constant: Address, name: str, calls: int
) -> None:
    with pytest.raises(WrongAnswerError, match=f"took {calls} calls"):
        play(SCENARIOS[name], place(constant, calls), How(connections=2, seconds=0.05))


@pytest.mark.parametrize(("name", "calls"), [("repeat", 0), ("herd", 1)])
def test_the_right_number_of_calls_gives_a_figure(constant: Address, name: str, calls: int) -> None:
    result = play(SCENARIOS[name], place(constant, calls), How(connections=2, seconds=0.05))
    assert result.rate > 0
    assert result.answers >= SCENARIOS[name].at_once


def test_processes_share_the_connections_and_add_up(constant: Address) -> None:
    how = How(connections=3, seconds=0.1, processes=2)
    result = play(SCENARIOS["repeat"], place(constant, calls=0), how)
    assert 0 < len(result.latency) < result.answers


def slice_of(rate: int, latency_ns: int = 1_000_000, cpu_s: float | None = None) -> Run:
    latency = Histogram()
    for _ in range(rate):
        latency.record(latency_ns)
    return Run(answers=rate, seconds=1.0, client_cpu_s=0.5, latency=latency, server_cpu_s=cpu_s)


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    runs = {
        "bare": [slice_of(100), slice_of(200), slice_of(400)],
        "repeat": [slice_of(200), slice_of(600), slice_of(400)],
    }
    found = summarise(runs, {"repeat": 10_000.0})
    assert found["repeat"].ratios == {"bare": 2.0}
    assert found["repeat"].requests_per_s == 400
    assert [one.requests_per_s for one in found["bare"].rounds] == [100, 200, 400]


def test_a_ratio_by_processor_time_says_how_many_answers_it_buys() -> None:
    runs = {"bare": [slice_of(100, cpu_s=0.4)], "repeat": [slice_of(100, cpu_s=0.1)]}
    assert summarise(runs, {})["repeat"].cpu_ratios == {"bare": 4.0}
    unseen = {"bare": [slice_of(100)], "repeat": [slice_of(100, cpu_s=0.1)]}
    assert summarise(unseen, {})["repeat"].cpu_ratios == {}


def test_added_latency_is_the_difference_of_the_medians_of_a_round() -> None:
    runs = {
        "provider": [slice_of(9, 1_000_000), slice_of(9, 2_000_000), slice_of(9, 3_000_000)],
        "miss-latency": [slice_of(9, 1_500_000), slice_of(9, 9_000_000), slice_of(9, 3_400_000)],
    }
    found = summarise(runs, {})["miss-latency"].added_p50_ms
    assert found == pytest.approx(0.5, abs=0.01)


def test_a_figure_of_the_generator_itself_comes_with_a_warning() -> None:
    near = summarise({"bare": [slice_of(81)]}, {"bare": 100.0})
    far = summarise({"bare": [slice_of(79)]}, {"bare": 100.0})
    assert "within 20 %" in " ".join(warnings(near))
    assert warnings(far) == []


def test_an_open_loop_that_is_slow_by_itself_comes_with_a_warning() -> None:
    slow = summarise({"open-loop-raw": [slice_of(9, 1_100_000)]}, {})
    assert "1.1 ms" in " ".join(warnings(slow))
    assert warnings(summarise({"open-loop-raw": [slice_of(9, 900_000)]}, {})) == []


def test_rounds_that_disagree_come_with_a_warning() -> None:
    found = summarise({"bare": [slice_of(70), slice_of(100), slice_of(110)]}, {"bare": 1000.0})
    assert "rounds differ" in " ".join(warnings(found))


def test_what_asks_the_provider_is_checked_against_its_count() -> None:
    assert {name for name, one in SCENARIOS.items() if one.upstream is not Upstream.NONE} == {
        "miss",
        "miss-plain-httpx",
        "provider",
        "miss-latency",
        "herd",
    }
    assert all(one.path == COUNT_PATH for name, one in SCENARIOS.items() if "httpx" not in name)
