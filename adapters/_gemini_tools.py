"""Anthropic's tools and tool_choice → Gemini's tools and toolConfig.

    {"name":"f","description":"…","input_schema":{…}}
        →  {"functionDeclarations":[{"name":"f","description":"…","parametersJsonSchema":{…}}]}
    {"type":"tool","name":"f"}
        →  {"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":["f"]}}

Server tools and tools that Anthropic defines are refused: their Gemini namesakes count otherwise.
"""

import re

import msgspec
from msgspec import Raw

from adapters._gemini_json import Fields, Members, Reader, is_given
from adapters.base import CannotExpressError

TOOL = Fields(
    mapped=frozenset({"type", "name", "description", "input_schema", "defer_loading"}),
    dropped=frozenset({"allowed_callers", "cache_control", "eager_input_streaming", "strict"}),
)
TOOL_CHOICE = Fields(frozenset({"type", "name"}), frozenset({"disable_parallel_tool_use"}))

_MEMBERS = msgspec.json.Decoder(Members)
_TEXT = msgspec.json.Decoder(str)
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_MODES = {"auto": b"AUTO", "any": b"ANY", "tool": b"ANY", "none": b"NONE"}


def function_declarations(value: Raw, reader: Reader) -> bytes:
    """Declare every tool as a function of one Gemini tool. Raises CannotExpressError."""
    declarations = [
        _declaration(tool, reader, f"tools.{index}")
        for index, tool in enumerate(reader.array(value, "tools"))
    ]
    return b'[{"functionDeclarations":[%b]}]' % b",".join(declarations) if declarations else b""


def _declaration(tool: Members, reader: Reader, path: str) -> bytes:
    """Declare a tool; ``parametersJsonSchema`` is JSON Schema, so the schema stays as it is.

    Only ``$schema`` at its root goes: it names a dialect and describes nothing. The field exists on
    both APIs (google-ai-generativelanguage 0.12.1, aiplatform v1 revision 20261106).
    """
    kind = reader.text(tool, "type", path) if is_given(tool, "type") else "custom"
    if kind != "custom":
        raise reader.refuse_kind(path, "tool", kind)
    reader.sift(tool, TOOL, path)
    if bytes(tool.get("defer_loading", Raw(b"false"))) not in (b"false", b"null"):
        # A deferred tool stays out of the prompt until Claude searches for it; Gemini cannot wait.
        raise reader.refuse_field(path, "defer_loading")
    name = reader.string(tool, "name", path)
    schema = reader.object(tool, "input_schema", path)
    if b'"$schema"' in schema:
        kept = _without_dialect(schema, f"{path}.input_schema")
        if kept != schema:
            reader.dropped.add("$schema")
            schema = kept
    description = b""
    if is_given(tool, "description"):
        description = b',"description":' + reader.string(tool, "description", path)
    return b'{"name":%b%b,"parametersJsonSchema":%b}' % (name, description, schema)


def _without_dialect(schema: bytes, path: str) -> bytes:
    """Cut ``$schema`` out of the root; the other members stay as they are written.

    Raises CannotExpressError where a name stands twice: of the first, only its name is known.
    """
    members = _MEMBERS.decode(schema)
    kept: list[bytes] = []
    seen: set[str] = set()
    start = 1
    while start < len(schema) - 1:
        written = _STRING.match(schema, start)
        name = _TEXT.decode(written[0]) if written else ""
        end = written.end() + 1 + len(memoryview(members[name])) if written else start
        if name in seen or schema[end : end + 1] not in (b",", b"}"):
            raise CannotExpressError(f"{path}: a field is written twice")
        if name != "$schema":
            kept.append(schema[start:end])
        seen.add(name)
        start = end + 1
    return b"{%b}" % b",".join(kept)


def tool_config(value: Raw, reader: Reader) -> bytes:
    """Write a ``tool_choice`` as ``toolConfig``. Raises CannotExpressError."""
    choice = reader.members(value, "tool_choice")
    kind = reader.text(choice, "type", "tool_choice")
    if kind not in _MODES:
        raise reader.refuse_kind("tool_choice", "tool_choice", kind)
    reader.sift(choice, TOOL_CHOICE, "tool_choice")
    names = b""
    if kind == "tool":
        name = reader.string(choice, "name", "tool_choice")
        names = b',"allowedFunctionNames":[%b]' % name
    return b'{"functionCallingConfig":{"mode":"%b"%b}}' % (_MODES[kind], names)
