"""An offline estimate of ``input_tokens``, for when no provider may be asked.

It is never exact and always marked. It aims at the tokenizer of Claude 4.7 and later, leans high,
because clients use the number to stay inside a context window, and answers every JSON object.
The sources of its constants, how far off it is and what it is not: docs/estimate.md.
"""

import math
import re
from typing import Any

import msgspec

from adapters import _estimate_media as media
from adapters._estimate_text import millitokens

SAFETY = 1.12
"""Factor on the fitted price of text, so that hardly any text comes out below its count."""

# What a request's structure costs beyond its text: recorded from real requests, rounded up.
_REQUEST = 8
_MESSAGE = 4
_CALL_OR_RESULT = 30
_DOCUMENT = 40
_IMAGE = 4
_THINKING = {"enabled": 30, "adaptive": 20, "between_tools": 30}
_OUTPUT_FORMAT = 190
_TASK_BUDGET = 45

# The system prompt that tools bring along, for tool_choice auto or none, and for any or tool. The
# highest of the table but for Opus 4.7, which stands alone with 675 and 804.
# https://platform.claude.com/docs/en/about-claude/pricing#tool-use-pricing (2026-08)
_TOOLS = 497
_TOOLS_FORCED = 589

# Definitions that the provider keeps to itself, by the beginning of the tool's type.
_BUILT_IN_TOOLS = {
    "bash": 350,
    "text_editor": 950,
    "computer": 1650,
    "memory": 1450,
    "web_search": 2300,
    "web_fetch": 800,
    "code_execution": 5500,
    "tool_search": 1350,
}
_OTHER_BUILT_IN_TOOL = 2500

_DEEPEST = 8
"""Blocks within blocks beyond this are priced as JSON; real ones stop at three."""

_decoder = msgspec.json.Decoder(dict[str, Any])
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class Estimator:
    """A LocalCounter: fitted prices, no network, no state."""

    def estimate(self, body: bytes) -> int:
        """Estimate a count_tokens body without ``model``. At least 1; never raises on JSON.

        JSON that cannot be decoded (a number beyond all bounds, lists a thousand deep) is priced
        as the text that it is.
        """
        tally = _Tally()
        try:
            tally.request(_decoded(body))
        except (ValueError, RecursionError):
            tally = _Tally()
            tally.text.append(body)
        return tally.total()


class _Tally:
    """What was seen of one request: text still to be priced, and the tokens of all else."""

    def __init__(self) -> None:
        self.text: list[bytes] = []
        self.tokens = 0

    def total(self) -> int:
        priced = millitokens(b"\n".join((b"", *self.text, b"")))
        return max(1, self.tokens + math.ceil(priced * SAFETY / 1000))

    def request(self, request: dict[str, Any]) -> None:
        self.tokens += _REQUEST
        for field, value in request.items():
            match field, value:
                case "messages", list():
                    for message in value:
                        self.message(message)
                case "system", _:
                    self.content(value)
                case "tools", list():
                    self.tools(value, request.get("tool_choice"))
                case "thinking", {"type": str(mode)}:
                    self.tokens += _THINKING.get(mode, 0)
                case "output_config", dict():
                    self.output_config(value)
                case "tool_choice" | "cache_control", _:
                    pass
                case _:
                    self.json(value)

    def output_config(self, config: dict[str, Any]) -> None:
        for field, value in config.items():
            match field:
                case "format":
                    self.tokens += _OUTPUT_FORMAT
                    self.json(value)
                case "task_budget":
                    self.tokens += _TASK_BUDGET
                case "effort":
                    pass
                case _:
                    self.json(value)

    def message(self, message: object) -> None:
        self.tokens += _MESSAGE
        if isinstance(message, dict) and "content" in message:
            self.content(message["content"])
        else:
            self.json(message)

    def tools(self, tools: list[object], choice: object) -> None:
        """A deferred tool costs nothing until a search finds it."""
        present = [tool for tool in tools if not _is_deferred(tool)]
        match present, choice:
            case [], _:
                pass
            case _, {"type": "any" | "tool"}:
                self.tokens += _TOOLS_FORCED
            case _:
                self.tokens += _TOOLS
        for tool in present:
            self.tokens += _built_in(tool)
            self.json(tool)

    def content(self, content: object, depth: int = 0) -> None:
        """Text, a block, or a list of blocks; anything else by its JSON."""
        if isinstance(content, str):
            self.string(content)
        elif isinstance(content, list) and depth < _DEEPEST:
            for block in content:
                self.content(block, depth + 1)
        elif isinstance(content, dict) and depth < _DEEPEST:
            self.block(content, depth + 1)
        else:
            self.json(content)

    def block(self, block: dict[str, Any], depth: int) -> None:
        match block:
            case {"type": "text", "text": str(text)}:
                self.string(text)
            case {"type": "image"}:
                self.image(block.get("source"))
            case {"type": "document"}:
                self.document(block, depth)
            case {"type": "thinking", "thinking": str(text)}:
                self.thinking(text, block.get("signature"))
            case {"type": "redacted_thinking", "data": str(sealed)}:
                self.thinking("", sealed)
            case {"type": str(kind), "input": arguments} if kind.endswith("tool_use"):
                self.tokens += _CALL_OR_RESULT
                self.json(block.get("name"))
                self.json(arguments)
            case {"type": str(kind)} if kind.endswith("tool_result"):
                self.tokens += _CALL_OR_RESULT
                self.content(block.get("content"), depth)
            case {"type": "search_result"}:
                self.tokens += _DOCUMENT
                for part in ("source", "title", "content"):
                    self.content(block.get(part), depth)
            case _:
                self.json(block)

    def image(self, source: object) -> None:
        match source:
            case {"type": "base64", "data": str(data)}:
                self.tokens += _IMAGE + media.image_tokens(data)
            case _:
                self.tokens += _IMAGE + media.IMAGE_CEILING

    def document(self, block: dict[str, Any], depth: int) -> None:
        self.tokens += _DOCUMENT
        self.json(block.get("title"))
        self.json(block.get("context"))
        match block.get("source"):
            case {"type": "base64", "data": str(data)}:
                self.tokens += media.PDF_PAGE * media.pdf_pages(data)
            case {"type": "text", "data": str(text)}:
                self.string(text)
            case {"type": "content", "content": content}:
                self.content(content, depth)
            case source:
                self.tokens += media.PDF_PAGE
                self.json(source)

    def thinking(self, text: str, sealed: object) -> None:
        """Of thinking shown as a summary or not at all, the whole is in the sealed part."""
        if isinstance(sealed, str) and len(sealed) * 3 // 4 > len(text):
            self.tokens += len(sealed) // 4
        else:
            self.string(text)

    def string(self, text: str) -> None:
        self.text.append(text.encode("utf-8", "replace"))

    def json(self, value: object) -> None:
        """What reaches the model as JSON, and what we do not know: all its text."""
        if value is not None:
            self.text.append(msgspec.json.format(msgspec.json.encode(value), indent=0))


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        return _decoder.decode(body)
    except ValueError:
        return _decoder.decode(_SURROGATE.sub(rb"\\ufffd", body))


def _is_deferred(tool: object) -> bool:
    return isinstance(tool, dict) and tool.get("defer_loading") is True


def _built_in(tool: object) -> int:
    """Tokens of a definition that the request only names."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    if not isinstance(kind, str) or kind in {"custom", "function"}:
        return 0
    known = (tokens for name, tokens in _BUILT_IN_TOOLS.items() if kind.startswith(name))
    return next(known, _OTHER_BUILT_IN_TOOL)
