"""Anthropic's request → the pieces of a Gemini request, shared by AI Studio and Vertex AI.

    messages       →  contents, neighbours of one role merged
    system         →  systemInstruction, with the system messages of the conversation at its end
    tools          →  tools[0].functionDeclarations, schemas as parametersJsonSchema
    tool_choice    →  toolConfig, where the provider's counter takes one

https://ai.google.dev/api/tokens, https://ai.google.dev/api/caching#Content (2026-11).
"""

import re

from msgspec import Struct

from adapters._gemini_blocks import IN_MESSAGE, TEXT_ONLY, Blocks, Part, render
from adapters._gemini_json import Fields, Members, Reader, is_given
from adapters._gemini_tools import function_declarations, tool_config
from adapters._reply import read_members, take_tokens
from adapters.base import CannotExpressError, Count, CountRequest, named_betas

CONVERTED_BYTES = 65_536
"""``LONG_BODY_BYTES``: 2,400 blocks of a word, which is what fits, take 7 ms (2026-11)."""

REQUEST = Fields(
    mapped=frozenset({"messages", "system", "tools", "tool_choice"}),
    # Nothing of these is part of a prompt: how Claude should answer, cache and bill. ``compaction``
    # and ``billing_policy`` are ignored by Anthropic's own counter too (anthropic 2.12.0).
    dropped=frozenset(
        {
            "billing_policy",
            "cache_control",
            "compaction",
            "context_management",
            "output_config",
            "output_format",
            "speed",
            "thinking",
        }
    ),
)
MESSAGE = Fields(frozenset({"role", "content"}))

_ROLES = {"user": b"user", "assistant": b"model"}


class Dialect(Struct, frozen=True):
    """What one provider's counter takes."""

    provider: str
    takes_tool_config: bool


class Converted(Struct, frozen=True):
    """The members of a Gemini request as JSON, in pieces; those that are empty are not sent."""

    contents: list[bytes]
    system_instruction: bytes
    tools: bytes
    tool_config: bytes
    dropped: tuple[str, ...]

    def joined(self, before: bytes, after: bytes) -> bytes:
        """Write the members as one object's: the one place where a large part is copied."""
        pieces = [before, b'"contents":', *self.contents]
        for name, value in (
            (b',"systemInstruction":', self.system_instruction),
            (b',"tools":', self.tools),
            (b',"toolConfig":', self.tool_config),
        ):
            if value:
                pieces += (name, value)
        return b"".join((*pieces, after))


def convert(count: CountRequest, dialect: Dialect) -> Converted:
    """Convert a question; what only Anthropic's servers understand is left out and named.

    Raises CannotExpressError.
    """
    reader = Reader(dialect.provider)
    reader.dropped.update(name for name, _ in count.identity)
    reader.dropped.update(named_betas(count.betas))
    request = reader.members(count.body, "the request body")
    reader.sift(request, REQUEST, "")
    blocks = Blocks(reader)
    system: list[Part] = []
    if is_given(request, "system"):
        system = blocks.parts(request["system"], "system", TEXT_ONLY)
    contents = _contents(request, reader, blocks, system)
    tools = function_declarations(request["tools"], reader) if is_given(request, "tools") else b""
    choice = b""
    if is_given(request, "tool_choice"):
        if dialect.takes_tool_config:
            choice = tool_config(request["tool_choice"], reader)
        # Without a function there is nothing to choose, and AI Studio refuses to: 400 "Function
        # calling config is set without function_declarations." (pydantic-ai 5791, 2026-06).
        if not (choice and tools):
            choice = b""
            reader.dropped.add("tool_choice")
    return Converted(
        contents=contents,
        system_instruction=b'{"parts":%b}' % b"".join(render(system)) if system else b"",
        tools=tools,
        tool_config=choice,
        dropped=tuple(sorted(reader.dropped)),
    )


def _contents(request: Members, reader: Reader, blocks: Blocks, system: list[Part]) -> list[bytes]:
    """Convert the messages; those of role system join ``system``, the only place for them."""
    turns: list[tuple[bytes, list[Part]]] = []
    messages = reader.field(request, "messages", "")
    for index, message in enumerate(reader.array(messages, "messages")):
        path = f"messages.{index}"
        reader.sift(message, MESSAGE, path)
        content = reader.field(message, "content", path)
        name = reader.text(message, "role", path)
        if name == "system":
            found = blocks.parts(content, f"{path}.content", TEXT_ONLY)
            system += found
            if found and turns:
                reader.dropped.add("system_position")
            continue
        if name not in _ROLES:
            raise CannotExpressError(f"{path}.role: must be user, assistant or system")
        role, found = _ROLES[name], blocks.parts(content, f"{path}.content", IN_MESSAGE)
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(found)
        elif found:
            turns.append((role, found))
    if not turns:
        # Vertex AI answers `contents: null` with 200 and no number (litellm issue 36921, 2026).
        raise CannotExpressError("messages: hold nothing that can be counted")
    return _written(turns)


def _written(turns: list[tuple[bytes, list[Part]]]) -> list[bytes]:
    pieces: list[bytes] = []
    before = b"["
    for role, parts in turns:
        pieces += (before, b'{"role":"%b","parts":' % role, *render(parts))
        before = b"},"
    return [*pieces, b"}]"]


_MODEL = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._:@/+*-]{0,255}")


def check_model(model: str) -> str:
    """Accept a model's id, or a wildcard's pattern. Raises ValueError."""
    if not _MODEL.fullmatch(model):
        raise ValueError("model: must be a model's id such as gemini-2.5-flash")
    return model


def read_total(body: bytes) -> Count:
    """Read ``{"totalTokens":N,…}``. Raises MalformedUpstreamError.

    Google leaves a zero out, and has answered 200 without a number (litellm issue 36921, 2026);
    the further fields are Google's own and no part of Anthropic's reply.
    """
    return Count(take_tokens(read_members(body), "totalTokens"))
