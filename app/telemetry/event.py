"""The one record that logs, metrics, traces, webhooks and the usage ledger are made of."""

from typing import Protocol

from msgspec import Struct
from msgspec.structs import force_setattr

from app.log import logger

MAX_TEXT = 256


class CountEvent(Struct, frozen=True, omit_defaults=True, gc=False):
    """One count, answered or refused. Never content, never a credential."""

    time_s: float
    request_id: str
    status: int
    duration_ms: float
    route: str
    """``messages`` or ``pass_through``."""
    source: str = ""
    """live, cache, coalesced, stale or estimate; empty when there is no number."""
    tier: str = ""
    """Which tier held the count: local, host or cluster."""
    error_type: str = ""
    reason: str = ""
    """Why, in our own words; a provider's text may quote a prompt and is not kept."""
    input_tokens: int = 0
    caller: str = ""
    end_user: str = ""
    alias: str = ""
    """The name in the configuration, a wildcard as it stands there."""
    model: str = ""
    """The name that the client gave."""
    provider: str = ""
    upstream_model: str = ""
    deployment: str = ""
    body_bytes: int = 0
    upstream_ms: float = 0.0
    upstream_calls: int = 0
    budget_wait_ms: float = 0.0
    """How long it waited for the deployment's rpm, whether or not its turn came."""
    client_request_id: str = ""
    user_agent: str = ""
    dropped: tuple[str, ...] = ()


def told_again(
    event: CountEvent, request_id: str, client_request_id: str, duration_ms: float, time_s: float
) -> CountEvent:
    """Copy an event for another request that is the same but for its ids and times."""
    again: CountEvent = event.__copy__()  # type: ignore[attr-defined]  # copy.copy takes thrice as long
    force_setattr(again, "request_id", request_id)
    force_setattr(again, "client_request_id", client_request_id)
    force_setattr(again, "duration_ms", duration_ms)
    force_setattr(again, "time_s", time_s)
    return again


def plain_text(value: str) -> str:
    """Cut a client's text to MAX_TEXT characters that every encoder takes.

    A header that is not ASCII arrives with lone surrogates in it (Sanic 25.12.1).
    """
    return value[:MAX_TEXT].encode("utf-8", "replace").decode()


class Sink(Protocol):
    """Takes events; never blocks, never awaits, drops and counts when it cannot keep up."""

    def emit(self, event: CountEvent) -> None: ...

    def close(self) -> None: ...


class Telemetry:
    """Hands each event to every sink; a sink that raises costs a log line, never a count."""

    def __init__(self, sinks: tuple[Sink, ...]) -> None:
        self._sinks = sinks
        self._failed: set[str] = set()

    def emit(self, event: CountEvent) -> None:
        """Tell every sink."""
        for sink in self._sinks:
            try:
                sink.emit(event)
            except Exception as error:  # noqa: BLE001 -- telemetry never fails a count
                self._report(sink, error)

    def close(self) -> None:
        """Let every sink write what it still holds."""
        for sink in self._sinks:
            sink.close()

    def _report(self, sink: Sink, error: Exception) -> None:
        name = type(sink).__name__
        if name not in self._failed:
            self._failed.add(name)
            logger.error("telemetry: %s fails with %s", name, type(error).__name__)
