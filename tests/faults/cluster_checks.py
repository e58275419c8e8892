"""What holds for the cluster's tier whatever is wrong with its server."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from statistics import median
from typing import Any

from cache.cluster import Away, ClusterCache, Led
from cache.failure import Failure

KEY = bytes(range(32))
VALUE = b"TG\x01" + (5).to_bytes(8) + (9).to_bytes(8) + b"the rest"
DEADLINE_S = 0.05
SLACK_S = 0.25
"""What a busy machine may add to a deadline."""
PATIENT_S = 5.0
"""A deadline for what must succeed, however busy the machine is."""
RECOVERY_S = 5.0

Operation = Callable[[ClusterCache], Coroutine[Any, Any, object]]

# Each operation, and what it says when the server cannot be asked.
OPERATIONS: list[tuple[Operation, object]] = [
    (lambda cluster: cluster.enter(KEY, b"a", waited=False), Away()),
    (lambda cluster: cluster.get(KEY), None),
    (lambda cluster: cluster.land(KEY, b"a", VALUE, 60), None),
    (lambda cluster: cluster.renew(KEY, b"a"), False),
    (lambda cluster: cluster.fail(KEY, b"a", Failure(502, "api_error")), None),
    (lambda cluster: cluster.release(KEY, b"a"), None),
    (lambda cluster: cluster.generations(), None),
    (lambda cluster: cluster.raise_generation("m", 1), False),
    (lambda cluster: cluster.delete([KEY]), None),
    (lambda cluster: cluster.delete_on_bad(KEY), None),
    (lambda cluster: cluster.stats(), None),
]


async def timed(operation: Coroutine[Any, Any, object]) -> tuple[object, float]:
    started = time.perf_counter()
    return await operation, time.perf_counter() - started


async def fails_three_times_and_then_costs_nothing(
    cluster: ClusterCache, operations: list[tuple[Operation, object]] = OPERATIONS
) -> None:
    """Each operation fails in time; after three errors it is not even asked."""
    for operation, away in operations:
        cluster.breaker.close()
        times_s = []
        while not cluster.breaker.is_open:
            answer, took_s = await timed(operation(cluster))
            assert answer == away
            times_s.append(took_s)
        # More only where this process itself was too late to tell.
        assert 3 <= len(times_s) <= 6
        assert min(times_s) < DEADLINE_S + 0.02
        assert median(times_s) < DEADLINE_S + SLACK_S, times_s
        before = cluster.counters.asked
        answers = [await timed(operation(cluster)) for _ in range(5)]
        assert {repr(answer) for answer, _ in answers} == {repr(away)}
        assert min(took_s for _, took_s in answers) < 0.001
        assert cluster.counters.asked == before


async def recovers(cluster: ClusterCache, repair: Callable[[], object]) -> None:
    """The probe closes the breaker, and no request has been asked for it."""
    cluster.breaker.open()
    asked = cluster.counters.asked
    probing = asyncio.create_task(cluster.probe_forever())
    await asyncio.sleep(1.2)
    assert cluster.breaker.is_open
    await asyncio.to_thread(repair)
    started = time.perf_counter()
    while cluster.breaker.is_open:
        assert time.perf_counter() - started < RECOVERY_S
        assert await cluster.get(KEY) is None
        await asyncio.sleep(0.02)
    assert cluster.counters.asked == asked
    await enters(cluster)
    probing.cancel()
    await asyncio.wait({probing})


async def enters(cluster: ClusterCache, token: bytes = b"after") -> None:
    """It works as before; on a busy machine perhaps not at the first try."""
    for _ in range(20):
        entered = await cluster.enter(KEY, token, waited=False)
        if entered != Away():
            break
    assert entered == Led()


async def three_times(cluster: ClusterCache) -> None:
    await fails_three_times_and_then_costs_nothing(cluster, OPERATIONS[:1])


async def what_is_said(act: Callable[[], Coroutine[Any, Any, None]]) -> list[str]:
    """Collect what the operator reads meanwhile."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tallygate.cache")
    logger.addHandler(handler)
    try:
        await act()
    finally:
        logger.removeHandler(handler)
    return lines
