"""Any conversation becomes a request that Google's own types take, and loses nothing on the way."""

import base64
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import CannotExpressError, CountRequest, MalformedUpstreamError, Params, Secret
from adapters.registry import ADAPTERS
from cache.key import canonical
from cache.strict_json import compact, members

Json = dict[str, Any]
NAMES = ("gemini", "vertex_gemini")


def ask(name: str, body: Json) -> Any:
    """Send through the proxy's canonical form; return the pieces of the request, and its drops."""
    params = Params(model="gemini-2.5-flash", api_key=Secret("k"), vertex_project="p1")
    adapter = ADAPTERS[name]
    question = CountRequest(canonical(members(compact(msgspec.json.encode(body)))), "2023-06-01")
    sent = adapter.request(question, adapter.endpoint(params, {}))
    body = msgspec.json.decode(sent.body)
    return body.get("generateContentRequest", body), sent.dropped


# What a conversation can hold.

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
words = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,20}", fullmatch=True)
encoded = st.binary(min_size=1, max_size=20).map(lambda data: base64.b64encode(data).decode())
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, json_values, max_size=3)


def block(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries(
        {"type": st.just(kind), **fields},
        optional={"cache_control": st.sampled_from([None, {"type": "ephemeral"}])},
    )


def data_source(*media_types: str) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries(
        {"type": st.just("base64"), "media_type": st.sampled_from(media_types), "data": encoded}
    )


text_blocks = block("text", text=texts)
image_blocks = block(
    "image", source=data_source("image/png", "image/jpeg", "image/gif", "image/webp")
)
document_sources = (
    data_source("application/pdf")
    | st.fixed_dictionaries(
        {"type": st.just("text"), "media_type": st.just("text/plain"), "data": texts}
    )
    | st.fixed_dictionaries(
        {
            "type": st.just("content"),
            "content": texts | st.lists(text_blocks | image_blocks, max_size=2),
        }
    )
)
document_blocks = block(
    "document", source=document_sources, title=st.none() | texts, context=st.none() | texts
)
search_blocks = block(
    "search_result", title=texts, source=texts, content=st.lists(text_blocks, max_size=2)
)
thinking_blocks = st.just({"type": "thinking", "thinking": "THOUGHT", "signature": "SIGNED"})
read_blocks = text_blocks | image_blocks | document_blocks | search_blocks


@st.composite
def conversations(draw: st.DrawFn) -> Json:
    """A request with at least one text, whose tool results all answer an earlier tool use."""
    messages: list[Json] = [{"role": "user", "content": draw(texts.filter(bool))}]
    for turn in range(draw(st.integers(0, 4))):
        role = draw(st.sampled_from(["user", "assistant", "system", "tool"]))
        if role == "tool":
            messages += draw(tool_turns(f"toolu_{turn}"))
        elif role == "system":
            messages.append({"role": role, "content": draw(texts | st.lists(text_blocks))})
        else:
            blocks = read_blocks | (thinking_blocks if role == "assistant" else st.nothing())
            content = draw(texts | st.lists(blocks, max_size=3))
            messages.append({"role": role, "content": content})
    body: Json = {"messages": messages}
    if draw(st.booleans()):
        body["system"] = draw(texts | st.lists(text_blocks, max_size=2))
    if draw(st.booleans()):
        body["tools"] = draw(st.lists(tools, max_size=3))
    if draw(st.booleans()):
        body["tool_choice"] = draw(tool_choices)
    return body


@st.composite
def tool_turns(draw: st.DrawFn, id_: str) -> list[Json]:
    use = {"type": "tool_use", "id": id_, "name": draw(words), "input": draw(objects)}
    answer: Json = {"type": "tool_result", "tool_use_id": id_}
    if draw(st.booleans()):
        answer["content"] = draw(texts | st.lists(read_blocks, max_size=3))
    if draw(st.booleans()):
        answer["is_error"] = draw(st.booleans())
    return [{"role": "assistant", "content": [use]}, {"role": "user", "content": [answer]}]


tools = st.fixed_dictionaries(
    {"name": words, "input_schema": objects},
    optional={"description": texts, "type": st.sampled_from(["custom", None])},
)
tool_choices = st.sampled_from([{"type": kind} for kind in ("auto", "any", "none")]) | words.map(
    lambda name: {"type": "tool", "name": name}
)


@pytest.fixture(scope="module")
def types() -> Any:
    reason = "google-genai is not installed: its types judge what Gemini takes"
    return pytest.importorskip("google.genai.types", reason=reason)


@settings(deadline=None)
@given(conversations())
def test_googles_own_types_take_every_request(types: Any, body: Json) -> None:
    for name in NAMES:
        sent, _ = ask(name, body)
        for turn in sent.pop("contents"):
            assert take(types.Content, turn)["parts"]
        if "systemInstruction" in sent:
            assert take(types.Content, sent.pop("systemInstruction"))["parts"]
        for declared in sent.pop("tools", []):
            assert take(types.Tool, declared)["functionDeclarations"]
        if "toolConfig" in sent:
            assert take(types.ToolConfig, sent.pop("toolConfig"))
        assert sent.keys() <= {"model"}


def take(type_: Any, value: Json) -> Json:
    """Let Google's type judge a value; it forbids fields that it does not know."""
    judged = type_.model_validate_json(msgspec.json.encode(value))
    return cast("Json", judged.model_dump(by_alias=True, exclude_none=True))


@settings(deadline=None)
@given(conversations())
def test_every_text_and_every_tool_name_arrives_in_its_order(body: Json) -> None:
    system, spoken = list(pieces(body.get("system", ""))), list[Piece]()
    tool_names: dict[str, str] = {}
    for message in body["messages"]:
        read = pieces(message["content"], tool_names)
        (system if message["role"] == "system" else spoken).extend(read)
    for name in NAMES:
        sent, dropped = ask(name, body)
        arrived = [part for turn in sent["contents"] for part in turn["parts"]]
        assert [piece for part in arrived for piece in arrived_pieces(part)] == spoken
        instruction = sent.get("systemInstruction", {"parts": []})["parts"]
        assert [("text", part["text"]) for part in instruction] == system
        declared = [one for t in sent.get("tools", []) for one in t["functionDeclarations"]]
        wanted = body.get("tools", [])
        assert [one["name"] for one in declared] == [one["name"] for one in wanted]
        assert [one.get("description") for one in declared] == [
            one.get("description") for one in wanted
        ]
        assert b"SIGNED" not in msgspec.json.encode(sent)
        assert ("thinking" in dropped) == (b"SIGNED" in msgspec.json.encode(body))


Piece = tuple[str, Any]
"""What a model reads: a kind, and what it says."""


def pieces(content: Any, tool_names: dict[str, str] | None = None) -> Iterator[Piece]:
    """List what a model would read of an Anthropic content."""
    names = {} if tool_names is None else tool_names
    blocks: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for block in blocks:
        match block:
            case {"type": "text", "text": text}:
                yield from said(text)
            case {"type": "tool_use", "id": id_, "name": name, "input": arguments}:
                names[id_] = name
                yield "call", (name, arguments)
            case {"type": "tool_result", "tool_use_id": id_}:
                inner = list(pieces(block.get("content", "")))
                output = "\n".join(text for kind, text in inner if kind == "text")
                yield "result", (names[id_], bool(block.get("is_error")), output)
                yield from (piece for piece in inner if piece[0] != "text")
            case {"type": "search_result", "title": title, "source": source}:
                yield from said(title, source)
                yield from pieces(block["content"])
            case {"type": "document" | "image", "source": source}:
                yield from said(block.get("title"), block.get("context"))
                yield from read_source(source)


def read_source(source: Any) -> Iterator[Piece]:
    match source:
        case {"type": "content", "content": content}:
            yield from pieces(content)
        case {"type": "text", "data": text}:
            yield from said(text)
        case {"type": "base64", "media_type": media_type, "data": data}:
            yield "media", (media_type, data)


def said(*texts: str | None) -> Iterator[Piece]:
    return (("text", text) for text in texts if text)


def arrived_pieces(part: Any) -> Iterator[Piece]:
    """List what a model would read of a Gemini part."""
    match part:
        case {"text": text}:
            yield "text", text
        case {"inlineData": {"mimeType": media_type, "data": data}}:
            yield "media", (media_type, data)
        case {"functionCall": {"name": name, "args": arguments}}:
            yield "call", (name, arguments)
        case {"functionResponse": response}:
            ((key, output),) = response["response"].items()
            yield "result", (response["name"], key == "error", output)
            for inner in response.get("parts", []):
                yield from arrived_pieces(inner)


fields = st.sampled_from(
    ["type", "role", "content", "text", "source", "data", "id", "name", "input", "tool_use_id"]
)
kinds = st.sampled_from(
    ["user", "assistant", "system", "text", "image", "document", "tool_use", "tool_result", "x y"]
)
shapes = st.recursive(
    json_values | kinds,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields | texts, inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["messages", "system", "tools", "tool_choice"]) | texts, shapes, max_size=4
    )
)
def test_any_json_is_asked_or_refused_and_never_empty(body: Json) -> None:
    body.setdefault("messages", [{"role": "user", "content": "a"}])
    body.pop("model", None)
    for name in NAMES:
        try:
            sent, _ = ask(name, body)
        except CannotExpressError:
            continue
        assert sent["contents"]
        assert all(turn["parts"] for turn in sent["contents"])


@settings(deadline=None)
@given(texts.filter(lambda text: len(text) > 2), st.sampled_from(["type", "field", "id", "url"]))
def test_a_refusal_repeats_no_content(secret: str, where: str) -> None:
    secret = f"§{secret}"
    block = {
        "type": {"type": secret},
        "field": {"type": "text", "text": "a", secret: 1},
        "id": {"type": "tool_result", "tool_use_id": secret},
        "url": {"type": "image", "source": {"type": "url", "url": secret}},
    }[where]
    with pytest.raises(CannotExpressError) as refusal:
        ask("gemini", {"messages": [{"role": "user", "content": [block]}]})
    assert "§" not in str(refusal.value)


@settings(deadline=None)
@given(st.binary(max_size=60) | json_values.map(msgspec.json.encode), st.integers(400, 599))
def test_any_reply_is_a_possible_count_or_an_error(reply: bytes, status: int) -> None:
    for name in NAMES:
        try:
            count = ADAPTERS[name].count(b'{"totalTokens":%b}' % reply)
        except MalformedUpstreamError:
            pass
        else:
            assert 1 <= count.input_tokens <= 10**9
        assert 400 <= ADAPTERS[name].error(status, {}, reply).status <= 599
