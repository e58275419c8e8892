"""Whom the caller counts for: LiteLLM's places in LiteLLM's order; a claim, never a permission."""

from collections.abc import Mapping

import msgspec

from app.telemetry.event import plain_text

# https://docs.litellm.ai/docs/proxy/customers, LiteLLM 1.109.1 (2026-11): headers before body.
_MEMBERS = frozenset({"user", "litellm_metadata", "metadata", "safety_identifier"})
HEADERS = ("x-tallygate-end-user", "x-litellm-customer-id", "x-litellm-end-user-id")


def end_user_of_headers(headers: Mapping[str, str], mapped_headers: tuple[str, ...] = ()) -> str:
    """Return the end user's id, at most MAX_TEXT characters, or an empty string.

    ``mapped_headers`` are those of ``general_settings.user_header_mappings``. A header comes before
    what the body says.
    """
    for header in (*HEADERS, *mapped_headers):
        if value := headers.get(header):
            return plain_text(value)
    return ""


def end_user_of_body(members: Mapping[str, msgspec.Raw]) -> str:
    """Return the end user's id that the body names, likewise."""
    if _MEMBERS.isdisjoint(members):
        return ""
    for found in (
        _text(members.get("user")),
        _inner(members.get("litellm_metadata"), "user"),
        _inner(members.get("metadata"), "user_id"),
        _text(members.get("safety_identifier")),
    ):
        if found:
            return plain_text(found)
    return ""


def _text(raw: msgspec.Raw | None) -> str:
    value = _decode(raw)
    return value if isinstance(value, str) else ""


def _inner(raw: msgspec.Raw | None, name: str) -> str:
    """Read a field of an object; metadata may be an object or a string that holds one."""
    value = _decode(raw)
    if isinstance(value, str):
        value = _decode(msgspec.Raw(value.encode("utf-8", "replace")))
    if isinstance(value, dict):
        found = value.get(name)
        return found if isinstance(found, str) else ""
    return ""


def _decode(raw: msgspec.Raw | None) -> object:
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
