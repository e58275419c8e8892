"""The canonical form of a question, and the key under which its count is remembered.

A wrong merge is a wrong answer; a missed merge is only a miss. Every choice follows from that.
"""

import hmac
from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec

KEY_VERSION = 1
"""Raised whenever the canonical form or the composition of a key changes."""

NOT_COUNTED = frozenset(
    {
        # Fields of an inference request that the counting API's schema does not have (anthropic
        # 2.12.0, MessageCreateParams without MessageCountTokensParams, 2026-11): how and where
        # to answer, for whom, and what to bill. Not `thread`, though it has no such field either:
        # it stands for messages that the provider holds, and a count without them would be wrong.
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop_sequences",
        "stream",
        "metadata",
        "service_tier",
        "container",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        # … and those that only name the end user.
        "user",
        "litellm_metadata",
        "safety_identifier",
    }
)


def canonical(members: Mapping[str, msgspec.Raw], without: Iterable[str] = NOT_COUNTED) -> bytes:
    """Write the object anew: top-level members sorted by name, ``model`` and ``without`` left out.

    Values stay byte for byte as they are: the order of keys in a tool's schema reaches the model
    as text, and ``1.0`` is not ``1``.
    """
    left_out = {"model", *without}
    return (
        b"{"
        + b",".join(
            b"%b:%b" % (msgspec.json.encode(name), bytes(members[name]))
            for name in sorted(members)
            if name not in left_out
        )
        + b"}"
    )


def content_key(secret: bytes, parts: Iterable[bytes]) -> bytes:
    """Hash the parts of a question into 32 bytes: HMAC-SHA-256 over each part after its length.

    The lengths keep ``("ab", "c")`` apart from ``("a", "bc")``; the secret keeps whoever can read
    a shared cache from testing guesses at what was asked.
    """
    message = bytearray(KEY_VERSION.to_bytes(4))
    for part in parts:
        message += len(part).to_bytes(8)
        message += part
    # Not `hmac.digest`: it gives other threads the interpreter, and waits to have it back. So does
    # this from 2 KiB on, where it is worth while.
    keyed = _keyed(secret).copy()
    keyed.update(message)
    return keyed.digest()


@lru_cache(8)
def _keyed(secret: bytes) -> hmac.HMAC:
    return hmac.new(secret, digestmod="sha256")


def derive_secret(source: str | None, purpose: str) -> bytes:
    """Derive the key of one purpose from an operator's secret (HKDF, RFC 5869, one block).

    Without a secret the result is a constant: keys are then as guessable as their content.
    """
    extracted = hmac.digest(b"tallygate", (source or "").encode(), "sha256")
    return hmac.digest(extracted, purpose.encode() + b"\x01", "sha256")
