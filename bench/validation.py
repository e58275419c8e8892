"""The model of a fleet beside a real one: two servers, a simulated provider, Redis or none.

What is asked is drawn by the same law and at a constant rate. Calls to the provider are counted
over whole lifetimes of a count, after one to fill the tiers.
"""

import asyncio
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import uvloop
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.answers import WrongAnswerError
from bench.fleet import Fleet, flow
from bench.load import generate
from bench.memory import Redis
from bench.questions import Mix
from bench.servers import (
    Process,
    ServerFailedError,
    SimulatedProvider,
    free_port,
    simulated_tokens,
)
from bench.slice import Address, Load
from bench.traffic import body, head

KEY = "sk-bench-0123456789abcdef"
MODEL = "bench-model"
HOSTS = 2
CONNECTIONS = 8
_DRAWS = 1 << 16


class Setting(Struct, frozen=True, kw_only=True):
    """What a run looks like."""

    rate: float = 300
    catalogue: int = 2_000
    s: float = 1.0
    ttl_s: int = 10
    lifetimes: int = 4

    def fleet(self, *, is_shared: bool, rate: float) -> Fleet:
        """The same for the model."""
        return Fleet(
            hosts=HOSTS,
            rate=rate,
            catalogue=self.catalogue,
            s=self.s,
            ttl_s=self.ttl_s,
            is_shared=is_shared,
            workers=1,
        )


class Compared(Struct, frozen=True):
    """Calls for each question, as the model has it and as they were counted."""

    model: float
    counted: float
    questions: int

    @property
    def error(self) -> float:
        """Of the model, as a share of what was counted."""
        return self.model / self.counted - 1


def compare(setting: Setting, *, is_shared: bool, scratch: Path) -> Compared:
    """Run two servers. Raises ServerFailedError, WrongAnswerError and OSError."""
    with ExitStack() as stack:
        simulated = Process("provider", "bench.provider", "--port", "0", scratch=scratch)
        stack.callback(simulated.stop)
        provider = SimulatedProvider(simulated.announced())
        stack.callback(provider.close)
        redis = None
        if is_shared:
            redis = Redis(scratch)
            stack.callback(redis.stop)
        servers = []
        for number in range(HOSTS):
            folder = scratch / f"host-{number}"
            folder.mkdir()
            process, at = _server(folder, setting, simulated.announced(), redis)
            stack.callback(process.stop)
            process.first_answer_s(at, KEY, MODEL)
            servers.append(at)
        answers, calls = uvloop.run(_ask(setting, servers, provider))
    expected = flow(setting.fleet(is_shared=is_shared, rate=setting.rate))
    return Compared(expected.upstream_per_s / setting.rate, calls / answers, answers)


async def _ask(
    setting: Setting, servers: list[Address], provider: SimulatedProvider
) -> tuple[int, int]:
    """Ask all servers at once; return answers and calls after the first lifetime."""
    seconds = setting.ttl_s * setting.lifetimes
    before: list[int] = []
    loop = asyncio.get_running_loop()
    loop.call_later(setting.ttl_s, lambda: before.append(provider.calls()))
    async with asyncio.TaskGroup() as group:
        runs = [
            group.create_task(generate(_load(setting, at, number, seconds)))
            for number, at in enumerate(servers)
        ]
    return sum(len(run.result().latency) for run in runs), provider.calls() - before[0]


def _load(setting: Setting, at: Address, number: int, seconds: float) -> Load:
    mix = questions(setting, at, random.Random(number), simulated_tokens)
    return Load(
        address=at,
        message=mix,
        tokens=simulated_tokens,
        connections=CONNECTIONS,
        seconds=seconds,
        warm_s=setting.ttl_s,
        rate=setting.rate / HOSTS,
    )


def questions(
    setting: Setting, at: Address, dice: random.Random, tokens: Callable[[bytes], int]
) -> Mix:
    """What one server is asked, drawn anew with other dice."""
    bodies = tuple(body(MODEL, 300, f"{number:016x}")[0] for number in range(setting.catalogue))
    ranks = range(setting.catalogue)
    drawn = dice.choices(ranks, [(rank + 1) ** -setting.s for rank in ranks], k=_DRAWS)
    return Mix(
        heads=(head(at, KEY),),
        bodies=bodies,
        tokens=tuple(map(tokens, bodies)),
        order=tuple((0, one) for one in drawn),
    )


def _server(
    folder: Path, setting: Setting, provider: Address, redis: Redis | None
) -> tuple[Process, Address]:
    """A host of its own, with a file of its own."""
    upstream = {"model": "anthropic/claude-bench", "api_key": "sk-ant", "api_base": provider.url}
    cluster = {"cluster": {"url": f"redis://127.0.0.1:{redis.port}/0"}} if redis else {}
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": upstream}],
        "general_settings": {"master_key": KEY},
        "cache": {"ttl_s": setting.ttl_s, "sentinel": {"per_minute": 0}, **cluster},
        "telemetry": {"jsonl": {"path": "/dev/null"}},
    }
    (folder / "config.yaml").write_bytes(msgspec.json.encode(config))
    port = free_port()
    process = Process(
        "proxy",
        *("sanic", "app.main", "--workers", "1", "--port", str(port)),
        scratch=folder,
        environ={"TALLYGATE_CONFIG": str(folder / "config.yaml"), "XDG_CACHE_HOME": str(folder)},
    )
    return process, Address("127.0.0.1", port)


def main() -> None:
    """Print the model beside what was counted; exit with 1 where that failed."""
    table = Table("", "questions", "calls per question", "the model", "error of the model")
    for is_shared in (False, True):
        with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as scratch:
            try:
                found = compare(Setting(), is_shared=is_shared, scratch=Path(scratch))
            except (ServerFailedError, WrongAnswerError, OSError) as error:
                sys.exit(f"FAILED: {error}")
        table.add_row(
            "Redis" if is_shared else "no Redis",
            f"{found.questions:,}",
            f"{found.counted:.4f}",
            f"{found.model:.4f}",
            f"{found.error:+.1%}",
        )
    Console().print(table)
