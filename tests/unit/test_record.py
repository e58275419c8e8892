"""What lines, webhooks and callbacks say of an event."""

from typing import Any

from app.telemetry.event import Call, CountEvent
from app.telemetry.record import record_of

REQUIRED: dict[str, Any] = {
    "time_s": 1.5,
    "request_id": "req_1",
    "status": 200,
    "duration_ms": 0.25,
    "route": "messages",
}


def test_nothing_that_is_empty_is_said() -> None:
    """Neither a default nor what has been reckoned to nothing."""
    call = Call("d", "anthropic", "m", 0.1, 0.1, 200)
    event = CountEvent(
        **REQUIRED, upstream_ms=0.5 - 0.5, budget_wait_ms=float("0"), input_tokens=0, calls=(call,)
    )
    assert record_of(event, None) == {"event": "count", **REQUIRED}


def test_what_there_is_is_said() -> None:
    event = CountEvent(**REQUIRED, source="cache", one_of=40, dropped=("a",), end_user="ada")
    said = record_of(event, None)
    assert said.items() >= {"source": "cache", "one_of": 40, "end_user": "ada"}.items()
    assert list(said["dropped"]) == ["a"]
    assert record_of(event, b"key")["end_user"] not in {"", "ada"}
