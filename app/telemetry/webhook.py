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
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import orjson
from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError

from app.config_sections import Webhook
from app.log import warn_operator
from app.telemetry.event import CountEvent
from app.telemetry.record import record_of
from app.telemetry.sinks import Sampling

MAX_WAITING = 20_000
PAUSES_S = (0.5, 2.0, 8.0)
"""Before the second, third and fourth attempt at a batch; then it is given up."""
LAST_S = 1.0
"""For the last batch, when the worker ends."""
USER_AGENT = "tallygate/0.1"
_TAKEN = range(200, 300)
_WORTH_ANOTHER = frozenset({408, 425, 429})
_SERVER_ERRORS = 500


class WebhookSink:
    """Buffers events; a thread of its own posts them, a batch at a time.

    * The event loop only appends to a queue of MAX_WAITING events; more are dropped and counted.
    * A batch that the receiver does not take is sent again; given up, it is counted as dropped. So
      every batch says what has been lost before it.
    """

    def __init__(
        self,
        settings: Webhook,
        sampling: Sampling,
        pseudonym_key: bytes | None,
        note: Callable[[str, int], None],
    ) -> None:
        """``note`` hears of so many events ``sent`` or ``dropped``."""
        self._settings = settings
        self._url = settings.url.reveal() if settings.url else ""
        self._key = settings.signing_key()
        self._sampling = sampling
        self._pseudonym_key = pseudonym_key
        self._note = note
        # Append and popleft are atomic: the loop appends, the thread takes, nobody locks.
        self._waiting: deque[CountEvent] = deque()
        self._dropped = 0
        self._given_up = 0
        """Counted by the posting thread alone, as the other by the loop."""
        self._told = (0, 0)
        self._noted = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._post_forever, name="webhook", daemon=True)
        self._thread.start()

    def emit(self, event: CountEvent) -> None:
        """Keep the event for the next batch, or drop and count it."""
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append(event)

    def close(self) -> None:
        """Post what is left, once; wait a little longer than that may take."""
        self._stop.set()
        self._thread.join(timeout=2 * LAST_S)

    def _post_forever(self) -> None:
        with _client() as client:
            while not self._stop.wait(self._settings.flush_s):
                while self._waiting and not self._stop.is_set():
                    self._deliver(client, self._settings.timeout_s, PAUSES_S)
                self._tell_drops()
            if self._waiting or self._losses() != self._told:
                self._deliver(client, min(LAST_S, self._settings.timeout_s), ())
                self._tell_drops()

    def _tell_drops(self) -> None:
        """Tell the metrics: this thread alone does, the loop only counts."""
        dropped = self._dropped + self._given_up
        self._note("dropped", dropped - self._noted)
        self._noted = dropped

    def _losses(self) -> tuple[int, int]:
        return self._sampling.left_out, self._dropped + self._given_up

    def _deliver(self, client: SyncClient, timeout_s: float, pauses_s: tuple[float, ...]) -> None:
        """Post one batch, again after each pause while that is of use."""
        size = min(len(self._waiting), self._settings.batch_events)
        events = [self._waiting.popleft() for _ in range(size)]
        losses = self._losses()
        body = _message(
            events=[record_of(event, self._pseudonym_key) for event in events],
            left_out=losses[0] - self._told[0],
            dropped=losses[1] - self._told[1],
        )
        message_id = f"msg_{secrets.token_hex(12)}"
        failure, again = self._post(client, message_id, body, timeout_s)
        for pause_s in pauses_s:
            if not again or self._stop.wait(pause_s):
                break
            failure, again = self._post(client, message_id, body, timeout_s)
        if not failure:
            self._told = losses
            self._note("sent", size)
        else:
            self._given_up += size
            warn_operator(f"telemetry.webhook: events were not taken: {failure}")

    def _post(
        self, client: SyncClient, message_id: str, body: bytes, timeout_s: float
    ) -> tuple[str, bool]:
        """Post once; return what went wrong, empty if nothing, and whether to try again."""
        stamp = str(int(time.time()))  # noqa: TID251 -- the receiver compares it with its own clock
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": stamp,
        }
        if self._key is not None:
            signed = b"%b.%b.%b" % (message_id.encode(), stamp.encode(), body)
            digest = hmac.digest(self._key, signed, "sha256")
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        request = client.post(self._url).headers(headers).body_bytes(body)
        try:
            status = request.timeout(timedelta(seconds=timeout_s)).build().send().status
        except (PyreqwestError, TimeoutError) as error:
            return type(error).__name__, True
        if status in _TAKEN:
            return "", False
        return f"status {status}", status in _WORTH_ANOTHER or status >= _SERVER_ERRORS


def _client() -> SyncClient:
    return SyncClientBuilder().follow_redirects(False).user_agent(USER_AGENT).build()  # noqa: FBT003


def _message(**data: object) -> bytes:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return orjson.dumps({"type": "tallygate.counts", "timestamp": now, "data": data})
