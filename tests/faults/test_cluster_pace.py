"""A pace that machines share: the server's script is the arithmetic of `cache.pace`."""

import asyncio
import random
import time

from cache.cluster import Paced
from cache.pace import Pace
from tests.faults.redis_server import RedisServer, connect, in_loop


@in_loop
async def test_the_script_gives_what_the_pace_allows(server: RedisServer) -> None:
    """Two machines, whatever they want: the burst at once, then one each interval."""
    pace = Pace.per_minute(6000)
    machines = [connect(server.url) for _machine in range(2)]
    began, taken = time.monotonic(), 0
    while time.monotonic() < began + 2:
        number = random.randrange(2)
        wanted = random.randint(1, 5)
        paced = await machines[number].pace("p", pace, wanted, f"host-{number}")
        assert paced is not None
        assert paced.taken <= wanted
        taken += paced.taken
        if paced.taken < wanted:
            assert 0 < paced.wait_s <= pace.interval_s
            await asyncio.sleep(paced.wait_s)
    elapsed_s = time.monotonic() - began
    assert taken <= pace.burst + elapsed_s / pace.interval_s + 1
    assert taken >= 0.9 * elapsed_s / pace.interval_s
    assert paced is not None
    assert paced.hosts == 2


@in_loop
async def test_one_a_minute_is_one(server: RedisServer) -> None:
    cluster = connect(server.url)
    first = await cluster.pace("p", Pace.per_minute(1), 3, "host")
    second = await cluster.pace("p", Pace.per_minute(1), 1, "host")
    other = await cluster.pace("q", Pace.per_minute(1), 1, "host")
    assert first is not None
    assert first.taken == 1
    assert second is not None
    assert second.taken == 0
    assert 58 < second.wait_s <= 60
    assert other == Paced(1, other.wait_s if other else 0, 1)


@in_loop
async def test_what_stands_there_and_is_no_state_is_replaced(server: RedisServer) -> None:
    """Foreign types, text, and a time that lies ahead because a clock was set back."""
    cluster, pace = connect(server.url), Pace.per_minute(60)
    key = "tallygate:pace:{p}"
    for command in (("LPUSH", key, "x"), ("SET", key, "nonsense"), ("SET", f"{key}:hosts", "x")):
        server.do("FLUSHALL")
        server.do(*command)
        paced = await cluster.pace("p", pace, 1, "host")
        assert paced is not None
        assert paced.taken == 1
    server.do("SET", key, str(4e15))
    paced = await cluster.pace("p", pace, 1, "host")
    assert paced is not None
    assert paced.taken == 0
    assert paced.wait_s <= 2 * pace.burst * pace.interval_s


@in_loop
async def test_nobody_can_tell_while_the_server_is_away(server: RedisServer) -> None:
    """Within the tier's 50 ms, and then at once."""
    cluster, pace = connect(server.url), Pace.per_minute(60)
    assert await cluster.pace("p", pace, 1, "host") is not None
    server.pause()
    began = time.monotonic()
    for _attempt in range(20):
        assert await cluster.pace("p", pace, 1, "host") is None
    assert time.monotonic() - began < 2
    assert cluster.breaker.is_open
    server.resume()


@in_loop
async def test_what_was_taken_without_the_server_is_told_to_it_later(server: RedisServer) -> None:
    """One line of two is down for a while: what went by then is not given out again."""
    pace = Pace.per_minute(1200)
    cut, sound = connect(server.url), connect(server.url)
    first = await sound.pace("p", pace, pace.burst, "sound")
    assert first is not None
    assert first.taken == pace.burst
    cut.breaker.open()
    for _call in range(10):
        assert await cut.pace("p", pace, 1, "cut") is None
    cut.breaker.close()
    told = await cut.pace("p", pace, 1, "cut")
    assert told is not None
    assert told.taken == 0
    assert told.wait_s > 9 * pace.interval_s
