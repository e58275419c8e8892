"""Which questions Anthropic's counting endpoint refuses, and in what words.

Sources: https://platform.claude.com/docs/en/build-with-claude/token-counting and
https://platform.claude.com/docs/en/api/versioning (2026-11), the types of the anthropic SDK 2.12,
and reports where a rule names one. Statuses and paths are meant to be right; where no report
quotes the real text, the wording is made up in the style of those that are known.
"""

from collections.abc import Collection
from typing import Any

# Not in the SDK's MessageCountTokensParams, so a proxy has no reason to pass them on. Whether the
# real endpoint refuses them is not known; this one does, so that it shows.
INFERENCE_ONLY = frozenset(
    {
        "container",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        "litellm_metadata",
        "max_tokens",
        "metadata",
        "safety_identifier",
        "service_tier",
        "stop_sequences",
        "stream",
        "temperature",
        "thread",
        "top_k",
        "top_p",
        "user",
    }
)
SERVER_TOOLS = ("code_execution_", "tool_search_tool_", "web_fetch_", "web_search_")
STRICT_SINCE = "2026-10-21"


class RefusedError(Exception):
    """A refusal: its HTTP status and the error's message."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def judge(question: dict[str, Any], version: str, betas: Collection[str]) -> None:
    """Check one decoded question. Raises RefusedError."""
    for field in ("model", "messages"):
        if field not in question:
            raise RefusedError(f"{field}: Field required")
    _judge_extra_fields(question, betas)
    model = question["model"]
    if not isinstance(model, str):
        raise RefusedError("model: Input should be a valid string")
    _judge_messages(question["messages"], strict=version >= STRICT_SINCE)
    if "system" in question:
        _judge_content("system", question["system"], "system", strict=False)
    if "tools" in question:
        _judge_tools(question["tools"], model)
    if not model or "nonexistent" in model:
        raise RefusedError(f"model: {model}", status=404)


def _judge_extra_fields(question: dict[str, Any], betas: Collection[str]) -> None:
    if extra := INFERENCE_ONLY & question.keys():
        raise RefusedError(f"{min(extra)}: Extra inputs are not permitted")
    # Wording as quoted in the sources of pydantic-ai, 2026-10.
    if "mcp_servers" in question:
        raise RefusedError(
            "The mcp_servers parameter is not supported on the count_tokens endpoint"
        )
    if "context_management" in question and not any(
        beta.startswith(("context-management-", "compact-")) for beta in betas
    ):
        raise RefusedError("context_management: Extra inputs are not permitted")


def _judge_messages(messages: Any, *, strict: bool) -> None:
    if not isinstance(messages, list):
        raise RefusedError("messages: Input should be a valid list")
    if not messages:
        raise RefusedError("messages: at least one message is required")
    for index, message in enumerate(messages):
        path = f"messages.{index}"
        if not isinstance(message, dict):
            raise RefusedError(f"{path}: Input should be a valid dictionary")
        for field in ("role", "content"):
            if field not in message:
                raise RefusedError(f"{path}.{field}: Field required")
        role = message["role"]
        if role not in ("user", "assistant", "system"):
            raise RefusedError(f"{path}.role: Input should be 'user', 'assistant' or 'system'")
        _judge_content(f"{path}.content", message["content"], role, strict=strict)


def _judge_content(path: str, content: Any, within: str, *, strict: bool) -> None:
    """Check text or blocks; ``within`` is the role or the type of block that holds them."""
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise RefusedError(f"{path}: Input should be a valid list")
    for index, block in enumerate(content):
        _judge_block(f"{path}.{index}", block, within, strict=strict)


def _judge_block(path: str, block: Any, within: str, *, strict: bool) -> None:
    if not isinstance(block, dict):
        raise RefusedError(f"{path}: Input should be a valid dictionary")
    if "type" not in block:
        raise RefusedError(f"{path}.type: Field required")
    kind = block["type"]
    if strict and kind == "document" and within == "assistant":
        raise RefusedError(f"{path}: document blocks are not permitted in assistant messages")
    if strict and kind == "text" and block.get("citations") and within in ("user", "search_result"):
        raise RefusedError(f"{path}.citations: citations are not permitted in user messages")
    if kind in ("image", "document"):
        _judge_source(f"{path}.source", block.get("source"), strict=strict)
    if kind in ("tool_result", "search_result") and "content" in block:
        _judge_content(f"{path}.content", block["content"], kind, strict=strict)


def _judge_source(path: str, source: Any, *, strict: bool) -> None:
    if not isinstance(source, dict):
        raise RefusedError(f"{path}: Field required")
    kind = source.get("type")
    if kind in ("url", "file"):
        raise RefusedError(f"{path}: {kind} sources are not supported on the count_tokens endpoint")
    if kind == "content":
        _judge_content(f"{path}.content", source.get("content"), "document", strict=strict)


def _judge_tools(tools: Any, model: str) -> None:
    if not isinstance(tools, list):
        raise RefusedError("tools: Input should be a valid list")
    for index, tool in enumerate(tools):
        path = f"tools.{index}"
        if not isinstance(tool, dict):
            raise RefusedError(f"{path}: Input should be a valid dictionary")
        kind = tool.get("type", "custom")
        if kind == "custom":
            for field in ("name", "input_schema"):
                if field not in tool:
                    raise RefusedError(f"{path}.custom.{field}: Field required")
        # The documentation says they are refused; pydantic-ai saw them counted on models of the 5.5
        # line (its sources, 2026-10-27).
        elif str(kind).startswith(SERVER_TOOLS) and "-5-5" not in model:
            raise RefusedError(f"{path}: {kind} is not supported on the count_tokens endpoint")
