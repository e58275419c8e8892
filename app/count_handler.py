"""One request to count, from its headers and bytes to its answer and the event that tells of it."""

import asyncio
import time
from collections.abc import Iterator, Mapping

from sanic.request import Request
from sanic.response import HTTPResponse

from adapters.base import Secret
from app import answers
from app.auth import Caller, upstream_credential
from app.errors import ProxyError, from_framework
from app.ids import new_request_id
from app.keys import Answer
from app.leader import Journey
from app.log import warn_operator
from app.origin import from_this_machine
from app.question import Question, all_of, decode, decode_native
from app.repeats import Repeat
from app.replies import JSON
from app.routing import Route
from app.telemetry import plain_text, trace_of
from app.telemetry.end_user import end_user_of_headers
from app.telling import Asker, tell
from app.workers import Worker


class CountHandler:
    """One request to count: its answer, and the one event that tells of it."""

    def __init__(self, request: Request, route: str) -> None:
        self._started = time.monotonic()
        self._request = request
        self._worker: Worker = request.app.ctx.worker
        self._native = route == "pass_through"
        self._route_name = route
        self._request_id = new_request_id()
        self._caller: Caller | None = None
        self._own: Secret | None = None
        self._model = ""
        self._end_user = ""
        self._route: Route | None = None
        self._journey = Journey()

    async def respond(self) -> HTTPResponse:
        """Answer, or refuse in Anthropic's shape; tell telemetry once, whatever happens."""
        try:
            answer = await self._count()
        except asyncio.CancelledError:
            self._tell(None)
            raise
        except Exception as error:  # noqa: BLE001 -- the last stop before the framework
            # Else it and this frame hold each other, and the body, until cycles are collected.
            refusal = from_framework(error).with_traceback(None)
            self._tell(refusal)
            return self._refuse(refusal)
        self._tell(answer)
        return self._answer(answer)

    async def _count(self) -> Answer:
        request, worker = self._request, self._worker
        self._caller = caller = worker.authenticator.caller(request.headers)
        self._own = upstream_credential(request.headers, has_keys=bool(worker.settings.keys))
        query = request.query_string if self._native else None
        digest = None
        if self._own is None:
            digest = worker.repeats.digest(request.headers, request.body, query, caller)
        if digest is not None and (found := worker.repeats.find(digest, caller)):
            repeat, record = found
            return self._repeat(repeat, repeat.answer(record))
        question = self._read()
        self._model, self._end_user = question.model, question.end_user
        self._route = route = worker.counter.route(question, caller)
        self._journey.trace = worker.tracing.of(self._request_id, *self._trace())
        answer = await worker.counter.count(question, caller, route, self._journey)
        if digest is not None:
            worker.repeats.learn(digest, question, route, answer)
        self._watch(answer)
        return answer

    def _trace(self) -> tuple[str, str]:
        """Read the caller's ``traceparent`` and ``tracestate``."""
        headers = self._request.headers
        return trace_of(headers.get("traceparent", "")), ",".join(all_of(headers, "tracestate"))

    def _repeat(self, repeat: Repeat, answer: Answer) -> Answer:
        """Answer bytes that were read before. No await, no decode."""
        headers = self._request.headers
        named = end_user_of_headers(headers, self._worker.settings.end_user_headers)
        self._model, self._end_user = repeat.model, named or repeat.body_end_user
        self._route = repeat.route
        self._watch(answer)
        return answer

    def _watch(self, answer: Answer) -> None:
        sentinel, caller = self._worker.sentinel, self._caller
        if caller is not None and sentinel.wants(answer, time.monotonic()):
            sentinel.recount(self._read, caller, answer)

    def _read(self) -> Question:
        """Decode the request. Raises ProxyError."""
        headers: Mapping[str, str] = self._request.headers
        settings = self._worker.settings
        if not self._native:
            return decode(headers, self._request.body, settings.end_user_headers, self._own)
        return decode_native(
            headers,
            self._request.body,
            self._request.query_string,
            settings.end_user_headers,
            self._own if settings.pass_through.caller_key else None,
        )

    def _answer(self, answer: Answer) -> HTTPResponse:
        ids = [(b"request-id", self._request_id.encode())]
        if echo := self._client_request_id():
            ids.append((b"x-request-id", echo.encode()))
        return CountResponse((*ids, *answers.pairs(answer)), answers.body(answer))

    def _refuse(self, error: ProxyError) -> HTTPResponse:
        if error.operator_detail:
            warn_operator(error.operator_detail)
        headers = {"request-id": self._request_id, **error.headers}
        if echo := self._client_request_id():
            headers["x-request-id"] = echo
        is_near = from_this_machine(self._request.ip, self._request.headers)
        body = error.body(self._request_id, on_loopback=is_near)
        return HTTPResponse(body, status=error.status, headers=headers, content_type=JSON)

    def _client_request_id(self) -> str:
        return answers.echoed(self._request.headers.get("x-request-id", ""))

    def _tell(self, outcome: Answer | ProxyError | None) -> None:
        request = self._request
        asker = Asker(
            request_id=self._request_id,
            route=self._route_name,
            body_bytes=len(request.body),
            client_request_id=self._client_request_id(),
            user_agent=plain_text(request.headers.get("user-agent", "")),
            traceparent=trace_of(request.headers.get("traceparent", "")),
            caller=self._caller.name if self._caller else "",
            end_user=self._end_user,
            alias=self._route.alias if self._route else "",
            model=self._model,
        )
        tell(self._worker.telemetry, asker, self._journey, self._started, outcome)


class CountResponse(HTTPResponse):
    """An answer whose headers are bytes already; Sanic adds how long it is, and what comes after.

    Sanic's own way of encoding headers takes as long as all the rest of a hit (25.12.1).
    """

    __slots__ = ("pairs",)

    def __init__(self, pairs: answers.Pairs, body: bytes) -> None:
        super().__init__(content_type=JSON)
        self.body = body
        self.pairs = pairs

    @property
    def processed_headers(self) -> Iterator[tuple[bytes, bytes]]:
        """Give every header, in the order of ``answers.hit``."""
        framing = self.headers
        yield from self.pairs
        yield b"content-length", b"%d" % framing["content-length"]
        yield b"connection", framing["connection"].encode()
        yield b"content-type", JSON.encode()
