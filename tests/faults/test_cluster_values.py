"""What stands on the cluster's server: the newest record, generations, and nothing of others'."""

import random
import time
from pathlib import Path

import pytest

from cache._cluster_scripts import COUNTED_AT
from cache.cluster import AwayError, ClusterCache, Found
from cache.record import ORDER, Codec, Record
from tests.certificates import Authority
from tests.faults.cluster_checks import PATIENT_S, Operation, enters, three_times, what_is_said
from tests.faults.redis_server import RedisServer, connect, in_loop
from tests.server import free_port

KEY = bytes(range(32))
NAME = "tallygate:count:{" + KEY.hex() + "}"


def value(order: int, rest: bytes = b"rest") -> bytes:
    return b"TG\x01" + order.to_bytes(8) + (9).to_bytes(8) + rest


def patient(server: RedisServer, namespace: str = "tallygate") -> ClusterCache:
    return connect(server.url, namespace=namespace, timeout_s=PATIENT_S)


def test_the_scripts_know_where_a_record_says_when_it_was_counted() -> None:
    data = Codec(b"secret").encode(
        KEY, Record(14, 0x0102030405060708, asked_at_ns=0x1112131415161718)
    )
    assert data[COUNTED_AT] == bytes([1, 2, 3, 4, 5, 6, 7, 8])
    assert data[ORDER] == bytes([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18])


@in_loop
async def test_the_newest_stands_whatever_the_order_of_landing(server: RedisServer) -> None:
    # Neighbours in every byte, and bytes that no text encoding orders as they are.
    orders = [0, 1, 0x7F, 0x80, 0xFF, 0x100, 0xFF00, 0xC3A4, 2**31, 2**53, 2**53 + 1, 2**64 - 1]
    cluster = patient(server)
    chance = random.Random(7)
    for turn in range(60):
        key = turn.to_bytes(32)
        landing = chance.sample(orders, 4)
        newest = -1
        for order in landing:
            before = await cluster.land(key, b"", value(order), 60)
            assert before == (None if newest < 0 else value(newest))
            newest = max(newest, order)
        assert await cluster.get(key) == value(newest)
    again = value(2**64 - 1, b"asked at the same moment")
    await cluster.land(KEY, b"", value(2**64 - 1), 60)
    assert await cluster.land(KEY, b"", again, 60) == value(2**64 - 1)
    assert await cluster.get(KEY) == again


@in_loop
async def test_landing_keeps_what_stands_there_in_time_and_form(server: RedisServer) -> None:
    cluster = patient(server)
    await cluster.land(KEY, b"", value(5), 60)
    assert 59_000 < server.do("PTTL", NAME) <= 60_000
    await cluster.land(KEY, b"", value(4), 6_000)
    assert server.do("PTTL", NAME) <= 60_000
    assert await cluster.land(KEY, b"", None, 60) == value(5)
    assert await cluster.land(KEY, b"", value(9), 0) == value(5)
    assert await cluster.get(KEY) == value(5)
    await cluster.land(KEY, b"", value(6), float("inf"))
    assert server.do("PTTL", NAME) > 10**11
    await cluster.land(b"short", b"", value(6), 0.05)
    time.sleep(0.08)  # noqa: ASYNC251 -- nothing else runs here
    assert await cluster.get(b"short") is None
    assert cluster.counters.errors == 0


@in_loop
async def test_what_is_no_record_gives_way(server: RedisServer) -> None:
    cluster = patient(server)
    for garbage in (b"", b"x", b"XX\x01" + b"\xff" * 60, b"TG\x02" + b"\xff" * 60, b"TG\x01\xff"):
        server.do("SET", NAME, garbage)
        assert await cluster.enter(KEY, b"a", 10.0, waited=False) == Found(garbage)
        await cluster.land(KEY, b"", value(5), 60)
        assert await cluster.get(KEY) == value(5)
        await cluster.delete_on_bad(KEY)
        assert await cluster.get(KEY) is None
    assert cluster.counters.bad == 5


@in_loop
async def test_another_type_under_a_name_of_ours_is_removed(server: RedisServer) -> None:
    cluster = patient(server)
    looks: list[Operation] = [
        lambda cluster: cluster.get(KEY),
        lambda cluster: cluster.land(KEY, b"", None, 1),
        lambda cluster: cluster.enter(KEY, b"a", waited=False),
    ]
    for number, look in enumerate(looks):
        server.do("HSET", NAME, "some", "thing")
        await look(cluster)
        assert server.do("EXISTS", NAME) == 0
        assert cluster.counters.bad == number + 1
    server.do("SET", "tallygate:generations", "some")
    assert await cluster.generations() == {}
    assert await cluster.raise_generation("m", 1)
    server.do("SET", "tallygate:generations", "some")
    assert await cluster.raise_generation("m", 2)
    assert await cluster.generations() == {"m": 2}
    assert cluster.counters.errors == 0
    assert not cluster.breaker.is_open


