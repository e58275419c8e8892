"""What may be asked of a provider, and by whom: the budget of a deployment, the limits of a key.

The provider notes when it is asked, so that the budget is judged where it matters.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import anthropic, model_list
from tests.faults.flood import Flood, fewest_in_a_minute, most_in_a_minute
from tests.server import Tallygate

MODEL = "limited"
SETTLE_S = 1.0
"""Until enough questions wait."""

Start = Callable[..., Tallygate]


@pytest.fixture(autouse=True)
def _unasked(provider: SimulatedProvider) -> None:
    """Let every test begin with a provider that has not been asked."""
    provider.clear()


def _limited(provider: SimulatedProvider, rpm: float, **sections: Any) -> dict[str, Any]:
    models = model_list(**{MODEL: anthropic("claude-limited", provider.url, rpm=rpm)})
    return {"model_list": models, "telemetry": {"jsonl": {"path": "/dev/null"}}, **sections}


def _judge(provider: SimulatedProvider, flood: Flood, rpm: int) -> None:
    """Hold the provider's own record against the promise, and print it."""
    times = [one.time for one in provider.requests]
    most = most_in_a_minute(times)
    fewest = fewest_in_a_minute(times, flood.began_s + SETTLE_S, flood.ended_s)
    print(
        f"{flood.asked_per_s():.0f} questions a second for {flood.ended_s - flood.began_s:.0f} s; "
        f"calls in any 60 s: at most {most}, at least {fewest} of {rpm}; "
        f"answers: {dict(flood.statuses())}"
    )
    assert most <= 1.1 * rpm
    assert fewest >= 0.95 * rpm


@pytest.mark.timeout(300)
def test_budget_of_100_a_minute_on_8_workers(start: Start, provider: SimulatedProvider) -> None:
    """Far more questions than calls: the calls keep to the budget, and use it."""
    server = start(_limited(provider, 100), workers=8)
    with Flood([server.port], MODEL, 1000) as flood:
        time.sleep(125)
    _judge(provider, flood, 100)
    assert set(flood.statuses()) <= {200, 429}
    served = Counter(one.process for one in flood.counted())
    share = served.total() / 8
    print(f"calls of each worker: {sorted(served.values())}")
    assert len(served) == 8
    assert min(served.values()) >= share / 2
    waits = [float(one.retry_after) for one in flood.answers if one.status == 429]
    print(f"told to wait: {min(waits):g} to {max(waits):g} s")
    assert max(one.took_s for one in flood.answers) < 31
