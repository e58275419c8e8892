"""A server that speaks RESP and says what it is told: states a real one cannot be put into."""

import asyncio
from collections.abc import Callable

from tests.faults.listener import Listener

Command = list[bytes]


class RespStub(Listener):
    """Answers every command with ``reply(command)``, raw bytes; b"" is silence."""

    def __init__(self, reply: Callable[[Command], bytes]) -> None:
        super().__init__()
        self.reply = reply
        self.commands: list[Command] = []

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while command := await _read(reader):
            self.commands.append(command)
            writer.write(self.reply(command))


async def _read(reader: asyncio.StreamReader) -> Command:
    head = await reader.readline()
    parts = []
    for _ in range(int(head[1:] or 0)):
        size = int((await reader.readline())[1:])
        parts.append((await reader.readexactly(size + 2))[:-2])
    return parts
