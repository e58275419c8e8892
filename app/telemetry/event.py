"""The one record that logs, metrics, traces, webhooks and the usage ledger are made of."""

import re

from msgspec import Struct

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
    upstream_from_ms: float = 0.0
    """When a provider was first asked, after the request's beginning."""
    upstream_calls: int = 0
    budget_wait_ms: float = 0.0
    """How long it waited for the deployment's rpm, whether or not its turn came."""
    client_request_id: str = ""
    user_agent: str = ""
    dropped: tuple[str, ...] = ()
    one_of: int = 1
    """Of how many hits this is the one that is told of by itself."""
    traceparent: str = ""
    """The caller's own trace, in W3C's form."""


_traceparent = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch


def trace_of(traceparent: str) -> str:
    """Take a well-formed ``traceparent``; empty for any other.

    https://www.w3.org/TR/trace-context/ (2021-11): what is malformed is as if it were not there.
    """
    return traceparent if _traceparent(traceparent) else ""


def plain_text(value: str) -> str:
    """Cut a client's text to MAX_TEXT characters that every encoder takes.

    A header that is not ASCII arrives with lone surrogates in it (Sanic 25.12.1).
    """
    return value[:MAX_TEXT].encode("utf-8", "replace").decode()
