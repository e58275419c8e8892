"""A refusal lets go of the body that it refuses, at once: memory is that of what is under way."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import FAILURES_STAND_ALONE, anthropic, model_list
from tests.faults.crowd import workers
from tests.server import Tallygate

BODY_BYTES = 8 * 2**20
WARM, REFUSED = 30, 30
SLOPE_BYTES = REFUSED * BODY_BYTES * 5 // 8
"""Each that is kept is kept twice, as it came and as it was read."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Tallygate]:
    """One worker, which knows a provider that is silent, and one that is not there."""
    with SimulatedProvider() as provider:
        provider.behave(hang=True)
        names = {
            "silent": anthropic("claude-silent", provider.url, timeout=0.3),
            "gone": anthropic("claude-gone", "http://127.0.0.1:9"),
        }
        config = {
            "model_list": model_list(**names),
            "cache": {"host": {"enabled": False}},
            "limits": FAILURES_STAND_ALONE,
        }
        with Tallygate(tmp_path, config) as running:
            yield running


@pytest.mark.parametrize(("model", "status"), [("nobody", 404), ("gone", 502), ("silent", 504)])
def test_large_bodies_that_are_refused_leave_memory_flat(
    server: Tallygate, model: str, status: int
) -> None:
    text = "a b " * (BODY_BYTES // 4)
    warm_bytes = 0
    for number in range(WARM + REFUSED):
        if number == WARM:
            warm_bytes = resident_bytes(server)
        asked = {"model": model, "messages": [{"role": "user", "content": f"{number} {text}"}]}
        assert server.count(asked).status_code == status
    assert resident_bytes(server) - warm_bytes < SLOPE_BYTES


def resident_bytes(server: Tallygate) -> int:
    """Add up what the workers hold."""
    pids = workers(server.pid).values()
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in pids)
