"""JSON lines in files that are put aside: by the server when they are full, or by logrotate."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from bench.provider import SimulatedProvider
from tests.e2e.exchange import BEARER, COUNT, MODEL, anthropic, model_list, question
from tests.e2e.receiver import until
from tests.server import Tallygate

Start = Callable[..., Tallygate]
MAX_BYTES = 65_536
LINE_BYTES = 4096
"""No line of these tests is longer."""


def config(provider: SimulatedProvider, path: Path, **more: Any) -> dict[str, Any]:
    return {
        "model_list": model_list(**{MODEL: anthropic("claude-up", provider.url)}),
        "telemetry": {"hit_records_per_s": 1_000_000, "jsonl": {"path": str(path), **more}},
    }


def ask_all(server: Tallygate, threads: int, each: int) -> set[str]:
    """Ask over several connections, so that every worker has some; return the ids of all."""
    ids: set[str] = set()
    body = question()

    def ask() -> None:
        with httpx.Client(base_url=server.url, headers=BEARER, timeout=30) as client:
            mine = [client.post(COUNT, json=body).headers["request-id"] for _ in range(each)]
        ids.update(mine)

    asking = [threading.Thread(target=ask) for _ in range(threads)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert len(ids) == threads * each
    return ids


def files(path: Path) -> list[Path]:
    found = path.parent.glob(f"{path.name}*")
    return [one for one in found if not one.name.endswith(".lock")]


def told(paths: list[Path]) -> list[str]:
    """The ids of all lines; each has to be whole."""
    lines = [line for path in paths for line in path.read_text().splitlines()]
    return [json.loads(line)["request_id"] for line in lines]


def test_rotation_under_load_loses_no_line(
    start: Start, provider: SimulatedProvider, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    server = start(config(provider, path, max_bytes=MAX_BYTES, keep=500), workers=2)
    ids = ask_all(server, 6, 400)
    server.stop()
    assert sorted(told(files(path))) == sorted(ids)
    assert len(files(path)) > 10
    sizes = {one.name: one.stat().st_size for one in files(path)}
    assert max(sizes.values()) <= MAX_BYTES
    full = [size for name, size in sizes.items() if name != path.name]
    assert min(full) > MAX_BYTES - LINE_BYTES
    assert {one.name for one in files(path)} == {
        path.name,
        *(f"{path.name}.{number}" for number in range(1, len(sizes))),
    }


def test_no_more_are_kept_than_is_said_and_those_are_the_last(
    start: Start, provider: SimulatedProvider, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    server = start(config(provider, path, max_bytes=MAX_BYTES, keep=2), workers=2)
    ask_all(server, 4, 300)
    last = server.count(question()).headers["request-id"]
    server.stop()
    assert sorted(one.name for one in files(path)) == [
        path.name,
        f"{path.name}.1",
        f"{path.name}.2",
    ]
    assert last in told([path])
    times = [
        [json.loads(line)["time_s"] for line in one.read_text().splitlines()]
        for one in (path.with_name(f"{path.name}.2"), path.with_name(f"{path.name}.1"))
    ]
    assert min(times[0]) < min(times[1])


def test_what_logrotate_moves_away_is_opened_anew(
    start: Start, provider: SimulatedProvider, tmp_path: Path
) -> None:
    """No signal is needed for it, and no line is lost."""
    path = tmp_path / "events.jsonl"
    server = start(config(provider, path), workers=2)
    ids: set[str] = set()
    for turn in range(5):
        loading: list[set[str]] = []
        load = threading.Thread(target=lambda into=loading: into.append(ask_all(server, 4, 60)))
        load.start()
        until(lambda: path.exists() and path.stat().st_size > 0)
        path.rename(f"{path}-{turn}")
        load.join()
        ids |= loading[0]
    ids.add(server.count(question()).headers["request-id"])
    server.stop()
    assert path.exists()
    assert sorted(told(files(path))) == sorted(ids)
