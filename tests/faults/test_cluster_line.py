"""What a server says that is no answer, and what happens to its answers on the line."""

import asyncio
from unittest.mock import patch

import pytest

from cache import _cluster_batch
from cache._cluster_batch import CONNECTIONS
from cache.cluster import Led
from tests.faults.cluster_checks import (
    KEY,
    PATIENT_S,
    VALUE,
    enters,
    fails_three_times_and_then_costs_nothing,
    three_times,
    what_is_said,
)
from tests.faults.fault_proxy import FaultProxy
from tests.faults.redis_server import RedisServer, connect, in_loop, run
from tests.faults.resp_stub import RespStub

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
def test_c4_states_that_a_server_says(reply: bytes) -> None:
    async def play() -> None:
        async with RespStub(lambda _: reply) as stub:
            cluster = connect(stub.url)
            said = await what_is_said(lambda: three_times(cluster))
            kinds = [line for line in said if STATES[reply] in line]
            assert len(kinds) == 1, "once, however often"
            assert sum("not asked until it answers" in line for line in said) == 1
            assert "secret-key" not in "".join(said)
            assert cluster.breaker.is_open

    run(play())


def test_c4_a_ping_alone_does_not_close_the_breaker() -> None:
    async def play() -> None:
        def reply(command: list[bytes]) -> bytes:
            return b"+PONG\r\n" if command[0] == b"PING" else b"-READONLY no\r\n"

        async with RespStub(reply) as stub:
            cluster = connect(stub.url)
            await three_times(cluster)
            probing = asyncio.create_task(cluster.probe_forever())
            await asyncio.sleep(2.2)
            assert cluster.breaker.is_open
            assert len(stub.commands) > 3, "it has been probed"
            probing.cancel()
            await asyncio.wait({probing})

    run(play())


@in_loop
async def test_c4_a_connection_reset_in_the_middle_of_a_reply(server: RedisServer) -> None:
    async with FaultProxy(server.port) as proxy:
        cluster = connect(proxy.url)
        await enters(cluster)
        proxy.cut_after = 2
        await fails_three_times_and_then_costs_nothing(cluster)
        proxy.cut_after = None
        cluster.breaker.close()
        await enters(cluster)


@in_loop
async def test_a_late_reply_is_never_the_answer_to_another_question(server: RedisServer) -> None:
    # 1 A asks, the reply is held back; 2 A's time is over; 3 B asks; 4 A's reply arrives.
    values = {bytes([n]): VALUE + bytes([n]) for n in range(20)}
    async with FaultProxy(server.port) as proxy:
        cluster = connect(proxy.url)
        patient = connect(server.url, timeout_s=PATIENT_S)
        for key, value in values.items():
            await patient.land(key, b"", value, 60)
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


@in_loop
async def test_a_caller_that_hangs_up_leaves_no_lease_behind(server: RedisServer) -> None:
    async with FaultProxy(server.port) as proxy:
        cluster = connect(proxy.url, timeout_s=PATIENT_S)
        await cluster.enter(b"first", b"gone", waited=False)  # the server knows the script
        proxy.delay_s = 0.1
        entering = asyncio.create_task(cluster.enter(KEY, b"gone", waited=False))
        await asyncio.sleep(0.05)
        entering.cancel()
        await asyncio.wait({entering})
        assert entering.cancelled()
        await cluster.close()
    other = connect(server.url, timeout_s=PATIENT_S)
    assert await other.enter(KEY, b"next", waited=True) == Led()


@in_loop
async def test_nobody_is_left_behind_when_all_connections_land(server: RedisServer) -> None:
    # 1 a batch lands and wakes A; 2 A asks again, before the batch's task is known to have ended.
    cluster = connect(server.url, timeout_s=PATIENT_S)

    async def one_after_the_other() -> None:
        for _ in range(100):
            await cluster.get(KEY)

    for connections in (1, 2, CONNECTIONS):
        with patch.object(_cluster_batch, "CONNECTIONS", connections):
            async with asyncio.timeout(PATIENT_S), asyncio.TaskGroup() as group:
                for _ in range(connections):
                    group.create_task(one_after_the_other())
    assert (cluster.counters.errors, cluster.counters.crowded) == (0, 0)
    assert server.do("INFO", "stats")["total_connections_received"] <= CONNECTIONS + 3
