"""The number a simulated provider answers: invented, but never by chance."""

from collections.abc import Mapping
from zlib import crc32

import msgspec

_EXAMPLE = crc32(b'{"messages":[{"role":"user","content":"Hello, how are you?"}]}')


def count_tokens(question: Mapping[str, object]) -> int:
    """Count a question so that whatever is lost, added or changed in it shows in the number.

    The number is one for every four bytes of the question's compact JSON, less one, plus a checksum
    of that JSON modulo 256: of all changes, one in 256 goes unseen. ``model``, the order of
    top-level fields, white space and escapes do not matter; the order of nested fields does, since
    a tool's schema reaches a model as text. The checksum is shifted so that "Hello, how are you?"
    alone gives 14, the answer in LiteLLM's documentation of the endpoint.
    """
    text = msgspec.json.encode(
        {name: question[name] for name in sorted(question) if name != "model"}
    )
    return len(text) // 4 - 1 + (crc32(text) - _EXAMPLE) % 256
