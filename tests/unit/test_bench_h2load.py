"""What h2load printed is a figure only if every answer was good, and was logged."""

import pytest

from bench import h2load
from bench.answers import WrongAnswerError

PRINTED = """\
Main benchmark duration is over for thread #0. Stopping all clients.

finished in 2.01s, 5.00 req/s, 3.33MB/s
requests: 10 total, 12 started, {done} done, {done} succeeded, {failed} failed, \
0 errored, {late} timeout
status codes: {ok} 2xx, 0 3xx, 0 4xx, {bad} 5xx
traffic: 1.11KB (1140) total, 640B (640) headers (space savings 0.00%), 190B (190) data
"""
LOG = "1795913694212702\t200\t100\n" * 9 + "1795913694212717\t200\t5000\n"


def printed(failed: int = 0, bad: int = 0, late: int = 0) -> str:
    return PRINTED.format(done=10 - failed, failed=failed, ok=10 - bad, bad=bad, late=late)


def test_requests_bytes_and_latencies_are_read() -> None:
    run = h2load.parse(printed(), LOG, seconds=2)
    assert run.answers == len(run.latency) == 10
    assert run.rate == 5
    assert run.received_bytes == 1140
    assert run.engine == "h2load"
    assert run.latency.percentile_ns(50) == pytest.approx(100_000, rel=0.001)
    assert run.latency.percentile_ns(99) == pytest.approx(5_000_000, rel=0.001)


@pytest.mark.parametrize("wrong", [{"failed": 1}, {"bad": 1}, {"late": 1}])
def test_a_single_error_fails_the_run(wrong: dict[str, int]) -> None:
    with pytest.raises(WrongAnswerError, match="errors: "):
        h2load.parse(printed(**wrong), LOG, seconds=2)


@pytest.mark.parametrize(
    ("said", "log"), [("", LOG), (printed(), ""), (printed().replace("10", "0"), "")]
)
def test_what_was_not_counted_is_no_figure(said: str, log: str) -> None:
    with pytest.raises(WrongAnswerError):
        h2load.parse(said, log, seconds=2)
