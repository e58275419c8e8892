"""The load generator: prepared requests over keep-alive connections, in a closed or an open loop.

Every answer is checked, and a wrong one fails the run. In a closed loop each connection has one
request outstanding: a latency includes the wait behind the other connections' requests, and a slow
server is asked less often, so compare like with like.
"""

import asyncio
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import msgspec
import uvloop
from msgspec import Struct

from bench import machine
from bench.histogram import Histogram
from bench.open_loop import OpenSlice
from bench.slice import Connection, Load, Slice


class Run(Struct):
    """What a slice gave: ``answers`` in all, and the rest of the time after the warm-up."""

    answers: int
    seconds: float
    client_cpu_s: float
    latency: Histogram
    server_cpu_s: float | None = None
    """Processor time of the server's workers for all answers; None if nobody looked."""
    lane_share: float | None = None
    """Of all hits, those that the hit lane has answered; None if nobody can say."""
    answer_bytes: tuple[int, ...] = ()
    """Sizes of the right answers, heads included, as far as they were known beforehand."""
    received_bytes: int = 0
    """Of all answers; 0 where each was looked at."""
    engine: str = "own"
    rss_bytes: tuple[int, ...] | None = None
    """Of each worker at the end; None if nobody looked."""
    ended_s: float = 0

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latency) / self.seconds


async def generate(load: Load) -> Run:
    """Run one slice in this process. Raises WrongAnswerError and OSError."""
    slice_ = OpenSlice(load) if load.rate else Slice(load)
    try:
        await _connect(slice_)
        if isinstance(slice_, OpenSlice):
            slice_.start()
        else:
            for connection in tuple(slice_.open):
                connection.ask()
        if slice_.is_asking:
            await slice_.pass_time(load.warm_s)
        latency, start_s, start_cpu_s = slice_.measure(), time.perf_counter(), time.process_time()
        if slice_.is_asking:
            await slice_.pass_time(load.seconds)
        else:
            await slice_.finish()
        seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        if not load.rate:  # what an open loop has still to ask was due in its time
            slice_.measure()
        await slice_.finish()
        slice_.judge()
    finally:
        while slice_.open:
            slice_.open.pop().abort()
    return Run(slice_.answers, seconds, cpu_s, latency, answer_bytes=slice_.answer_bytes())


async def _connect(slice_: Slice) -> None:
    loop, load = asyncio.get_running_loop(), slice_.load
    machine.allow_descriptors(load.connections)
    at = load.address
    for number in range(load.connections):
        connection = Connection(slice_, number)
        await loop.create_connection(lambda it=connection: it, at.host, at.port, ssl=at.tls or None)


def run(load: Load, processes: int = 1) -> Run:
    """Run one slice, its connections dealt out over ``processes`` that start together."""
    if processes == 1:
        return uvloop.run(generate(load))
    spawn = multiprocessing.get_context("spawn")
    shares = [len(range(i, load.connections, processes)) for i in range(processes)]
    loads = [msgspec.structs.replace(load, connections=share) for share in shares]
    start = spawn.Barrier(processes)
    with ProcessPoolExecutor(processes, spawn, initializer=start.wait) as pool:
        runs = list(pool.map(run, loads))
    latency = Histogram()
    for one in runs:
        latency.merge(one.latency)
    return Run(
        answers=sum(one.answers for one in runs),
        seconds=max(one.seconds for one in runs),
        client_cpu_s=max(one.client_cpu_s for one in runs),
        latency=latency,
    )
