"""Sink: an operator's own Python object, with the methods of LiteLLM's ``CustomLogger``.

    async_log_success_event(kwargs, response_obj, start_time, end_time)
    async_log_failure_event(kwargs, response_obj, start_time, end_time)

and ``log_success_event``, ``log_failure_event`` where an object has none of the asynchronous ones.
Names and meaning: https://docs.litellm.ai/docs/observability/custom_callback (2026-11).
"""

import asyncio
import inspect
import itertools
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from app.log import warn_operator
from app.telemetry.event import CountEvent
from app.telemetry.outbox import AT_ONCE, PAUSE_S, Outbox
from app.telemetry.record import record_of

MAX_WAITING = 2_000
POLL_S = 0.1
CALL_S = 10.0
"""How long one asynchronous call may take; what blocks its thread nobody can end."""
METHODS = {
    "success": ("async_log_success_event", "log_success_event"),
    "failure": ("async_log_failure_event", "log_failure_event"),
}
CALL_TYPE = "acount_tokens"
OK = 200
_THEIR_BASE = "litellm.integrations.custom_logger"
"""Its methods are there in every object that inherits them, and do nothing."""

Method = Callable[[dict[str, Any], Any, datetime, datetime], Any]
_numbers = threading.Lock()
"""Several threads, and the loop, add to the same numbers."""


def method_of(target: object, outcome: str) -> Method | None:
    """Find what is to be called: LiteLLM calls the asynchronous one for what is asynchronous."""
    for name in METHODS[outcome]:
        method = getattr(target, name, None)
        if callable(method) and getattr(method, "__module__", "") != _THEIR_BASE:
            found: Method = method
            return found
    return None


class CallbackSink(Outbox):
    """Calls one object, event after event, in a thread with an event loop of its own.

    What it raises costs a line in the log and that event; what it holds up costs the events that
    find no room meanwhile. Neither costs a count.
    """

    max_waiting = MAX_WAITING

    def __init__(
        self,
        name: str,
        target: object,
        note: Callable[[str, int], None],
        pseudonym_key: bytes | None,
    ) -> None:
        """``note`` hears of so many events ``sent`` or ``dropped``."""
        super().__init__(f"callback {name}")
        self._name = name
        self._note_number = note
        self._pseudonym_key = pseudonym_key
        self._methods = {outcome: method_of(target, outcome) for outcome in METHODS}
        self._thread.start()

    def emit(self, event: CountEvent) -> None:
        """Keep the event for the thread if there is a method for it, or drop and count it."""
        if self._methods[_outcome(event)] is None:
            return
        dropped = self._dropped
        super().emit(event)
        if self._dropped != dropped:
            self._note("dropped", 1)
            warn_operator(f"telemetry.callbacks: {self._name} does not keep up: events are dropped")

    def wait(self, timeout_s: float) -> None:
        """Wait until it has been told of what is left; what it hangs on is dropped."""
        super().wait(timeout_s)
        if self._thread.is_alive():
            self._note("dropped", len(self._waiting) + 1)

    def _note(self, result: str, events: int) -> None:
        with _numbers:
            self._note_number(result, events)

    def _work(self) -> None:
        # One loop for all calls: what an object opens in it stays open, as in LiteLLM's.
        with asyncio.Runner() as runner:
            runner.run(self._call_all())

    async def _call_all(self) -> None:
        while not self._stop.is_set():
            await self._call_waiting()
            await asyncio.sleep(POLL_S)
        await self._call_waiting()

    async def _call_waiting(self) -> None:
        for number in itertools.count(1):
            if not self._waiting:
                break
            if not number % AT_ONCE:
                await asyncio.sleep(PAUSE_S)
            (event,) = self._take(1)
            try:
                await self._call(event)
            except BaseException as error:  # noqa: BLE001 -- the operator's own may do anything
                self._note("dropped", 1)
                warn_operator(f"telemetry.callbacks: {self._name}: {type(error).__name__}")
            else:
                self._note("sent", 1)

    async def _call(self, event: CountEvent) -> None:
        method = self._methods[_outcome(event)]
        if method is None:
            return
        ends = _local(event.time_s)
        begins = ends - timedelta(milliseconds=event.duration_ms)
        kwargs = kwargs_of(event, self._pseudonym_key)
        came = method(kwargs, kwargs["standard_logging_object"]["response"], begins, ends)
        if inspect.isawaitable(came):
            waited: Awaitable[Any] = came
            async with asyncio.timeout(CALL_S):
                await waited


def _outcome(event: CountEvent) -> str:
    return "success" if event.status == OK else "failure"


def _local(time_s: float) -> datetime:
    """Give a time as LiteLLM does: local, and without saying so."""
    return datetime.fromtimestamp(time_s, UTC).astimezone().replace(tzinfo=None)


class CountError(Exception):
    """What ``kwargs["exception"]`` is of a refusal: its status, its type and our own words."""

    def __init__(self, event: CountEvent) -> None:
        super().__init__(event.reason or event.error_type)
        self.status_code = event.status
        self.type = event.error_type


def kwargs_of(event: CountEvent, pseudonym_key: bytes | None) -> dict[str, Any]:
    """Say what a callback of LiteLLM's expects to be told, and the whole event besides.

    Never content: ``messages`` is always None. Nothing was used, so that tokens and cost are zero;
    the count is the response's ``input_tokens``.
    """
    record = record_of(event, pseudonym_key)
    end_user = record.get("end_user", "")
    is_ok = event.status == OK
    metadata = {
        "user_api_key_alias": event.caller,
        "user_api_key_end_user_id": end_user,
        "model_group": event.alias,
        "deployment": event.deployment,
        "tallygate": record,
    }
    told = {
        "id": event.request_id,
        "call_type": CALL_TYPE,
        "status": "success" if is_ok else "failure",
        "custom_llm_provider": event.provider,
        "model": event.upstream_model,
        "model_group": event.alias,
        "model_id": event.deployment,
        "startTime": event.time_s - event.duration_ms / 1000,
        "endTime": event.time_s,
        "response_time": event.duration_ms / 1000,
        "cache_hit": event.source == "cache",
        "end_user": end_user,
        "user_agent": event.user_agent,
        "metadata": metadata,
        "messages": None,
        "response": {"input_tokens": event.input_tokens} if is_ok else None,
        "error_str": None if is_ok else event.reason or event.error_type,
        "error_information": {"error_code": str(event.status), "error_class": event.error_type},
        "response_cost": 0.0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
    }
    kwargs: dict[str, Any] = {
        "litellm_call_id": event.request_id,
        "call_type": CALL_TYPE,
        "model": event.model,
        "custom_llm_provider": event.provider,
        "user": end_user,
        "messages": None,
        "litellm_params": {"metadata": metadata},
        "cache_hit": event.source == "cache",
        "response_cost": 0.0,
        "standard_logging_object": told,
    }
    return kwargs if is_ok else {**kwargs, "exception": CountError(event)}
