"""One worker of the proxy as ``app.factory`` wires it, without a socket and without a provider."""

import asyncio
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec
import uvloop
from msgspec import Struct
from sanic.compat import Header

from app.auth import Caller
from app.factory import create_app
from app.hitlane import LaneProtocol
from app.keys import Answer, Keys
from app.lane import HitLane
from app.question import Question, decode
from app.workers import Worker
from bench.configuration import UPSTREAM_MODEL, config
from bench.questions import Message
from bench.scenarios import SCENARIOS, Server
from bench.slice import Address
from bench.traffic import message
from cache.tiers import Record, Wanted

TOKENS = 173
HOST_S = 5.0
KEY, MODEL = "sk-bench-0123456789abcdef", "bench-model"
AT = Address("127.0.0.1", 4000)
NOBODY = "http://127.0.0.1:9"
"""The provider: it is never asked."""


class Silent:
    """A transport that sends nothing, and keeps what was written last."""

    def __init__(self) -> None:
        self.written: Any = b""
        self._is_closed = False

    def write(self, data: Any) -> None:
        self.written = data

    def is_closing(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        self._is_closed = True

    abort = close

    def __getattr__(self, _name: str) -> Any:
        """Whatever else there is to a transport does nothing here."""
        return lambda *_, **__: 0


class Asked(Struct, frozen=True):
    """A question that the worker remembers, and what its parts make of it."""

    raw: bytes
    """The head, without its closing empty line."""
    body: bytes
    begun: Any
    """What the lane has understood of its head."""
    headers: Header
    caller: Caller
    digest: bytes
    question: Question
    answer: Answer

    @property
    def request(self) -> bytes:
        """What the client sends."""
        return self.raw + b"\r\n\r\n" + self.body


class House:
    """The worker's parts; to be closed, or used as a context."""

    def __init__(self, scratch: Path) -> None:
        """Open them; the host file and the log of counts are in ``scratch``."""
        file = scratch / "config.yaml"
        said = config(
            Server.PROXY, provider=NOBODY, key=KEY, model=MODEL, callers=(f"{KEY}-00",), subject=""
        )
        said["telemetry"] = {"jsonl": {"path": str(scratch / "counts.jsonl")}}
        file.write_bytes(msgspec.json.encode(said))
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._runner.run(self._open(str(file)))

    async def _open(self, config: str) -> None:
        self._app = create_app(config)
        self._app.signalize(allow_fail_builtin=False)  # nobody waits for the framework's signals
        self._app.finalize()
        self.settings = self._app.ctx.settings
        self.worker = self._app.ctx.worker = Worker(self.settings, None)
        self.lane = self._app.ctx.lane = HitLane(self.worker)
        self._app.ctx.max_connections = self._app.ctx.spare_connections = 1
        await self.worker.open()
        secret, generations = self.settings.secret("cache-key"), self.worker.tiers.generations
        self.keys = Keys(secret, self.settings.cache, generations)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self.worker.close())
        self._runner.close()

    def connect(self) -> tuple[LaneProtocol, Silent]:
        """Open a connection that waits for its first request."""
        transport = Silent()

        async def begin() -> LaneProtocol:
            protocol = LaneProtocol(loop=asyncio.get_running_loop(), app=self._app)
            protocol.connection_made(transport)
            await asyncio.sleep(0)
            return protocol

        return self._runner.run(begin()), transport

    def remember(self, scenario: str) -> Asked:
        """Let the worker know the answer to what a scenario asks, as if a provider had said it."""
        asked = self.message(scenario)
        raw = asked.head.removesuffix(b"\r\n\r\n")
        worker = self.worker
        fields = (line.split(": ", 1) for line in raw.decode().split("\r\n")[1:])
        headers = Header((name, value) for name, value in fields)
        caller = worker.authenticator.caller(headers)
        question = decode(headers, asked.body)
        route = worker.counter.route(question, caller)
        place = self.keys.place(question, caller, route.pools[0].first)
        now_ns = time.time_ns()
        record = Record(TOKENS, now_ns // 10**9, b"", b"", now_ns, UPSTREAM_MODEL, place.generation)
        worker.tiers.store(place.key, record, None)
        answer = worker.counter.known(question, caller, route)
        digest = worker.repeats.digest(headers, asked.body, None, caller)
        begun = self.lane.understand(raw)
        if not isinstance(answer, Answer) or digest is None or begun is None:
            raise AssertionError("the worker does not remember what it was told")
        worker.repeats.learn(digest, question, route, answer)
        return Asked(raw, asked.body, begun, headers, caller, digest, question, answer)

    def wait_for_host(self, wanted: Wanted) -> None:
        """Wait until the host file has what was remembered. Raises TimeoutError."""
        until_s = time.monotonic() + HOST_S
        while self.worker.tiers.look(wanted) is None:
            if time.monotonic() > until_s:
                raise TimeoutError("the host file does not take a record")
            time.sleep(0.001)

    def message(self, scenario: str) -> Message:
        """The very bytes of a scenario that asks one question."""
        asked = message(SCENARIOS[scenario], AT, KEY, MODEL, lambda _body: TOKENS)
        return cast("Message", asked)
