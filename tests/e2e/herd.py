"""Many clients at once over raw sockets, and which worker process asks the provider."""

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tests.e2e.exchange import request


class Herd(Struct):
    """What a crowd of clients was answered."""

    statuses: Counter[int]
    counts: Counter[int]
    sources: Counter[str]
    broken: int = 0
    """Connections that ended without an answer."""


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _ask(client: Client, wire: bytes, herd: Herd) -> None:
    reader, writer = client
    try:
        writer.write(wire)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        fields = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
        body = await reader.readexactly(int(fields["content-length"]))
    except (OSError, asyncio.IncompleteReadError):
        herd.broken += 1
        return
    finally:
        writer.close()
    status = int(head.split()[1])
    herd.statuses[status] += 1
    if status == 200:
        herd.counts[msgspec.json.decode(body)["input_tokens"]] += 1
        herd.sources[fields["x-tallygate-source"]] += 1


async def ask_at_once(ports: list[int], body: dict[str, Any], clients: int) -> Herd:
    """Let ``clients`` connections, spread over the ports, ask the same at the same moment."""
    herd = Herd(Counter(), Counter(), Counter())
    wire = request(msgspec.json.encode(body))
    # One after the other: a worker takes all connections that it finds waiting.
    connections = [
        await asyncio.open_connection("127.0.0.1", ports[number % len(ports)])
        for number in range(clients)
    ]
    async with asyncio.TaskGroup() as group:
        for client in connections:
            group.create_task(_ask(client, wire, herd))
    return herd


def children(pid: int) -> list[int]:
    """List the worker processes below a main process, grandchildren included."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # what ends meanwhile has no children
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *children(child)]
    return found


def connected(pid: int, port: int) -> bool:
    """Say whether a process holds an established connection to a local port."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2].endswith(f":{port:04X}") and fields[3] == "01":
            inodes.add(f"socket:[{fields[9]}]")
    try:
        return any(str(one.readlink()) in inodes for one in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
