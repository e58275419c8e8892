"""What refreshes credentials, judged by a clock that the test sets and fetches that it counts."""

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest
from msgspec import Struct

from adapters.base import CredentialsError
from adapters.credentials._refresh import Refreshed


class Proof(Struct, frozen=True):
    number: int
    expires_s: float


class Source:
    """Gives proofs of a hundred seconds' life; counts how often it was asked."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0
        self.asked = 0
        self.life_s = 100.0
        self.takes_s = 0.0
        self.fails = False

    def clock(self) -> float:
        return self.now_s

    def __call__(self) -> Proof:
        self.asked += 1
        time.sleep(self.takes_s)
        if self.fails:
            raise CredentialsError("refused")
        return Proof(self.asked, self.now_s + self.life_s)


class Inline(Executor):
    """Runs what should be in a thread where it stands: on the loop."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def run(scenario: Callable[[Executor], Coroutine[Any, Any, None]]) -> None:
    with ThreadPoolExecutor(2) as pool:
        asyncio.run(asyncio.wait_for(scenario(pool), 30))


async def settled(proof: Refreshed[Proof]) -> None:
    if proof._flight is not None:
        await asyncio.wait((proof._flight,))


def test_the_old_one_serves_within_the_margin_until_it_truly_expires() -> None:
    source = Source()

    async def scenario(pool: Executor) -> None:
        proof = Refreshed(source, pool, source.clock, ahead_s=40, margin_s=30)
        assert (await proof.get()).number == 1
        source.fails = True
        for ahead_s in (59, 61, 75, 90, 99):
            source.now_s = 1_000_000 + ahead_s
            for _ in range(3):
                assert (await proof.get()).number == 1
            await settled(proof)
        source.now_s += 1
        with pytest.raises(CredentialsError, match="refused"):
            await proof.get()
        await proof.close()

    run(scenario)


def test_within_the_margin_a_new_one_is_waited_for() -> None:
    source = Source()

    async def scenario(pool: Executor) -> None:
        proof = Refreshed(source, pool, source.clock, ahead_s=40, margin_s=30)
        await proof.get()
        source.now_s += 75
        source.takes_s = 0.05
        assert (await proof.get()).number == 2
        await proof.close()

    run(scenario)


def test_failures_back_off_twice_as_long_each_up_to_a_minute() -> None:
    source = Source()
    source.fails = True

    async def scenario(pool: Executor) -> None:
        proof = Refreshed(source, pool, source.clock, ahead_s=40)
        for wait_s in (1, 2, 4, 8, 16, 32, 60, 60):
            asked = source.asked
            for early_s in (0.0, wait_s - 0.01):
                with pytest.raises(CredentialsError, match="refused"):
                    await proof.get()
                source.now_s += early_s
                assert source.asked == asked + 1
            with pytest.raises(CredentialsError, match="refused"):
                await proof.get()
            assert source.asked == asked + 1
            source.now_s += 0.02
        source.fails = False
        assert (await proof.get()).number == source.asked
        source.fails = True
        source.now_s += 100
        asked = source.asked
        for _ in range(2):
            with pytest.raises(CredentialsError, match="refused"):
                await proof.get()
            source.now_s += 1.01
        assert source.asked == asked + 2, "after a success the first wait is a second again"
        await proof.close()

    run(scenario)


def test_what_was_refused_is_fetched_anew_and_what_is_new_is_kept() -> None:
    source = Source()

    async def scenario(pool: Executor) -> None:
        proof = Refreshed(source, pool, source.clock, ahead_s=40)
        await proof.get()
        source.now_s += 29
        assert not proof.renew()
        assert (await proof.get()).number == 1
        source.now_s += 2
        assert proof.renew()
        assert (await proof.get()).number == 2
        assert not proof.renew()
        assert (await proof.get()).number == 2
        await proof.close()

    run(scenario)


def test_the_last_wait_holds_however_often_it_failed() -> None:
    source = Source()
    source.fails = True

    async def scenario(pool: Executor) -> None:
        proof = Refreshed(source, pool, source.clock, ahead_s=40)
        for _ in range(1_100):
            with pytest.raises(CredentialsError, match="refused"):
                await proof.get()
            source.now_s += 60
        asked = source.asked
        for _ in range(3):
            with pytest.raises(CredentialsError, match="refused"):
                await proof.get()
        assert source.asked == asked + 1
        await proof.close()

    run(scenario)


def test_a_fault_of_the_fetcher_backs_off_too_and_is_not_quoted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Source()

    def fetch() -> Proof:
        source.asked += 1
        raise RuntimeError("secret-in-a-text")

    async def scenario(pool: Executor) -> None:
        lost: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, said: lost.append(said))
        proof = Refreshed(fetch, pool, source.clock, ahead_s=40)
        for _ in range(3):
            with pytest.raises(CredentialsError) as refused:
                await proof.get()
            assert refused.value.reason == "no credential could be fetched: RuntimeError"
        assert source.asked == 1
        await proof.close()
        gc.collect()
        await asyncio.sleep(0)
        assert not lost

    run(scenario)
    assert "trying again in 1 s" in caplog.text
    assert "secret" not in caplog.text


def test_whoever_is_refused_while_a_new_one_is_fetched_asks_for_no_other() -> None:
    source = Source()

    async def scenario(pool: Executor) -> None:
        proof = Refreshed(source, pool, source.clock, ahead_s=40)
        await proof.get()
        source.now_s += 31
        source.takes_s = 0.05
        assert proof.renew()
        waiting = asyncio.create_task(proof.get())
        await asyncio.sleep(0)
        assert not proof.renew()
        assert (await waiting).number == 2
        assert source.asked == 2
        await proof.close()

    run(scenario)


async def lags_s(source: Source, pool: Executor) -> list[float]:
    """Measure how late each turn of the loop is while somebody waits for a refresh of 300 ms."""
    source.takes_s = 0.3
    proof = Refreshed(source, pool, source.clock, ahead_s=40)
    asking = asyncio.create_task(proof.get())
    found: list[float] = []
    while not asking.done():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        found.append(time.perf_counter() - before - 0.001)
    assert (await asking).number == source.asked
    await proof.close()
    return sorted(found)


def test_the_loop_turns_during_a_refresh() -> None:
    async def scenario(pool: Executor) -> None:
        # A busy machine only adds to a lag, and one of our own would be in every round.
        rounds = [await lags_s(Source(), pool) for _ in range(5)]
        assert max(len(lags) for lags in rounds) > 30
        assert min(lags[len(lags) * 9 // 10] for lags in rounds) < 0.005
        assert min(lags[-1] for lags in rounds) < 0.05
        assert (await lags_s(Source(), Inline()))[-1] > 0.25, "the measure sees a stall"

    run(scenario)
