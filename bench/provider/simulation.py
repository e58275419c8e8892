"""What the simulated provider remembers and decides; knows neither sockets nor threads."""

from collections import Counter, deque
from typing import Any

import msgspec

from bench.provider.anthropic import AnthropicWire
from bench.provider.bedrock import BedrockMantleWire, BedrockWire
from bench.provider.behaviour import Behaviour
from bench.provider.exchange import Delivery, Reply, Request, Wire
from bench.provider.google import GoogleWire
from bench.provider.vertex_claude import VertexClaudeWire

KEPT_REQUESTS = 10_000
KEPT_BODY_BYTES = 256 * 2**20


class Unclaimed:
    """The wire of requests that no provider serves."""

    def claims(self, request: Request) -> bool:  # noqa: ARG002
        return True

    def model(self, request: Request) -> str | None:  # noqa: ARG002
        return None

    def answer(self, request: Request) -> Reply:
        message = f"no simulated provider serves {request.method} {request.path}"
        return Reply(404, msgspec.json.encode({"error": message}))

    def error(self, status: int) -> Reply:
        return Reply(status, msgspec.json.encode({"error": f"simulated status {status}"}))


# The first that claims a request serves it.
WIRES: tuple[type[Wire], ...] = (
    BedrockWire,
    BedrockMantleWire,  # before Anthropic's, whose path ends like its own
    VertexClaudeWire,
    GoogleWire,
    AnthropicWire,
    Unclaimed,
)


class Simulation:
    """The record of requests, the queue of behaviours, and the answer to each request.

    The newest 10,000 requests are kept, fewer when their bodies exceed 256 MB together; ``calls``
    counts them all. Of the queued behaviours, the first that matches a request applies to it.
    """

    def __init__(self) -> None:
        self._wires = [wire() for wire in WIRES]
        self.clear()

    def clear(self) -> None:
        """Forget requests, numbers and behaviours: back to normal."""
        self.requests: deque[Request] = deque()
        self.behaviours: list[Behaviour] = []
        self.calls = 0
        self._kept_bytes = 0
        self._replies: Counter[int] = Counter()

    def behave(self, behaviour: Behaviour) -> None:
        self.behaviours.append(behaviour)

    def stats(self) -> dict[str, Any]:
        """The numbers since the last ``clear``; ``replies`` leaves out raw, hang and reset."""
        return {
            "calls": self.calls,
            "replies": {str(status): number for status, number in sorted(self._replies.items())},
            "behaviours": msgspec.to_builtins(self.behaviours),
        }

    def answer(self, request: Request) -> Delivery:
        """Record the request and decide what goes back."""
        self._record(request)
        wire = next(wire for wire in self._wires if wire.claims(request))
        behaviour = self._next_behaviour(request, wire) if self.behaviours else None
        if behaviour is None:
            return self._delivery(wire.answer(request), request)
        return self._departure(behaviour, request, wire)

    def _record(self, request: Request) -> None:
        self.calls += 1
        self.requests.append(request)
        self._kept_bytes += len(request.body)
        while len(self.requests) > KEPT_REQUESTS or self._kept_bytes > KEPT_BODY_BYTES:
            self._kept_bytes -= len(self.requests.popleft().body)

    def _next_behaviour(self, request: Request, wire: Wire) -> Behaviour | None:
        for behaviour in self.behaviours:
            if behaviour.model is None or behaviour.model == wire.model(request):
                if behaviour.times is not None:
                    behaviour.times -= 1
                    if not behaviour.times:
                        self.behaviours.remove(behaviour)
                return behaviour
        return None

    def _departure(self, behaviour: Behaviour, request: Request, wire: Wire) -> Delivery:
        if behaviour.hang or behaviour.reset:
            delivery = Delivery(b"", hang=behaviour.hang, reset=behaviour.reset)
        elif behaviour.raw is not None:
            delivery = Delivery(behaviour.raw.encode("latin-1"), close=True)
        else:
            delivery = self._delivery(_altered(behaviour, request, wire), request)
        if behaviour.truncate_bytes is not None:
            data = delivery.data[: behaviour.truncate_bytes]
            delivery = msgspec.structs.replace(delivery, data=data, close=True)
        return msgspec.structs.replace(delivery, delay_s=behaviour.delay_s, drip_s=behaviour.drip_s)

    def _delivery(self, reply: Reply, request: Request) -> Delivery:
        self._replies[reply.status] += 1
        close = not request.keep_alive
        return Delivery(reply.rendered(keep_alive=not close), close=close)


def _altered(behaviour: Behaviour, request: Request, wire: Wire) -> Reply:
    if behaviour.body is not None:
        reply = Reply(behaviour.status or 200, _body_bytes(behaviour.body))
    elif behaviour.status is not None:
        reply = wire.error(behaviour.status)
    else:
        reply = wire.answer(request)
    if not behaviour.headers:
        return reply
    headers = dict(reply.headers) | {name.lower(): v for name, v in behaviour.headers.items()}
    kept = tuple((name, value) for name, value in headers.items() if value is not None)
    return msgspec.structs.replace(reply, headers=kept)


def _body_bytes(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else msgspec.json.encode(body)