@in_loop
async def test_generations_only_grow(server: RedisServer) -> None:
    cluster, other = patient(server), patient(server)
    assert await cluster.generations() == {}
    for generation in (5, 3, 1_764_000_000_000, 1_764_000_000_001, 1_764_000_000_000, 10):
        assert await cluster.raise_generation("anthropic/claude-ä", generation)
    assert await other.raise_generation("m", 0)
    assert await other.generations() == {"anthropic/claude-ä": 1_764_000_000_001, "m": 0}
    server.do("HSET", "tallygate:generations", "m", "-5", "n", "1e9", "o", "")
    assert await other.generations() == {"anthropic/claude-ä": 1_764_000_000_001}
    # What nobody believes gives way.
    server.do("HSET", "tallygate:generations", "m", f"{2**63 - 1:020}")
    assert await other.raise_generation("m", 7)
    assert (await other.generations() or {})["m"] == 7


@in_loop
async def test_namespaces_share_a_server_and_nothing_else(server: RedisServer) -> None:
    mine, yours = patient(server, "mine"), patient(server, "mine:too")
    server.do("SET", "mine:count:other", "x")
    for number in range(450):
        await mine.land(number.to_bytes(32), b"", value(number), 60)
    await yours.land(KEY, b"", value(1), 60)
    found = [entry async for entry in mine.scan()]
    assert {key: data for key, data, _ in found} == {
        number.to_bytes(32): value(number) for number in range(450)
    }
    assert all(0 < ttl_s <= 60 for _, _, ttl_s in found)
    assert await mine.delete(key for key, _, _ in found) == 450
    assert await mine.delete([KEY]) == 0
    assert [entry async for entry in mine.scan()] == []
    assert await yours.get(KEY) == value(1)
    assert server.do("GET", "mine:count:other") == b"x"


@in_loop
async def test_a_scan_that_breaks_off_does_not_look_complete(server: RedisServer) -> None:
    cluster = patient(server)
    for number in range(900):
        await cluster.land(number.to_bytes(32), b"", value(number), 60)
    scan = cluster.scan()
    await anext(scan)
    server.kill()
    with pytest.raises(AwayError):
        async for _ in scan:
            pass


@in_loop
async def test_the_servers_figures(server: RedisServer) -> None:
    cluster = patient(server)
    await cluster.land(KEY, b"", value(1), 60)
    stats = await cluster.stats()
    assert stats is not None
    assert (stats["server"], stats["keys"]) in {("redis", 1), ("valkey", 1)}
    assert str(stats["version"])[0].isdigit()
    assert int(stats["used_memory_bytes"]) > 100_000


def test_over_tls_and_only_where_the_certificate_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "server.pem").write_bytes(authority.issue("127.0.0.1"))
    port = free_port()
    pem = str(tmp_path / "server.pem")
    options = ["--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", pem]
    options += ["--tls-ca-cert-file", str(tmp_path / "ca.pem"), "--tls-auth-clients", "no"]

    @in_loop
    async def over_tls(server: RedisServer) -> None:
        url = f"rediss://127.0.0.1:{port}/0"
        stranger = connect(url)
        said = await what_is_said(lambda: three_times(stranger))
        assert f"cluster cache {url}: TLS failed" in said
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        friend = connect(url, timeout_s=PATIENT_S)
        await enters(friend)
        assert server.do("DBSIZE") == 1

    with RedisServer(tmp_path, "redis-server", *options) as server:
        over_tls(server)


@in_loop
async def test_a_look_up_is_quick(server: RedisServer) -> None:
    # Against the server's own floor here and now, as the client library reaches it.
    cluster = patient(server)
    await cluster.land(KEY, b"", value(1), 60)
    best = {}
    for name, look in (
        ("plain", lambda: cluster._link.alone.get(NAME)),
        ("get", lambda: cluster.get(KEY)),
        ("enter", lambda: cluster.enter(KEY, b"a", waited=False)),
    ):
        times_s = []
        for _ in range(300):
            started = time.perf_counter()
            await look()
            times_s.append(time.perf_counter() - started)
        best[name] = sorted(times_s)[30]
    assert best["get"] < 5 * best["plain"]
    assert best["enter"] < 6 * best["plain"]
    assert server.do("INFO", "stats")["total_connections_received"] < 10, (
        "kept from one to the next"
    )
