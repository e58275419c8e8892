"""The cluster's server in every bad state: no exception, 50 ms, three times, then nothing."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cache.cluster import Away, ClusterCache, Found, Led
from cache.failure import Failure
from tests.faults.fault_proxy import FaultProxy
from tests.faults.redis_server import RedisServer, in_loop
from tests.faults.resp_stub import RespStub
from tests.server import free_port

KEY = bytes(range(32))
VALUE = b"TG\x01" + (5).to_bytes(8) + (9).to_bytes(8) + b"the rest"
DEADLINE_S = 0.05
SLACK_S = 0.25
"""What a busy machine may add to a deadline, once."""
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
        assert max(times_s) < DEADLINE_S + SLACK_S
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
    await cluster.close()


async def enters(cluster: ClusterCache, token: bytes = b"after") -> None:
    """It works as before; on a busy machine perhaps not at the first try."""
    for _ in range(20):
        entered = await cluster.enter(KEY, token, waited=False)
        if entered != Away():
            break
    assert entered == Led()


@in_loop
async def test_refused(server: RedisServer) -> None:
    server.kill()
    cluster = ClusterCache(server.url)
    await fails_three_times_and_then_costs_nothing(cluster)
    await recovers(cluster, server.start)


@in_loop
async def test_silent(server: RedisServer) -> None:
    cluster = ClusterCache(server.url)
    await enters(cluster, b"before")
    server.pause()
    await fails_three_times_and_then_costs_nothing(cluster)
    server.resume()
    server.do("FLUSHALL")
    server.pause()
    await recovers(cluster, server.resume)


@in_loop
async def test_silent_from_the_first_connection_on(server: RedisServer) -> None:
    server.pause()
    cluster = ClusterCache(server.url)
    await fails_three_times_and_then_costs_nothing(cluster)
    await cluster.close()


@in_loop
async def test_killed_and_restarted_with_connections_in_the_pool(server: RedisServer) -> None:
    cluster = ClusterCache(server.url)
    await asyncio.gather(*(cluster.get(bytes([n])) for n in range(50)))
    server.kill()
    await fails_three_times_and_then_costs_nothing(cluster)
    await recovers(cluster, server.start)


@in_loop
async def test_restarted_between_two_operations(server: RedisServer) -> None:
    cluster = ClusterCache(server.url, timeout_s=PATIENT_S)
    await cluster.land(KEY, b"", VALUE, 60)
    server.kill()
    server.start()
    await asyncio.sleep(0.01)  # the loop hears that the connections are gone
    assert await cluster.get(KEY) is None
    assert await cluster.enter(KEY, b"a", waited=False) == Led()
    assert cluster.counters.errors == 0
    await cluster.close()


@in_loop
async def test_read_only_replica(server: RedisServer) -> None:
    await writes_refused(
        server, ["REPLICAOF", "127.0.0.1", str(free_port())], "a read-only replica"
    )
    server.do("REPLICAOF", "NO", "ONE")


@in_loop
async def test_full_memory(server: RedisServer) -> None:
    server.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await writes_refused(
        server, ["CONFIG", "SET", "maxmemory", "1mb"], "its memory is full, and it evicts nothing"
    )


async def writes_refused(server: RedisServer, harm: list[str], kind: str) -> None:
    """A PING still works then, and so do reads; the breaker must not close by them."""
    patient = ClusterCache(server.url, timeout_s=PATIENT_S)
    assert await patient.land(b"there", b"", VALUE, 60) is None
    server.do(*harm)
    assert server.do("PING")
    assert await patient.enter(b"there", b"a", waited=False) == Found(VALUE)
    await patient.close()
    cluster = ClusterCache(server.url)
    said = await what_is_said(lambda: three_times(cluster))
    assert f"cluster cache {server.url}: {kind}" in said
    assert cluster.breaker.is_open

    def repair() -> None:
        if harm[0] == "CONFIG":
            server.do("CONFIG", "SET", "maxmemory", "0")
        else:
            server.do("REPLICAOF", "NO", "ONE")

    await recovers(cluster, repair)


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


@pytest.mark.parametrize("login", ["", ":wr0ng-pass@", "somebody:wr0ng-pass@"])
def test_credentials_refused(tmp_path: Path, login: str) -> None:
    @in_loop
    async def refused(server: RedisServer) -> None:
        cluster = ClusterCache(f"redis://{login}127.0.0.1:{server.port}/0")
        said = await what_is_said(lambda: fails_three_times_and_then_costs_nothing(cluster))
        kind = "user or password refused" if login else "password missing"
        assert f"cluster cache {server.url}: {kind}" in said
        assert "wr0ng-pass" not in "".join([*said, repr(cluster), repr(cluster.counters)])
        assert "somebody" not in "".join([*said, repr(cluster)])
        await cluster.close()

    with RedisServer(tmp_path, "redis-server", "--requirepass", "right-pass") as server:
        refused(server)


@in_loop
async def test_the_right_credentials_and_another_database(server: RedisServer) -> None:
    server.do("ACL", "SETUSER", "tally", "on", ">p:@s/s#?", "~*", "+@all")
    url = f"redis://tally:p%3A%40s%2Fs%23%3F@127.0.0.1:{server.port}/3"
    cluster = ClusterCache(url, timeout_s=PATIENT_S)
    assert await cluster.land(KEY, b"", VALUE, 60) is None
    assert await cluster.get(KEY) == VALUE
    assert server.do("DBSIZE") == 0
    assert "p:@s/s#?" not in repr(cluster)
    await cluster.close()


@in_loop
async def test_a_user_that_may_not_run_scripts(server: RedisServer) -> None:
    server.do("ACL", "SETUSER", "default", "-@scripting")
    cluster = ClusterCache(server.url)
    said = await what_is_said(lambda: three_times(cluster))
    assert f"cluster cache {server.url}: this user may not run the commands needed" in said
    assert cluster.breaker.is_open
    await cluster.close()


STATES = {
    b"-LOADING Redis is loading the dataset in memory\r\n": "still loading its data",
    b"-MASTERDOWN Link with MASTER is down\r\n": "a replica without its master",
    b"-MISCONF Redis is configured to save RDB snapshots\r\n": "it cannot save",
    b"-BUSY Redis is busy running a script\r\n": "busy with a script",
    b"-CLUSTERDOWN Hash slot not served\r\n": "its cluster is down",
    b"-MOVED 1234 127.0.0.1:1\r\n": "a Redis Cluster that keeps our keys elsewhere",
    b"-ERR max number of clients reached\r\n": "connection lost",
    b"-ERR Error running script (call to f_1): @user_script:1: -READONLY You can't\r\n": (
        "a read-only replica"
    ),
    b"-ERR something new about secret-key\r\n": "ResponseError",
    b"HTTP/1.1 400 Bad Request\r\n\r\n": "no Redis or Valkey server",
    b"+OK\r\n": "an answer that cannot be understood",
    b"*3\r\n$5\r\nfound\r\n": "silent",
}


@pytest.mark.parametrize("reply", STATES)
def test_states_that_a_server_says(reply: bytes) -> None:
    async def play() -> None:
        async with RespStub(lambda _: reply) as stub:
            cluster = ClusterCache(stub.url)
            said = await what_is_said(lambda: three_times(cluster))
            kinds = [line for line in said if STATES[reply] in line]
            assert len(kinds) == 1, "once, however often"
            assert sum("not asked until it answers" in line for line in said) == 1
            assert "secret-key" not in "".join(said)
            assert cluster.breaker.is_open
            await cluster.close()

    asyncio.run(play())


def test_a_ping_alone_does_not_close_the_breaker() -> None:
    async def play() -> None:
        def reply(command: list[bytes]) -> bytes:
            return b"+PONG\r\n" if command[0] == b"PING" else b"-READONLY no\r\n"

        async with RespStub(reply) as stub:
            cluster = ClusterCache(stub.url)
            await three_times(cluster)
            probing = asyncio.create_task(cluster.probe_forever())
            await asyncio.sleep(2.2)
            assert cluster.breaker.is_open
            assert len(stub.commands) > 3, "it has been probed"
            probing.cancel()
            await asyncio.wait({probing})
            await cluster.close()

    asyncio.run(play())


@in_loop
async def test_a_server_that_is_away_at_the_start_costs_no_request_anything(
    server: RedisServer,
) -> None:
    server.kill()
    cluster = ClusterCache(server.url)
    probing = asyncio.create_task(cluster.probe_forever())
    await asyncio.sleep(0.3)
    assert await cluster.enter(KEY, b"a", waited=False) == Away()
    assert (cluster.counters.asked, cluster.counters.not_asked) == (0, 1)
    probing.cancel()
    await asyncio.wait({probing})
    await cluster.close()


@in_loop
async def test_a_connection_reset_in_the_middle_of_a_reply(server: RedisServer) -> None:
    async with FaultProxy(server.port) as proxy:
        cluster = ClusterCache(proxy.url)
        await enters(cluster)
        proxy.cut_after = 2
        await fails_three_times_and_then_costs_nothing(cluster)
        proxy.cut_after = None
        cluster.breaker.close()
        await enters(cluster)
        await cluster.close()


@in_loop
async def test_a_late_reply_is_never_the_answer_to_another_question(server: RedisServer) -> None:
    # 1 A asks, the reply is held back; 2 A's time is over; 3 B asks; 4 A's reply arrives.
    values = {bytes([n]): VALUE + bytes([n]) for n in range(20)}
    async with FaultProxy(server.port) as proxy:
        cluster = ClusterCache(proxy.url)
        patient = ClusterCache(server.url, timeout_s=PATIENT_S)
        for key, value in values.items():
            await patient.land(key, b"", value, 60)
        await patient.close()
        found = 0
        for turn in range(60):
            proxy.delay_s = (0.0, 0.043, 0.049, 0.06)[turn % 4]
            asks = {key: asyncio.create_task(cluster.get(key)) for key in values}
            if turn % 3 == 0:  # callers hang up, before or after their reply is there
                await asyncio.sleep(0.001 * turn)
                for ask in list(asks.values())[::2]:
                    ask.cancel()
            await asyncio.wait(asks.values())
            for key, ask in asks.items():
                if not ask.cancelled():
                    assert ask.result() in (None, values[key])
                    found += ask.result() is not None
            cluster.breaker.close()
        assert found > 50
        assert proxy.connections > 5, "what was cut off was closed"
        await cluster.close()
