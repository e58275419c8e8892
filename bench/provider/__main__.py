"""``python -m bench.provider``: the simulated provider as a process of its own."""

import argparse
import asyncio
import signal

import uvloop

from bench.provider.server import serve
from bench.provider.simulation import Simulation


async def _main(host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(
        Simulation(),
        host,
        port,
        stop=stop,
        listening=lambda url: print(f"listening on {url}", flush=True),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.provider", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(options.host, options.port))
