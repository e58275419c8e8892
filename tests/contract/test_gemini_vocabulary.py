"""What the newest Anthropic SDK can say is mapped, left out by name, or refused by name.

A type or field that the SDK gains fails here until somebody has decided what becomes of it.
"""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from anthropic.types import (
    content_block,
    content_block_param,
    document_block_param,
    image_block_param,
    message_count_tokens_params,
    message_count_tokens_tool_param,
    tool_choice_param,
    tool_result_block_param,
)
from anthropic.types.beta import (
    beta_content_block_param,
    beta_image_block_param,
    beta_request_document_block_param,
    beta_tool_choice_param,
    beta_tool_result_block_param,
)
from anthropic.types.beta import message_count_tokens_params as beta_count_tokens_params

from adapters._gemini_blocks import DROPPED, FIELDS, IN_TOOL_RESULT
from adapters._gemini_json import Fields
from adapters._gemini_tools import TOOL, TOOL_CHOICE
from adapters._gemini_wire import REQUEST
from adapters.base import CannotExpressError, CountRequest, Params, Secret
from adapters.registry import ADAPTERS

REFUSED_BLOCKS = {
    "advisor_tool_result",
    "bash_code_execution_tool_result",
    "code_execution_tool_result",
    "compaction",
    "container_upload",
    "fallback",
    "mcp_tool_listing",
    "mcp_tool_result",
    "mcp_tool_use",
    "server_tool_use",
    "text_editor_code_execution_tool_result",
    "tool_addition",
    "tool_removal",
    "tool_search_tool_result",
    "web_fetch_tool_result",
    "web_search_tool_result",
}
REFUSED_IN_TOOL_RESULTS = {"browser_state", "tool_reference"}
REFUSED_FIELDS = {
    "tool_use": {"toolset_name"},
    "tool_result": {"toolset_name"},
    "custom": {"input_examples"},
}
REFUSED_TOP_LEVEL = {"mcp_servers"}
HEADERS = {"betas", "user_profile_id", "workspace_id"}
"""Parameters of the SDK's methods that are headers on the wire."""
REFUSED_TOOLS = (
    "advisor_",
    "bash_",
    "browser_toolset_",
    "code_execution_",
    "computer_",
    "mcp_toolset",
    "memory_",
    "text_editor_",
    "tool_search_tool_",
    "web_fetch_",
    "web_search_",
)

BLOCKS = (
    content_block_param.ContentBlockParam
    | content_block.ContentBlock
    | beta_content_block_param.BetaContentBlockParam
)
IN_RESULTS = tool_result_block_param.Content | beta_tool_result_block_param.Content
TOOLS = message_count_tokens_tool_param.MessageCountTokensToolParam | beta_count_tokens_params.Tool
CHOICES = tool_choice_param.ToolChoiceParam | beta_tool_choice_param.BetaToolChoiceParam
IMAGES = image_block_param.Source | beta_image_block_param.Source
DOCUMENTS = document_block_param.Source | beta_request_document_block_param.Source


def variants(union: Any) -> dict[str, set[str]]:
    """List the SDK's types in a union by their ``type``, with all fields that they can have."""
    found: dict[str, set[str]] = {}
    for one in union_members(union):
        hints = _fields(one)
        kinds = literals(hints["type"]) if "type" in hints else []
        for kind in kinds or ["custom"]:
            found.setdefault(kind, set()).update(hints)
    return found


def union_members(union: Any) -> Iterator[Any]:
    origin = get_origin(union)
    if origin is Annotated:
        yield from union_members(get_args(union)[0])
    elif origin in (Union, types.UnionType):
        for one in get_args(union):
            yield from union_members(one)
    else:
        yield union


def _fields(one: Any) -> dict[str, Any]:
    models = getattr(one, "model_fields", None)
    return {name: it.annotation for name, it in models.items()} if models else get_type_hints(one)


def literals(hint: Any) -> list[str]:
    return [
        value
        for one in union_members(hint)
        if get_origin(one) is Literal
        for value in get_args(one)
        if value is not None
    ]


def refusal(body: dict[str, Any]) -> str:
    params = Params(model="gemini-2.5-flash", api_key=Secret("k"))
    adapter = ADAPTERS["gemini"]
    endpoint = adapter.endpoint(params, {})
    with pytest.raises(CannotExpressError) as refused:
        adapter.request(CountRequest(msgspec.json.encode(body), "2023-06-01"), endpoint)
    return str(refused.value)


def user(*blocks: Any) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": "a"}, *blocks]}]


CANNOT = "cannot be counted by provider gemini"


def test_every_block_type_is_decided_on() -> None:
    known = variants(BLOCKS).keys()
    assert len(known) > 20
    assert known == FIELDS.keys() | DROPPED | REFUSED_BLOCKS
    for kind in REFUSED_BLOCKS:
        said = refusal({"messages": user({"type": kind})})
        assert said == f"messages.0.content.1: block type '{kind}' {CANNOT}"


def test_every_block_type_in_a_tool_result_is_decided_on() -> None:
    assert variants(IN_RESULTS).keys() == IN_TOOL_RESULT | REFUSED_IN_TOOL_RESULTS
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    for kind in REFUSED_IN_TOOL_RESULTS:
        result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": kind}]}
        said = refusal({"messages": user(use, result)})
        assert said == f"messages.0.content.2.content.0: block type '{kind}' {CANNOT}"


@pytest.mark.parametrize("kind", FIELDS)
def test_every_field_of_a_mapped_block_is_decided_on(kind: str) -> None:
    check_fields(variants(BLOCKS)[kind], FIELDS[kind], REFUSED_FIELDS.get(kind, set()))
    for name in REFUSED_FIELDS.get(kind, set()):
        said = refusal({"messages": user({"type": kind, name: "x"})})
        assert said == f"messages.0.content.1.{name}: {CANNOT}"


def test_every_source_is_decided_on() -> None:
    # What becomes of each: tests/contract/test_gemini.py.
    assert variants(IMAGES).keys() == {"base64", "url", "file"}
    assert variants(DOCUMENTS).keys() == {"base64", "text", "content", "url", "file"}


def test_every_tool_is_decided_on() -> None:
    tools = variants(TOOLS)
    check_fields(tools.pop("custom"), TOOL, REFUSED_FIELDS["custom"])
    assert [kind for kind in tools if not kind.startswith(REFUSED_TOOLS)] == []
    for kind in tools:
        said = refusal({"messages": user(), "tools": [{"type": kind}]})
        assert said == f"tools.0: tool type '{kind}' {CANNOT}"


def test_every_tool_choice_is_decided_on() -> None:
    choices = variants(CHOICES)
    assert choices.keys() == {"auto", "any", "tool", "none"}
    check_fields(set().union(*choices.values()), TOOL_CHOICE, set())


def test_every_field_of_a_request_is_decided_on() -> None:
    fields = {
        *get_type_hints(message_count_tokens_params.MessageCountTokensParams),
        *get_type_hints(beta_count_tokens_params.MessageCountTokensParams),
    }
    # The last release's name of output_config.format, which clients still send.
    known = fields - HEADERS - {"model"} | {"output_format"}
    check_fields(known, REQUEST, REFUSED_TOP_LEVEL)
    assert refusal({"messages": user(), "mcp_servers": [{}]}) == f"mcp_servers: {CANNOT}"


def check_fields(known: set[str], fields: Fields, refused: set[str]) -> None:
    """A new field is missing on the right; one that has gone is left over there."""
    assert known == fields.mapped | fields.dropped | refused
