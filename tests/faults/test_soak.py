"""Hours in small: repeats, new questions, faults and clients that leave, for SOAK_S seconds.

Two minutes among the other faults; half an hour with `make soak`.
"""

import asyncio
import contextlib
import itertools
import os
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec
import pytest

from bench.provider import SimulatedProvider, count_tokens
from tests.e2e.exchange import BEARER, COUNT, anthropic, model_list, question
from tests.faults.crowd import workers
from tests.server import Tallygate

SOAK_S = float(os.environ.get("SOAK_S", "120"))
CLIENTS, KNOWN, PAUSE_S = 16, 200, 0.02
PHASE_S = 2.0
FAULTS: dict[str, dict[str, Any]] = {
    "limits": {"status": 429, "headers": {"retry-after": "1"}},
    "fails": {"status": 500},
    "resets": {"reset": True},
    "hangs": {"hang": True},
    "text": {"status": 200, "body": {"input_tokens": "7"}},
    "html": {"status": 200, "body": "<html>", "headers": {"content-type": "text/html"}},
}
"""Each has a deployment of its own, so that no fault's breaker hides another's answers."""
CLEAN = {429, 500, 502, 504, 529}
LONG_S = 600
MOST_MIB_PER_MIN = 1.0 if SOAK_S >= LONG_S else 4.0
"""The allocator takes memory in steps of 2 MiB: of a short run one step is a slope of its own."""


class Traffic:
    """What clients ask, and what became of it."""

    def __init__(self, url: str) -> None:
        self.asked: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._url = url
        self._known = [question("steady") for _ in range(KNOWN)]
        self._random = random.Random(7)

    async def flow(self, until_s: float) -> None:
        """Let all clients ask until then. Each answer is judged at once."""
        limits = httpx.Limits(max_connections=2 * CLIENTS)
        async with (
            httpx.AsyncClient(base_url=self._url, headers=BEARER, limits=limits) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(CLIENTS):
                group.create_task(self._ask_on(client, until_s))

    async def _ask_on(self, client: httpx.AsyncClient, until_s: float) -> None:
        while time.monotonic() < until_s:
            await asyncio.sleep(PAUSE_S)
            kind = self._random.choices(
                ("repeat", "new", "faulty", "leaves"), weights=(60, 25, 10, 5)
            )[0]
            model = self._random.choice(tuple(FAULTS)) if kind == "faulty" else "steady"
            body = self._random.choice(self._known) if kind == "repeat" else question(model)
            patience_s = 0.001 if kind == "leaves" else 20.0
            try:
                answer = await client.post(COUNT, json=body, timeout=patience_s)
            except httpx.TransportError as error:
                # Only who leaves by itself may go without an answer.
                self._note(kind, "left" if kind == "leaves" else repr(error))
                continue
            self._judge(kind, body, answer)

    def _judge(self, kind: str, body: dict[str, Any], answer: httpx.Response) -> None:
        if answer.status_code == 200:
            right = answer.json() == {"input_tokens": count_tokens(body)}
            self._note(kind, "right" if right else f"not the count: {answer.text}")
        elif kind == "faulty" and answer.status_code in CLEAN:
            assert answer.json()["type"] == "error"
            self._note(kind, "refused")
        else:
            self._note(kind, f"{answer.status_code}: {answer.text}")

    def _note(self, kind: str, what: str) -> None:
        if what not in {"right", "refused", "left"}:
            self.wrong.append(f"{kind}: {what}")
            what = "wrong"
        self.asked[f"{kind} {what}"] += 1


@contextlib.contextmanager
def _failing(provider: SimulatedProvider, asked: Counter[str]) -> Iterator[None]:
    """Answer each faulty model badly, and every third PHASE_S all of them well."""
    over = threading.Event()

    def change() -> None:
        for well in itertools.cycle((False, False, True)):
            asked.update(_models_asked(provider))
            provider.clear()
            for name, fault in () if well else FAULTS.items():
                provider.behave(**fault, model=f"claude-{name}")
            if over.wait(PHASE_S):
                return

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _models_asked(provider: SimulatedProvider) -> Iterator[str]:
    return (msgspec.json.decode(request.body)["model"] for request in provider.requests)


class Watch:
    """Memory in MiB and descriptors of each worker, a sample a second."""

    def __init__(self, server: Tallygate) -> None:
        self.workers = workers(server.pid)
        self.pids = tuple(self.workers.values())
        self.memory: dict[int, list[tuple[float, float]]] = {pid: [] for pid in self.pids}
        self.files: dict[int, list[int]] = {pid: [] for pid in self.pids}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(1):
            for pid in self.pids:
                status = Path(f"/proc/{pid}/status").read_text()
                kib = next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)
                self.memory[pid].append((time.monotonic(), kib / 1024))
                self.files[pid].append(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def slope(self, pid: int) -> float:
        """Fit the second half: MiB a minute."""
        samples = self.memory[pid][len(self.memory[pid]) // 2 :]
        fit = statistics.linear_regression(*zip(*samples, strict=True))
        return fit.slope * 60


@pytest.mark.timeout(SOAK_S + 120)
def test_soak(start: Callable[..., Tallygate], provider: SimulatedProvider) -> None:
    """C8: nothing grows, nothing is lost, no count is wrong."""
    base = provider.url
    server = start(
        {
            "model_list": model_list(
                steady=anthropic("claude-steady", base),
                **{name: anthropic(f"claude-{name}", base, timeout=1) for name in FAULTS},
            ),
            # Full well before the second half.
            "cache": {"local": {"max_entries": 500}, "stale_if_error_s": 0},
        },
        workers=2,
    )
    traffic = Traffic(server.url)
    asked: Counter[str] = Counter()
    with Watch(server) as watch, _failing(provider, asked):
        asyncio.run(traffic.flow(time.monotonic() + SOAK_S))
    for what, number in sorted(traffic.asked.items()):
        print(f"{what:16} {number:8}")
    for pid in watch.pids:
        files = watch.files[pid]
        early, late = files[len(files) // 4 : len(files) // 2], files[3 * len(files) // 4 :]
        print(
            f"worker: {watch.memory[pid][-1][1]:.1f} MiB, {watch.slope(pid):+.2f} MiB/min, "
            f"descriptors {max(early)} in the second quarter, {max(late)} in the last"
        )
        assert watch.slope(pid) < MOST_MIB_PER_MIN
        assert max(late) <= max(early) + CLIENTS
    print(f"calls: {dict(asked)}")
    assert all(asked[f"claude-{name}"] for name in FAULTS)
    assert not traffic.wrong, traffic.wrong[:5]
    assert traffic.asked["faulty refused"] > 0
    assert traffic.asked["new right"] > 0
    assert workers(server.pid) == watch.workers
