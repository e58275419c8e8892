"""The cluster's server in every bad state: no exception, 50 ms, three times, then nothing."""

import asyncio
from pathlib import Path

import pytest

from cache.cluster import Away, Found, Led
from tests.faults.cluster_checks import (
    KEY,
    PATIENT_S,
    VALUE,
    enters,
    fails_three_times_and_then_costs_nothing,
    recovers,
    three_times,
    what_is_said,
)
from tests.faults.redis_server import RedisServer, connect, in_loop
from tests.server import free_port


@in_loop
async def test_c4_refused(server: RedisServer) -> None:
    server.kill()
    cluster = connect(server.url)
    await fails_three_times_and_then_costs_nothing(cluster)
    await recovers(cluster, server.start)


@in_loop
async def test_c4_silent(server: RedisServer) -> None:
    cluster = connect(server.url)
    await enters(cluster, b"before")
    server.pause()
    await fails_three_times_and_then_costs_nothing(cluster)
    server.resume()
    server.do("FLUSHALL")
    server.pause()
    await recovers(cluster, server.resume)


@in_loop
async def test_c4_silent_from_the_first_connection_on(server: RedisServer) -> None:
    server.pause()
    cluster = connect(server.url)
    await fails_three_times_and_then_costs_nothing(cluster)


@in_loop
async def test_c4_killed_and_restarted_with_connections_in_the_pool(server: RedisServer) -> None:
    cluster = connect(server.url)
    await asyncio.gather(*(cluster.get(bytes([n])) for n in range(50)))
    server.kill()
    await fails_three_times_and_then_costs_nothing(cluster)
    await recovers(cluster, server.start)


@in_loop
async def test_c4_restarted_between_two_operations(server: RedisServer) -> None:
    cluster = connect(server.url, timeout_s=PATIENT_S)
    await cluster.land(KEY, b"", VALUE, 60)
    server.kill()
    server.start()
    await asyncio.sleep(0.01)  # the loop hears that the connections are gone
    assert await cluster.get(KEY) is None
    assert await cluster.enter(KEY, b"a", waited=False) == Led()
    assert cluster.counters.errors == 0


@in_loop
async def test_c4_read_only_replica(server: RedisServer) -> None:
    await writes_refused(
        server, ["REPLICAOF", "127.0.0.1", str(free_port())], "a read-only replica"
    )
    server.do("REPLICAOF", "NO", "ONE")


@in_loop
async def test_c4_full_memory(server: RedisServer) -> None:
    server.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await writes_refused(
        server, ["CONFIG", "SET", "maxmemory", "1mb"], "its memory is full, and it evicts nothing"
    )


async def writes_refused(server: RedisServer, harm: list[str], kind: str) -> None:
    """A PING still works then, and so do reads; the breaker must not close by them."""
    patient = connect(server.url, timeout_s=PATIENT_S)
    assert await patient.land(b"there", b"", VALUE, 60) is None
    server.do(*harm)
    assert server.do("PING")
    assert await patient.enter(b"there", b"a", waited=False) == Found(VALUE)
    cluster = connect(server.url)
    said = await what_is_said(lambda: three_times(cluster))
    assert f"cluster cache {server.url}: {kind}" in said
    assert cluster.breaker.is_open

    def repair() -> None:
        if harm[0] == "CONFIG":
            server.do("CONFIG", "SET", "maxmemory", "0")
        else:
            server.do("REPLICAOF", "NO", "ONE")

    await recovers(cluster, repair)


@pytest.mark.parametrize("login", ["", ":wr0ng-pass@", "somebody:wr0ng-pass@"])
def test_c4_credentials_refused(tmp_path: Path, login: str) -> None:
    @in_loop
    async def refused(server: RedisServer) -> None:
        cluster = connect(f"redis://{login}127.0.0.1:{server.port}/0")
        said = await what_is_said(lambda: fails_three_times_and_then_costs_nothing(cluster))
        kind = "user or password refused" if login else "password missing"
        assert f"cluster cache {server.url}: {kind}" in said
        assert "wr0ng-pass" not in "".join([*said, repr(cluster), repr(cluster.counters)])
        assert "somebody" not in "".join([*said, repr(cluster)])

    with RedisServer(tmp_path, "redis-server", "--requirepass", "right-pass") as server:
        refused(server)


@in_loop
async def test_c4_the_right_credentials_and_another_database(server: RedisServer) -> None:
    server.do("ACL", "SETUSER", "tally", "on", ">p:@s/s#?", "~*", "+@all")
    url = f"redis://tally:p%3A%40s%2Fs%23%3F@127.0.0.1:{server.port}/3"
    cluster = connect(url, timeout_s=PATIENT_S)
    assert await cluster.land(KEY, b"", VALUE, 60) is None
    assert await cluster.get(KEY) == VALUE
    assert server.do("DBSIZE") == 0
    assert "p:@s/s#?" not in repr(cluster)


@in_loop
async def test_c4_a_user_that_may_not_run_scripts(server: RedisServer) -> None:
    server.do("ACL", "SETUSER", "default", "-@scripting")
    cluster = connect(server.url)
    said = await what_is_said(lambda: three_times(cluster))
    assert f"cluster cache {server.url}: this user may not run the commands needed" in said
    assert cluster.breaker.is_open


@in_loop
async def test_c4_a_server_that_is_away_at_the_start_costs_no_request_anything(
    server: RedisServer,
) -> None:
    server.kill()
    cluster = connect(server.url)
    probing = asyncio.create_task(cluster.probe_forever())
    await asyncio.sleep(0.3)
    assert await cluster.enter(KEY, b"a", waited=False) == Away()
    assert (cluster.counters.asked, cluster.counters.not_asked) == (0, 1)
    probing.cancel()
    await asyncio.wait({probing})
