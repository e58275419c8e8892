"""``python -m bench.memory``: what the shared tiers give, and what a silent Redis costs.

Starts a simulated provider, a redis-server (from PATH) and the proxy, all on 127.0.0.1:

1. repeats, with Redis answering and stopped (SIGSTOP) in turn: five pairs of p99;
2. cold questions, Redis answering and stopped: what each one pays;
3. a restart: known questions, how fast, and how many of them reach the provider.
"""

import argparse
import os
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from bench.load import run
from bench.play import Always
from bench.questions import Message
from bench.scenarios import COUNT_PATH
from bench.servers import (
    START_S,
    Process,
    ServerFailedError,
    SimulatedProvider,
    free_port,
    simulated_tokens,
)
from bench.slice import Address, Load
from bench.traffic import body

KEY = "sk-bench-0123456789abcdef"
MODEL = "bench-model"
COLD = 40
SPENT = 3
"""Errors after which a silent Redis is not asked any more."""
CONFIG = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: anthropic/claude-bench, api_key: sk-ant-bench, api_base: {provider}}}
general_settings: {{master_key: {key}}}
cache: {{cluster: {{url: "redis://127.0.0.1:{redis}/0"}}}}
telemetry: {{jsonl: {{path: /dev/null}}}}
"""


class Redis:
    """A server of our own, without persistence."""

    def __init__(self, scratch: Path) -> None:
        path = shutil.which("redis-server")
        if path is None:
            raise ServerFailedError("redis-server is not on PATH")
        self.port = free_port()
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        self._process = Process("redis", command=(path, *options, str(scratch)), scratch=scratch)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise ServerFailedError("redis-server does not answer")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let it take connections and answer nothing."""
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        self._process.stop()


class Proxy:
    """The proxy under test; what it remembers is in ``scratch``."""

    def __init__(self, scratch: Path, provider: Address, redis: Redis) -> None:
        config = scratch / "config.yaml"
        text = CONFIG.format(model=MODEL, provider=provider.url, key=KEY, redis=redis.port)
        config.write_text(text)
        self.at = Address("127.0.0.1", free_port())
        self._process = Process(
            "proxy",
            "sanic",
            "app.main",
            "--workers",
            "1",
            "--port",
            str(self.at.port),
            scratch=scratch,
            environ={"TALLYGATE_CONFIG": str(config), "XDG_CACHE_HOME": str(scratch)},
        )
        self._process.first_answer_s(self.at, KEY, MODEL)
        self._http = httpx.Client(base_url=self.at.url, trust_env=False, timeout=START_S)

    def ask(self, asked: bytes) -> tuple[float, str]:
        """Ask once; return the milliseconds it took and where the number came from."""
        headers = {"x-api-key": KEY, "content-type": "application/json"}
        started = time.perf_counter()
        reply = self._http.post(COUNT_PATH, content=asked, headers=headers)
        took_ms = (time.perf_counter() - started) * 1000
        if reply.json() != {"input_tokens": simulated_tokens(asked)}:
            raise ServerFailedError(f"wrong answer: {reply.status_code} {reply.text}")
        return took_ms, reply.headers["x-tallygate-source"]

    def repeats_p99_ms(self, seconds: float) -> float:
        """Ask one known question again and again over 16 connections."""
        asked, _ = body(MODEL, 300)
        head = (
            f"POST {COUNT_PATH} HTTP/1.1\r\nhost: {self.at.host}:{self.at.port}\r\n"
            f"x-api-key: {KEY}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(asked)}\r\n\r\n"
        ).encode()
        load = Load(
            address=self.at,
            message=Message(head, asked),
            tokens=Always(simulated_tokens(asked)),
            connections=16,
            seconds=seconds,
        )
        return run(load).latency.percentile_ns(99) / 1e6

    def stop(self) -> None:
        self._http.close()
        self._process.stop()


def questions(number: int) -> Iterator[bytes]:
    """Questions that nobody has asked before."""
    asked, nonce_at = body(MODEL, 300)
    message = Message(b"", asked, nonce_at)
    nonces = message.nonces()
    for _ in range(number):
        yield message.with_nonce(next(nonces))


def silent_repeats(proxy: Proxy, redis: Redis, pairs: int, seconds: float) -> list[list[str]]:
    """Pair p99 with Redis answering and Redis silent."""
    ratios, differences_ms = [], []
    for _ in range(pairs):
        answering_ms = proxy.repeats_p99_ms(seconds)
        with redis.stopped():
            silent_ms = proxy.repeats_p99_ms(seconds)
        ratios.append(silent_ms / answering_ms)
        differences_ms.append(silent_ms - answering_ms)
        time.sleep(2)  # the probe finds it again
    return [
        ["repeats, p99, Redis silent / answering", f"{statistics.median(ratios):.2f}"],
        ["  the same as a difference", f"{statistics.median(differences_ms):+.2f} ms"],
    ]


def silent_cold(proxy: Proxy, redis: Redis) -> list[list[str]]:
    """Time cold questions one by one, before Redis falls silent and after."""
    answering = statistics.median(proxy.ask(one)[0] for one in questions(COLD))
    with redis.stopped():
        silent = [proxy.ask(one)[0] for one in questions(COLD)]
    first, later = max(silent[:SPENT]), statistics.median(silent[SPENT:])
    return [
        ["cold, Redis answering, median", f"{answering:.2f} ms"],
        [f"cold, Redis silent, the worst of the first {SPENT}", f"{first - answering:+.2f} ms"],
        ["cold, Redis silent, later ones, median", f"{later - answering:+.2f} ms"],
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="for each slice of repeats")
    parser.add_argument("--known", type=int, default=500, help="questions before the restart")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder, ExitStack() as stack:
        scratch = Path(folder)
        try:
            rows = _measure(scratch, stack, options)
        except (ServerFailedError, OSError) as error:
            sys.exit(f"FAILED: {error}")
    table = Table("what", "figure")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _measure(scratch: Path, stack: ExitStack, options: argparse.Namespace) -> list[list[str]]:
    simulated = Process("provider", "bench.provider", "--port", "0", scratch=scratch)
    stack.callback(simulated.stop)
    provider = SimulatedProvider(simulated.announced())
    redis = Redis(scratch)
    stack.callback(redis.stop)
    proxy = Proxy(scratch, simulated.announced(), redis)
    try:
        rows = silent_repeats(proxy, redis, options.pairs, options.seconds)
        rows += silent_cold(proxy, redis)
        known = list(questions(options.known))
        missed_ms = statistics.median(proxy.ask(one)[0] for one in known)
    finally:
        proxy.stop()
    provider.restart(0)
    proxy = Proxy(scratch, simulated.announced(), redis)
    try:
        answers = [proxy.ask(one) for one in known]
    finally:
        proxy.stop()
    found_ms = statistics.median(took_ms for took_ms, _ in answers)
    return [
        *rows,
        [f"{len(known)} known questions after a restart: provider calls", str(provider.calls())],
        ["  time of one, host file / instant provider", f"{found_ms / missed_ms:.2f}"],
    ]


if __name__ == "__main__":
    main()
