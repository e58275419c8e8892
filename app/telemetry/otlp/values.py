"""OTLP's typed values, in JSON, and what spans and log records say of a count.

https://opentelemetry.io/docs/specs/otlp/ (1.9, 2026-11): ids in hexadecimal, 64-bit numbers as
strings, kinds and codes as numbers. Names of attributes: the conventions for generative AI, which
have no operation for counting; a count is nothing that was used, so it is no ``gen_ai.usage``.
https://github.com/open-telemetry/semantic-conventions-genai (2026-11)
"""

import os
import socket
from collections.abc import Mapping
from multiprocessing.process import parent_process
from typing import Any

from app.telemetry.event import CountEvent
from app.telemetry.record import pseudonym

OPERATION = "count_tokens"
SERVER_ERRORS = 500
PROVIDERS = {
    "anthropic": "anthropic",
    "bedrock": "aws.bedrock",
    "bedrock_mantle": "aws.bedrock",
    "gemini": "gcp.gemini",
    "vertex_claude": "gcp.vertex_ai",
    "vertex_gemini": "gcp.vertex_ai",
}
"""Ours, and the conventions' names; what is not here is given as it is."""
SCOPE = {"name": "tallygate"}

Attributes = list[dict[str, Any]]


def resource(service_name: str) -> dict[str, Any]:
    """Say who tells: the server as a whole, of which a worker is no instance of its own."""
    parent = parent_process()
    pid = os.getpid() if parent is None else parent.pid
    instance = f"{socket.gethostname()}-{pid}"
    return {
        "attributes": attributes({"service.name": service_name, "service.instance.id": instance})
    }


def attributes(values: Mapping[str, str | int | bool]) -> Attributes:
    """Write what is not empty as OTLP's typed values."""
    return [
        {"key": name, "value": _value(value)}
        for name, value in values.items()
        if value or value is False
    ]


def _value(value: str | int | bool) -> dict[str, Any]:  # noqa: FBT001 -- a value, not a switch
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}


def provider_name(provider: str) -> str:
    """Name a provider as the conventions do."""
    return PROVIDERS.get(provider, provider)


def of_count(event: CountEvent, pseudonym_key: bytes | None) -> Attributes:
    """Say all that an event does."""
    end_user = event.end_user
    if pseudonym_key and end_user:
        end_user = pseudonym(pseudonym_key, end_user)
    return attributes(
        {
            "gen_ai.operation.name": OPERATION,
            "gen_ai.provider.name": provider_name(event.provider),
            "gen_ai.request.model": event.model,
            "gen_ai.response.model": event.upstream_model,
            "http.request.method": "POST",
            "http.response.status_code": event.status,
            "http.request.body.size": event.body_bytes,
            "user_agent.original": event.user_agent,
            "user.id": end_user,
            "error.type": event.error_type,
            "token_count.input_tokens": event.input_tokens,
            "token_count.source": event.source,
            "cache.hit": event.source == "cache",
            "tallygate.deployment": event.deployment,
            "tallygate.request_id": event.request_id,
            "tallygate.route": event.route,
            "tallygate.caller": event.caller,
            "tallygate.tier": event.tier,
            "tallygate.reason": event.reason,
            "tallygate.upstream_calls": event.upstream_calls,
            "tallygate.one_of": event.one_of if event.one_of > 1 else 0,
        }
    )
