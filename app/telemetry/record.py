"""An event as a JSON object: what lines, webhooks and their like are made of."""

import hashlib
import hmac
from typing import Any

import msgspec

from app.telemetry.event import CountEvent


def record_of(event: CountEvent, pseudonym_key: bytes | None) -> dict[str, Any]:
    """List what the event says: no empty fields, and the end user hashed where there is a key."""
    said = msgspec.to_builtins(event)  # without what is a field's default: a reckoned 0.0 is none
    said.pop("calls", None)
    record = {"event": "count", **{name: value for name, value in said.items() if value}}
    if pseudonym_key and event.end_user:
        record["end_user"] = pseudonym(pseudonym_key, event.end_user)
    return record


def pseudonym(key: bytes, end_user: str) -> str:
    """Replace an end user's id by one that only this installation can tell."""
    return hmac.new(key, end_user.encode(), hashlib.sha256).hexdigest()[:24]
