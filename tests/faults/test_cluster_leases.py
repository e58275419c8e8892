"""One leader per key among all tasks, processes and machines that share a server."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from cache.cluster import Away, ClusterCache, Entered, Failed, Found, Held, Led
from cache.failure import Failure
from tests.faults.redis_server import RedisServer, connect, in_loop
from tests.server import ROOT

KEY = bytes(range(32))
FAILURE = Failure(429, "rate_limit_error", 7, b"8 bytes!")
SLACK_S = 1.0
PATIENT_S = 5.0
"""A deadline for what must succeed, however busy the machine is."""


def value(order: int, counted_at: int = 9, rest: bytes = b"rest") -> bytes:
    return b"TG\x01" + order.to_bytes(8) + counted_at.to_bytes(8) + rest


async def outlasts(cluster: ClusterCache, key: bytes, kind: type[Entered]) -> Entered:
    """Poll as a waiter does until something else is said."""
    while True:
        entered = await cluster.enter(key, b"waits", waited=True)
        if not isinstance(entered, kind):
            return entered
        await asyncio.sleep(0.01)


@in_loop
async def test_one_holds_and_the_others_wait(server: RedisServer) -> None:
    cluster = connect(server.url, timeout_s=PATIENT_S)
    assert await cluster.enter(KEY, b"a", waited=False) == Led()
    assert await cluster.enter(KEY, b"a", waited=False) == Led(), (
        "asked again, as after a lost reply"
    )
    assert await cluster.enter(KEY, b"b", waited=False) == Held()
    assert await cluster.enter(b"another", b"b", waited=False) == Led()
    assert await cluster.land(KEY, b"a", value(1), 60) is None
    assert await cluster.enter(KEY, b"b", waited=True) == Found(value(1))
    assert server.do("KEYS", "tallygate:lease:{" + KEY.hex() + "}") == []


@in_loop
async def test_a_lost_lease_cannot_touch_the_next_ones(server: RedisServer) -> None:
    cluster = connect(server.url, timeout_s=PATIENT_S, lease_ms=60)
    assert await cluster.enter(KEY, b"a", waited=False) == Led()
    await asyncio.sleep(0.1)
    assert not await cluster.renew(KEY, b"a"), "nobody holds it: what is lost stays lost"
    patient = connect(server.url, timeout_s=PATIENT_S)
    assert await patient.enter(KEY, b"b", waited=True) == Led()
    assert not await cluster.renew(KEY, b"a")
    await cluster.release(KEY, b"a")
    await cluster.fail(KEY, b"a", FAILURE)
    assert await cluster.land(KEY, b"a", None, 60) is None
    assert await cluster.enter(KEY, b"c", waited=True) == Held()
    assert await patient.renew(KEY, b"b")


@in_loop
async def test_renewing_keeps_it_and_releasing_gives_it_back(server: RedisServer) -> None:
    cluster = connect(server.url, timeout_s=PATIENT_S, lease_ms=150)
    assert await cluster.enter(KEY, b"a", waited=False) == Led()
    for _ in range(6):
        await asyncio.sleep(0.05)
        assert await cluster.renew(KEY, b"a")
        assert await cluster.enter(KEY, b"b", waited=True) == Held()
    await cluster.release(KEY, b"a")
    assert await cluster.enter(KEY, b"b", waited=True) == Led()


@in_loop
async def test_a_failure_is_shared_with_those_who_wait_and_for_a_second(
    server: RedisServer,
) -> None:
    cluster = connect(server.url, timeout_s=PATIENT_S)
    assert await cluster.enter(KEY, b"a", waited=False) == Led()
    await cluster.fail(KEY, b"a", FAILURE)
    failed_at = time.monotonic()
    for token in (b"b", b"c"):
        assert await cluster.enter(KEY, token, waited=True) == Failed(FAILURE)
    assert await cluster.enter(b"another", b"b", waited=True) == Led()
    assert await outlasts(cluster, KEY, Failed) == Led()
    assert 0.9 < time.monotonic() - failed_at < 1 + SLACK_S


@in_loop
async def test_a_newcomer_takes_the_lease_over_from_a_failure(server: RedisServer) -> None:
    cluster = connect(server.url, timeout_s=PATIENT_S)
    await cluster.enter(KEY, b"a", waited=False)
    await cluster.fail(KEY, b"a", FAILURE)
    assert await cluster.enter(KEY, b"new", waited=False) == Led()
    assert await cluster.enter(KEY, b"b", waited=True) == Held(), "those who waited wait for it"


@in_loop
async def test_what_is_no_failure_of_ours_is_not_believed(server: RedisServer) -> None:
    cluster = connect(server.url, timeout_s=PATIENT_S)
    name = "tallygate:lease:{" + KEY.hex() + "}"
    written = [b"", b"\xc1", b"\x93\xcd\x01\xf4", b"\x94\xcc\xc8\xa9api_error\x00\xc4\x00"]
    for number, data in enumerate(written):
        server.do("SET", name, b"X" + data)
        assert await cluster.enter(KEY, b"%d" % number, waited=True) == Led()
        assert cluster.counters.bad == number + 1


@in_loop
async def test_a_lease_of_the_wrong_type_is_removed(server: RedisServer) -> None:
    cluster = connect(server.url, timeout_s=PATIENT_S)
    server.do("LPUSH", "tallygate:lease:{" + KEY.hex() + "}", "x")
    assert await cluster.enter(KEY, b"a", waited=True) == Led()
    assert cluster.counters.bad == 1


@in_loop
async def test_a_record_too_old_for_the_caller_comes_along_with_the_lease(
    server: RedisServer,
) -> None:
    cluster = connect(server.url, timeout_s=PATIENT_S)
    record = value(1, counted_at=1_000)
    await cluster.land(KEY, b"", record, 60)
    assert await cluster.enter(KEY, b"a", 999.5, waited=False) == Found(record)
    assert await cluster.enter(KEY, b"a", 1_000.0, waited=False) == Led(record)
    assert await cluster.enter(KEY, b"b", 2_000.0, waited=False) == Held(record)
    assert await cluster.enter(KEY, b"b", 900.0, waited=True) == Found(record), "not too old for it"
    assert await cluster.enter(KEY, b"b", float("inf"), waited=True) == Held(record)


@in_loop
async def test_a_restarted_server_knows_its_scripts_again(server: RedisServer) -> None:
    cluster = connect(server.url, timeout_s=PATIENT_S)
    server.do("SCRIPT", "FLUSH")
    assert await cluster.enter(KEY, b"a", waited=False) == Led()
    server.do("CONFIG", "RESETSTAT")
    await cluster.enter(KEY, b"b", waited=False)
    calls = server.do("INFO", "commandstats")
    assert calls["cmdstat_evalsha"]["calls"] == 1, "one round trip, and no script sent"
    assert "cmdstat_eval" not in calls


CONTENDER = """
import asyncio, os, sys
from cache.cluster import ClusterCache, Found, Led

