"""Sink: batches of events, posted to an address of the operator's, signed as Standard Webhooks.

    POST url
    webhook-id: msg_…           the same when a batch is sent again: the receiver knows it then
    webhook-timestamp: 1764000000
    webhook-signature: v1,…     base64 of HMAC-SHA-256 over ``id.timestamp.body``

    {"type":"tallygate.counts","timestamp":"…","data":{"events":[…],"left_out":0,"dropped":0}}

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md (2026-11)
"""

import base64
import hmac
import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial

import orjson

from app.config_sections import Webhook
from app.telemetry.courier import Lost, Round
from app.telemetry.event import CountEvent
from app.telemetry.post import Parcel
from app.telemetry.record import record_of

WORTH_ANOTHER = frozenset({408, 425, 429, *range(500, 600)})


def webhook(settings: Webhook, pseudonym_key: bytes | None) -> Round:
    """Say where the webhook's batches go, and what they look like."""
    more = {name.lower(): value.reveal() for name, value in settings.headers.items()}
    return Round(
        name="webhook",
        url=settings.url.reveal() if settings.url else "",
        batch_events=settings.batch_events,
        flush_s=settings.flush_s,
        timeout_s=settings.timeout_s,
        tells_losses=True,
        worth_another=WORTH_ANOTHER,
        pack=partial(_pack, settings.signing_key(), more, pseudonym_key),
    )


def _pack(
    key: bytes | None,
    more: dict[str, str],
    pseudonym_key: bytes | None,
    events: Iterable[CountEvent],
    lost: Lost,
) -> Parcel:
    data = {
        "events": [record_of(event, pseudonym_key) for event in events],
        "left_out": lost.left_out,
        "dropped": lost.dropped,
    }
    now = datetime.now(UTC).isoformat(timespec="seconds")
    body = orjson.dumps({"type": "tallygate.counts", "timestamp": now, "data": data})
    return Parcel(body, partial(_headers, key, more, f"msg_{secrets.token_hex(12)}", body))


def _headers(
    key: bytes | None, more: dict[str, str], message_id: str, body: bytes
) -> dict[str, str]:
    """Write what says which message this is, and when it was sent."""
    stamp = str(int(time.time()))  # noqa: TID251 -- the receiver compares it with its own clock
    headers = {
        **more,
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
    }
    if key is not None:
        signed = b"%b.%b.%b" % (message_id.encode(), stamp.encode(), body)
        digest = hmac.digest(key, signed, "sha256")
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers
