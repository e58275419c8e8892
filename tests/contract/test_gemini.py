"""What the two Gemini adapters send, against recorded traffic of Google's own SDKs."""

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.base import (
    CannotExpressError,
    CountRequest,
    Endpoint,
    Params,
    Secret,
    UpstreamRequest,
)
from adapters.registry import ADAPTERS
from cache.key import canonical
from cache.strict_json import compact, members

WIRE = Path(__file__).parents[1] / "fixtures" / "wire"
MODEL = "gemini-2.5-flash"
ADAPTER_NAMES = ("gemini", "vertex_gemini")


def load(kind: str, name: str) -> dict[str, Any]:
    return msgspec.json.decode((WIRE / kind / f"{name}.json").read_bytes(), type=dict[str, Any])


def question(body: Any, betas: tuple[str, ...] = ()) -> CountRequest:
    """The question as the proxy hands it over: canonical, without its model."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return CountRequest(canonical(members(compact(raw))), "2023-06-01", betas)


def endpoint(adapter: str, **params: Any) -> Endpoint:
    given: dict[str, Any] = {"model": MODEL, "api_key": Secret("k"), "vertex_project": "my-project"}
    return ADAPTERS[adapter].endpoint(Params(**given | params), {})


def ask(adapter: str, body: Any, **params: Any) -> UpstreamRequest:
    return ADAPTERS[adapter].request(question(body), endpoint(adapter, **params))


def user(*blocks: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}], **fields}


# Every capture of a form that the adapters send, and what decides where it goes.
SENT: dict[str, tuple[str, dict[str, str]]] = {
    **{f"genai_aistudio__{name}": ("gemini", {}) for name in ("01_simple", "03_multi_turn")},
    "genai_aistudio__05_image_base64": ("gemini", {}),
    "gapic_generativelanguage__contents__01_simple": ("gemini", {}),
    "gapic_generativelanguage__contents__03_multi_turn": ("gemini", {}),
    "gapic_generativelanguage__contents__05_image_base64": ("gemini", {}),
    "gapic_generativelanguage__generate_content_request__02_system": ("gemini", {}),
    "gapic_generativelanguage__generate_content_request__04_tools": ("gemini", {}),
    "genai_vertex__01_simple": ("vertex_gemini", {}),
    "genai_vertex__01_simple__global": ("vertex_gemini", {"vertex_location": "global"}),
    "genai_vertex__01_simple__us": ("vertex_gemini", {"vertex_location": "us"}),
    "genai_vertex__02_system": ("vertex_gemini", {}),
    "genai_vertex__03_multi_turn": ("vertex_gemini", {}),
    "genai_vertex__04_tools": ("vertex_gemini", {}),
    "genai_vertex__05_image_base64": ("vertex_gemini", {}),
}
NOT_SENT = {
    "genai_aistudio__02_system": "the SDK refuses; it has no generateContentRequest",
    "genai_aistudio__04_tools": "the SDK refuses; it has no generateContentRequest",
    "gapic_generativelanguage__generate_content_request__01_simple": "contents alone say the same",
    "gapic_generativelanguage__generate_content_request__05_image_base64": "contents alone do",
    "gapic_generativelanguage__generate_content_request__04_tools__parameters_schema": (
        "the older schema form, which cannot hold every JSON Schema"
    ),
}


def test_every_capture_is_compared_or_left_out_for_a_reason() -> None:
    captures = {path.stem for path in (WIRE / "captures").glob("g[ea]*.json")}
    assert captures == SENT.keys() | NOT_SENT.keys()
    assert all("sdk_refused" in load("captures", f"genai_aistudio__{n}") for n in _REFUSED)


_REFUSED = ("02_system", "04_tools")


@pytest.mark.parametrize("name", SENT)
def test_what_is_sent_is_what_googles_sdk_sends(name: str) -> None:
    capture = load("captures", name)
    adapter, params = SENT[name]
    sent = ask(adapter, load("inputs", capture["input"]), **params)
    # The SDK asks v1beta1; the method stands in v1 too (aiplatform v1 revision 20261106).
    assert sent.url == capture["production_url"].replace("/v1beta1/", "/v1/")
    assert sent.method == capture["method"]
    assert dict(sent.headers)["content-type"] == "application/json"
    assert msgspec.json.decode(sent.body) == without_freedoms(capture["body"])


_SPELLINGS = {"mime_type": "mimeType", "parameters_json_schema": "parametersJsonSchema"}


def without_freedoms(value: Any) -> Any:
    """Spell what proto-JSON lets an SDK choose in the one way that the adapters write."""
    if isinstance(value, list):
        return [without_freedoms(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {_SPELLINGS.get(name, name): without_freedoms(v) for name, v in value.items()}
    if "mimeType" in result:  # google-genai writes URL-safe base64
        data = base64.urlsafe_b64decode(result["data"].translate({43: "-", 47: "_"}))
        result["data"] = base64.b64encode(data).decode()
    if result.get("mode") == 1:  # GAPIC writes enums as numbers
        result["mode"] = "AUTO"
    if "systemInstruction" in result:  # google-genai adds a role, GAPIC does not
        result["systemInstruction"].pop("role", None)
    return result


EVERY_KIND = {
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "system", "content": "first"},
        {
            "role": "user",
            "content": [
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "d"},
                    "title": "t",
                    "context": "c",
                },
                {
                    "type": "search_result",
                    "title": "t",
                    "source": "https://example.com",
                    "content": [{"type": "text", "text": "found"}],
                },
            ],
        },
        {"role": "user", "content": "merged"},
        {"role": "system", "content": "between"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"n": 1.0}}],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "is_error": True,
                    "content": [
                        {"type": "text", "text": "a"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/gif", "data": "R0lG"},
                        },
                        {"type": "text", "text": "b"},
                    ],
                }
            ],
        },
    ],
    "tools": [{"name": "f", "input_schema": {"$schema": "x", "type": "object"}}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "disabled"},
}


def test_every_kind_of_input_has_its_place() -> None:
    sent = msgspec.json.decode(ask("gemini", EVERY_KIND).body)["generateContentRequest"]
    image = {"inlineData": {"mimeType": "image/gif", "data": "R0lG"}}
    result = {"id": "t1", "name": "f", "response": {"error": "a\nb"}, "parts": [image]}
    texts = ("t", "c", "d", "t", "https://example.com", "found", "merged")
    assert sent == {
        "model": "models/gemini-2.5-flash",
        "contents": [
            {"role": "user", "parts": [{"text": text} for text in texts]},
            {
                "role": "model",
                "parts": [{"functionCall": {"id": "t1", "name": "f", "args": {"n": 1.0}}}],
            },
            {"role": "user", "parts": [{"functionResponse": result}]},
        ],
        "systemInstruction": {"parts": [{"text": "s"}, {"text": "first"}, {"text": "between"}]},
        "tools": [
            {"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object"}}]}
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
    }


@pytest.mark.parametrize(
    ("name", "more"),
    [("gemini", {"disable_parallel_tool_use"}), ("vertex_gemini", {"tool_choice"})],
)
def test_what_is_left_out_is_named_once(name: str, more: set[str]) -> None:
    request = ADAPTERS[name].request(question(EVERY_KIND, ("a-1", "b-2")), endpoint(name))
    betas = {"anthropic-beta:a-1", "anthropic-beta:b-2"}
    always = {"$schema", "cache_control", "system_position", "thinking"}
    assert list(request.dropped) == sorted(always | betas | more)


def test_a_system_message_before_the_conversation_loses_no_position() -> None:
    body = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}
    assert ask("gemini", body).dropped == ()


def test_schemas_and_arguments_keep_order_and_spelling() -> None:
    schema = (
        b'{"type":"object","properties":{"z":{"maximum":1E+2},"a":{"const":1.0}},"required":[]}'
    )
    arguments = b'{"z":123456789012345678901234567890,"a":-0.0,"t":"\\u0041\\/"}'
    body = (
        b'{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f",'
        b'"input":%b}]}],"tools":[{"name":"f","input_schema":%b}]}' % (arguments, schema)
    )
    for name in ADAPTER_NAMES:
        sent = ask(name, body).body
        assert b'"args":' + arguments in sent
        assert b'"parametersJsonSchema":' + schema in sent


def test_base64_may_come_with_its_slashes_escaped() -> None:
    body = (
        b'{"messages":[{"role":"user","content":[{"type":"image","source":'
        b'{"type":"base64","media_type":"image/png","data":"\\/\\/\\/\\/"}}]}]}'
    )
    assert b'"data":"////"' in ask("gemini", body).body


@pytest.mark.parametrize("provider", ["gemini", "vertex_gemini"])
@pytest.mark.parametrize("url", ["https://example.com/a.png", "gs://bucket/a.png"])
def test_no_url_is_fetched_by_us_or_for_us(provider: str, url: str) -> None:
    body = user({"type": "document", "source": {"type": "url", "url": url}})
    with pytest.raises(CannotExpressError, match=r"^messages.0.content.0.source.url: URLs are not"):
        ask(provider, body)


def source(**fields: Any) -> dict[str, Any]:
    return user({"type": "image", "source": fields})


TOOL = {"name": "f", "input_schema": {"type": "object"}}
ONE_OF = "must be one of image/gif, image/jpeg, image/png, image/webp"
CANNOT = "cannot be counted by provider gemini"
REFUSALS: list[tuple[dict[str, Any], str]] = [
    (
        user({"type": "text", "text": "a"}, {"type": "server_tool_use", "id": "s"}),
        f"messages.0.content.1: block type 'server_tool_use' {CANNOT}",
    ),
    (user({"type": "Secret!"}), f"messages.0.content.0: this block type {CANNOT}"),
    (user({"type": "text", "text": "a", "new": 1}), f"messages.0.content.0.new: {CANNOT}"),
    (user({"type": "text", "text": "a", "Né": 1}), f"messages.0.content.0: a field {CANNOT}"),
    (user({"type": "text", "text": "a"}, mcp_servers=[{}]), f"mcp_servers: {CANNOT}"),
    (user({"type": "text", "text": "a"}, novelty=True), f"novelty: {CANNOT}"),
    (user({"type": "text", "text": 1}), "messages.0.content.0.text: must be a string"),
    (
        user({"type": "tool_result", "tool_use_id": "t"}),
        "messages.0.content.0.tool_use_id: no tool_use block before it has this id",
    ),
    (
        user(
            {"type": "tool_use", "id": "t", "name": "f", "input": {}},
            {"type": "tool_result", "tool_use_id": "t", "is_error": "no"},
        ),
        "messages.0.content.1.is_error: must be true or false",
    ),
    (
        user({"type": "tool_use", "id": "t", "name": "f", "input": []}),
        "messages.0.content.0.input: must be an object",
    ),
    (
        source(type="url", url="https://example.com/a.png"),
        "messages.0.content.0.source.url: URLs are not fetched; send the data as base64",
    ),
    (
        source(type="file", file_id="f"),
        f"messages.0.content.0.source: source type 'file' {CANNOT}",
    ),
    *(
        (
            source(type="base64", media_type="image/png", data=data),
            "messages.0.content.0.source.data: must be standard base64 with its padding",
        )
        for data in ("", "AA", "A===", "A=A=", "AA==\n", "-_-_", "data:image/png;base64,AAAA", "é")
    ),
    (
        source(type="base64", media_type="image/tiff", data="AAAA"),
        f"messages.0.content.0.source.media_type: {ONE_OF}",
    ),
    (
        user({"type": "text", "text": "a"}, tools=[{"type": "web_search_20250305"}]),
        f"tools.0: tool type 'web_search_20250305' {CANNOT}",
    ),
    (
        user({"type": "text", "text": "a"}, tools=[TOOL | {"defer_loading": True}]),
        f"tools.0.defer_loading: {CANNOT}",
    ),
    (
        user({"type": "text", "text": "a"}, tools=[TOOL | {"input_examples": [{}]}]),
        f"tools.0.input_examples: {CANNOT}",
    ),
    (
        user({"type": "text", "text": "a"}, tool_choice={"type": "first"}),
        f"tool_choice: tool_choice type 'first' {CANNOT}",
    ),
    (
        user({"type": "text", "text": "a"}, system=[{"type": "image"}]),
        f"system.0: block type 'image' {CANNOT}",
    ),
    (
        {"messages": [{"role": "Secret!", "content": "a"}]},
        "messages.0.role: must be user, assistant or system",
    ),
    (user({"type": "text", "text": ""}), "messages: hold nothing that can be counted"),
    (user({"type": "thinking", "thinking": "t"}), "messages: hold nothing that can be counted"),
    (
        {"messages": [{"role": "system", "content": "s"}]},
        "messages: hold nothing that can be counted",
    ),
]


@pytest.mark.parametrize(("body", "message"), REFUSALS)
def test_what_cannot_be_expressed_is_refused_by_its_place(
    body: dict[str, Any], message: str
) -> None:
    with pytest.raises(CannotExpressError) as refusal:
        ask("gemini", body)
    assert str(refusal.value) == message


@pytest.mark.parametrize("name", ["gemini", "vertex_gemini"])
@pytest.mark.parametrize("choice", ["auto", "any", "none"])
def test_only_ai_studio_takes_a_tool_choice(name: str, choice: str) -> None:
    tools = [{"name": "f", "input_schema": {}}]
    body = user({"type": "text", "text": "a"}, tool_choice={"type": choice})
    sent = ask(name, body | {"tools": tools})
    config = b'"toolConfig":{"functionCallingConfig":{"mode":"%b"}}' % choice.upper().encode()
    assert (config in sent.body) == (name == "gemini")
    assert ("tool_choice" in sent.dropped) == (name == "vertex_gemini")


@pytest.mark.parametrize("tools", [{}, {"tools": []}, {"tools": None}])
@pytest.mark.parametrize("name", ADAPTER_NAMES)
def test_a_choice_among_no_tools_is_left_out_and_named(name: str, tools: dict[str, Any]) -> None:
    body = user({"type": "text", "text": "a"}, tool_choice={"type": "auto"})
    sent = ask(name, body | tools)
    assert msgspec.json.decode(sent.body).keys() == {"contents"}
    assert sent.dropped == ("tool_choice",)
