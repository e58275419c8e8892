"""A proxy between a client and a server that delays, cuts or swallows what the server says."""

import asyncio
import contextlib

from tests.faults.listener import Listener, reset


class FaultProxy(Listener):
    """Faults are set while it runs, and hold for what passes from then on."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._upstream = port
        self.delay_s = 0.0
        """How long each piece of a reply is held back."""
        self.cut_after: int | None = None
        """Reset the connection after so many bytes of a reply."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._upstream)
        there = asyncio.create_task(self._forward(reader, upstream))
        back = asyncio.create_task(self._back(upstream_reader, writer))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in (there, back):
                part.cancel()
            await asyncio.wait({there, back})
            upstream.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await asyncio.sleep(self.delay_s)
                if self.cut_after is not None:
                    writer.write(data[: self.cut_after])
                    await asyncio.sleep(0.005)
                    reset(writer)
                    return
                writer.write(data)