async def one(cluster, key, log, number):
    token = os.urandom(12)
    waited = False
    while True:
        entered = await cluster.enter(key, token, waited=waited)
        if isinstance(entered, Found):
            return
        if isinstance(entered, Led):
            os.write(log, b"+")
            await asyncio.sleep(0.005)
            os.write(log, b"-")
            last = number >= LAST
            await (cluster.land(key, token, VALUE, 60) if last else cluster.release(key, token))
            number += 1
            if last:
                return
        waited = True
        await asyncio.sleep(0.01)

LAST = 3
VALUE = b"TG\\x01" + bytes(16) + b"rest"

async def main():
    cluster = ClusterCache(sys.argv[1], timeout_s=2)
    log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
    async with asyncio.TaskGroup() as group:
        for number in range(25):
            group.create_task(one(cluster, bytes(32), log, 0))
    await cluster.close()

asyncio.run(main())
"""


def test_fifty_tasks_in_two_processes_lead_one_at_a_time(
    server: RedisServer, tmp_path: Path
) -> None:
    # Each leader writes + and - into one file: two + in a row would be two leaders at once.
    log = tmp_path / "log"
    log.touch()
    command = [sys.executable, "-c", CONTENDER, server.url, str(log)]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [process.wait(timeout=40) for process in processes] == [0, 0]
    turns = log.read_bytes()
    assert len(turns) >= 8
    assert turns == b"+-" * (len(turns) // 2)


@in_loop
async def test_a_dead_leader_is_replaced_within_three_seconds(server: RedisServer) -> None:
    code = (
        "import asyncio, sys; from cache.cluster import ClusterCache\n"
        "async def main():\n"
        "    cluster = ClusterCache(sys.argv[1], timeout_s=2)\n"
        "    print(await cluster.enter(bytes(32), b'dies', waited=False), flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    leader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, server.url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert leader.stdout is not None
    assert await leader.stdout.readline() == b"Led(stale=None)\n"
    cluster = connect(server.url, timeout_s=PATIENT_S)
    assert await cluster.enter(bytes(32), b"waits", waited=False) == Held()
    leader.kill()
    await leader.communicate()
    died_at = time.monotonic()
    assert await outlasts(cluster, bytes(32), Held) == Led()
    assert time.monotonic() - died_at < 3 + SLACK_S


@in_loop
async def test_a_burst_of_cold_keys_is_no_fault_of_the_server(server: RedisServer) -> None:
    cluster = connect(server.url)
    keys = [os.urandom(32) for _ in range(2_000)]
    asks = [asyncio.create_task(cluster.enter(key, b"a", waited=False)) for key in keys]
    await asyncio.wait(asks)
    assert {type(ask.result()) for ask in asks} <= {Led, Away}
    assert not cluster.breaker.is_open
    assert int(server.do("INFO", "clients")["connected_clients"]) <= 6, "bounded, ours included"
