"""What wrk printed is a figure only if no answer was an error, or longer than a right one."""

import pytest

from bench import wrk
from bench.answers import WrongAnswerError
from bench.scenarios import SCENARIOS

PRINTED = """\
Running 1s test @ http://127.0.0.1:8080/
  2 threads and 2 connections
bench requests=1000 us=2000000 bytes={received} connect=0 read=0 write=0 timeout={late} status={bad}
latency 100 900
latency 5000 100
"""


def printed(received: int = 200_000, late: int = 0, bad: int = 0) -> str:
    return PRINTED.format(received=received, late=late, bad=bad)


def test_requests_time_and_latencies_are_read() -> None:
    run = wrk.parse(printed())
    assert run.answers == len(run.latency) == 1000
    assert run.rate == 500
    assert run.engine == "wrk"
    assert run.latency.percentile_ns(50) == pytest.approx(100_000, rel=0.001)
    assert run.latency.percentile_ns(99) == pytest.approx(5_000_000, rel=0.001)


@pytest.mark.parametrize("wrong", [{"late": 1}, {"bad": 1}])
def test_a_single_error_fails_the_run(wrong: dict[str, int]) -> None:
    with pytest.raises(WrongAnswerError, match="=1"):
        wrk.parse(printed(**wrong))


@pytest.mark.parametrize(
    ("received", "passes"), [(199_600, True), (199_599, False), (200_401, False)]
)
def test_answers_of_another_size_fail_the_run(received: int, *, passes: bool) -> None:
    """One answer for each connection may be under way when the time is up."""
    run = wrk.parse(printed(received))
    if passes:
        wrk.check_sizes(run, connections=2, answer_bytes=(200, 200))
        return
    with pytest.raises(WrongAnswerError, match="the right ones have 200 to 200"):
        wrk.check_sizes(run, connections=2, answer_bytes=(200, 200))


@pytest.mark.parametrize("said", ["", "unable to connect", printed().replace("1000", "0")])
def test_no_answers_are_no_figure(said: str) -> None:
    with pytest.raises(WrongAnswerError):
        wrk.parse(said)


def test_only_what_is_prepared_is_asked_by_wrk() -> None:
    fits = {name for name, scenario in SCENARIOS.items() if scenario.fits_wrk}
    own = {"bare-own", "other-bytes", "miss-plain-httpx", "miss", "provider", "miss-latency"}
    assert set(SCENARIOS) - fits == {*own, "herd", "open-loop-raw", "open-loop"}
