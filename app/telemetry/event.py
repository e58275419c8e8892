"""The one record that logs, metrics, traces, webhooks and the usage ledger are made of."""

from msgspec import Struct

MAX_TEXT = 256


class Call(Struct, frozen=True, gc=False):
    """One request to a provider."""

    provider: str
    upstream_model: str
    deployment: str
    from_ms: float
    """After the beginning of the request that it is for."""
    took_ms: float
    """Until it was answered, or its caller waited no longer."""
    status: int
    """What the provider said; 0 where nothing was heard."""


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
    calls: tuple[Call, ...] = ()
    """What providers were asked for it, for the spans alone."""


def plain_text(value: str) -> str:
    """Cut a client's text to MAX_TEXT characters that every encoder takes.

    A header that is not ASCII arrives with lone surrogates in it (Sanic 25.12.1).
    """
    return value[:MAX_TEXT].encode("utf-8", "replace").decode()
