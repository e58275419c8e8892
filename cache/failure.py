"""A leader's failure, as those see it who already wait for the same answer elsewhere."""

from msgspec import Struct

LASTS_S = 1.0
"""No failure is shared longer: whoever comes later asks for himself."""


class Failure(Struct, frozen=True, array_like=True):
    """Status and kind alone: a provider's text may quote a prompt, and leaves no process."""

    status: int
    type: str
    """One of Anthropic's error types, at most 32 ASCII characters."""
    retry_after_s: int = 0
    """0: not known."""
    credential: bytes = b""
    """8 bytes that tell credentials apart where the failure is the credential's own (401, 403,
    429): it is shared only among those that ask with the same one. Else empty."""
