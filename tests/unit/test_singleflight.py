"""One flight per key: shared landings, cancelled callers, failing leaders, bounds."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cache.singleflight import CrowdedError, SingleFlight


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 10))

    return run


class Work:
    """A leader's work that the test lets finish."""

    def __init__(self) -> None:
        self.calls = 0
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.calls += 1
        await self.go.wait()
        return 42


@in_loop
async def test_all_who_ask_at_once_share_one_call() -> None:
    flights: SingleFlight[int] = SingleFlight()
    work = Work()
    asks = [asyncio.create_task(flights.join("k", work, 5)) for _ in range(1000)]
    await asyncio.sleep(0)
    work.go.set()
    landed = [await ask for ask in asks]
    assert work.calls == 1
    assert [value for value, _ in landed] == [42] * 1000
    assert sum(led for _, led in landed) == 1


@in_loop
async def test_c2_a_leader_that_hangs_up_harms_nobody() -> None:
    flights: SingleFlight[int] = SingleFlight()
    work = Work()
    leader = asyncio.create_task(flights.join("k", work, 5))
    await asyncio.sleep(0)
    waiters = [asyncio.create_task(flights.join("k", work, 5)) for _ in range(3)]
    await asyncio.sleep(0)
    leader.cancel()
    waiters[0].cancel()
    await asyncio.sleep(0)
    work.go.set()
    assert [await waiter for waiter in waiters[1:]] == [(42, False)] * 2
    assert leader.cancelled()
    assert work.calls == 1


@in_loop
async def test_the_work_goes_on_when_everybody_has_left() -> None:
    flights: SingleFlight[int] = SingleFlight()
    work = Work()
    ask = asyncio.create_task(flights.join("k", work, 5))
    await asyncio.sleep(0)
    ask.cancel()
    await asyncio.sleep(0)
    late = asyncio.create_task(flights.join("k", work, 5))
    await asyncio.sleep(0)
    work.go.set()
    assert await late == (42, False)
    assert work.calls == 1


@in_loop
async def test_each_waiter_has_its_own_deadline() -> None:
    flights: SingleFlight[int] = SingleFlight()
    work = Work()
    patient = asyncio.create_task(flights.join("k", work, 5))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await flights.join("k", work, 0.01)
    work.go.set()
    assert await patient == (42, True)


@in_loop
async def test_nothing_is_remembered_after_the_landing() -> None:
    flights: SingleFlight[int] = SingleFlight()
    work = Work()
    work.go.set()
    assert await flights.join("k", work, 5) == (42, True)
    assert await flights.join("k", work, 5) == (42, True)
    assert work.calls == 2
    assert repr(flights) == "<SingleFlight: 0 flights, 0 waiting>"


@in_loop
async def test_an_unexpected_exception_reaches_all_who_wait_and_is_then_gone() -> None:
    flights: SingleFlight[int] = SingleFlight()
    calls = 0

    async def fails() -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        raise ZeroDivisionError

    asks = [asyncio.create_task(flights.join("k", fails, 5)) for _ in range(5)]
    done, _ = await asyncio.wait(asks)
    assert {type(ask.exception()) for ask in done} == {ZeroDivisionError}
    assert calls == 1
    with pytest.raises(ZeroDivisionError):
        await flights.join("k", fails, 5)
    assert calls == 2


@in_loop
async def test_flights_and_waiters_are_bounded() -> None:
    flights: SingleFlight[int] = SingleFlight(max_flights=2, max_waiters=3)
    work = Work()
    asks = [asyncio.create_task(flights.join(key, work, 5)) for key in ("a", "b")]
    await asyncio.sleep(0)
    with pytest.raises(CrowdedError):
        await flights.join("c", work, 5)
    asks.append(asyncio.create_task(flights.join("a", work, 5)))
    await asyncio.sleep(0)
    with pytest.raises(CrowdedError):
        await flights.join("a", work, 5)
    work.go.set()
    assert [await ask for ask in asks] == [(42, True), (42, True), (42, False)]


@in_loop
async def test_what_flights_carry_is_bounded_until_they_land() -> None:
    flights: SingleFlight[int] = SingleFlight(max_bytes=1_000_000)
    work = Work()

    def ask(key: str, size_bytes: int) -> "asyncio.Task[tuple[int, bool]]":
        return asyncio.create_task(flights.join(key, work, 5, None, size_bytes))

    left = ask("heavy", 2_000_000)  # one there is always room for
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(CrowdedError):
        await ask("heavy too", 65_537)
    others = [ask("small", 65_536), ask("heavy", 2_000_000)]
    await asyncio.sleep(0)
    work.go.set()
    assert [await one for one in others] == [(42, True), (42, False)]
    assert await ask("heavy too", 999_999) == (42, True)


@in_loop
async def test_closing_ends_what_is_out() -> None:
    flights: SingleFlight[int] = SingleFlight()
    ask = asyncio.create_task(flights.join("k", Work(), 5))
    await asyncio.sleep(0)
    await flights.close()
    with pytest.raises(asyncio.CancelledError):
        await ask
    assert repr(flights) == "<SingleFlight: 0 flights, 0 waiting>"
