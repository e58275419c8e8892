"""A field that is written twice: Gemini would be asked about the last one alone."""

import pytest

from adapters.base import CannotExpressError, CountRequest, Params, Secret, UpstreamRequest
from adapters.registry import ADAPTERS
from cache.key import canonical
from cache.strict_json import compact, members

NAMES = ("gemini", "vertex_gemini")


def ask(name: str, body: bytes) -> UpstreamRequest:
    params = Params(model="gemini-2.5-flash", api_key=Secret("k"), vertex_project="p1")
    question = CountRequest(canonical(members(compact(body))), "2023-06-01")
    return ADAPTERS[name].request(question, ADAPTERS[name].endpoint(params, {}))


def user(*blocks: bytes, more: bytes = b"") -> bytes:
    return b'{"messages":[{"role":"user","content":[%b]}]%b}' % (b",".join(blocks), more)


TEXT = b'{"type":"text","text":"a"}'
CALL = b'{"type":"tool_use","id":"t","name":"f","input":{}}'
IMAGE = b'{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}'
RESULT = b'{"type":"tool_result","tool_use_id":"t","content":[%b]}'
TOOL = b'"tools":[{"name":"f",%b}]'
TWICE = {
    "text": (user(b'{"type":"text","text":"a long text","text":"a"}'), "messages.0.content"),
    "escaped": (user(b'{"type":"text","text":"a","\\u0074ext":"b"}'), "messages.0.content"),
    "kind": (user(TEXT, b'{"type":"image","type":"text","text":"a"}'), "messages.0.content"),
    "call": (user(TEXT, CALL.replace(b'"name"', b'"name":"g","name"')), "messages.0.content"),
    "data": (
        user(IMAGE.replace(b'"data"', b'"data":"AAAA","data"')),
        "messages.0.content.0.source",
    ),
    "result": (
        user(CALL, RESULT % TEXT.replace(b'"text":', b'"text":"b","text":')),
        "messages.0.content.1.content",
    ),
    "content": (b'{"messages":[{"role":"user","content":"long","content":"a"}]}', "messages"),
    "tool": (
        user(TEXT, more=b"," + TOOL % b'"description":"a","description":"b","input_schema":{}'),
        "tools",
    ),
    "schema": (
        user(TEXT, more=b"," + TOOL % b'"input_schema":{"$schema":"x","enum":["a"],"enum":[]}'),
        "tools.0.input_schema",
    ),
    "schema, equal": (
        user(TEXT, more=b"," + TOOL % b'"input_schema":{"$schema":"x","a":1,"a":1}'),
        "tools.0.input_schema",
    ),
    "schema, longer": (
        user(TEXT, more=b"," + TOOL % b'"input_schema":{"$schema":"x","a":12,"a":1}'),
        "tools.0.input_schema",
    ),
    "schema, escaped": (
        user(TEXT, more=b"," + TOOL % b'"input_schema":{"a":"12","\\u0061":1,"$schema":"x"}'),
        "tools.0.input_schema",
    ),
    "schema, its dialect": (
        user(TEXT, more=b"," + TOOL % b'"input_schema":{"$schema":"y","a":1,"$schema":"x"}'),
        "tools.0.input_schema",
    ),
    "system": (user(TEXT, more=b',"system":[{"type":"text","text":"s","text":"t"}]'), "system"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", TWICE)
def test_no_text_hides_behind_another_of_the_same_name(name: str, case: str) -> None:
    body, place = TWICE[case]
    with pytest.raises(CannotExpressError) as refusal:
        ask(name, body)
    escapes = "" if case.startswith("schema") else ", or its name with escapes"
    assert str(refusal.value) == f"{place}: a field is written twice{escapes}"


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_script_are_no_fault(name: str) -> None:
    schema = '"type":"object","naïve":{"é":1}'.encode()
    null = b"{" + '"é":null,'.encode() + TEXT[1:]
    sent = ask(
        name, user(null, TEXT, more=b"," + TOOL % b'"input_schema":{"$schema":"x",%b}' % schema)
    )
    assert b'"parametersJsonSchema":{%b}' % schema in sent.body


@pytest.mark.parametrize("name", NAMES)
def test_what_goes_on_as_it_is_may_say_a_thing_twice(name: str) -> None:
    """Google's own parser judges arguments and schemas: they arrive as they were written."""
    odd = b'{"a":1,"a":2,"\\u0061":3}'
    call = CALL.replace(b"{}", odd)
    sent = ask(name, user(TEXT, call, more=b"," + TOOL % b'"input_schema":%b' % odd))
    assert sent.body.count(odd) == 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("schema", "kept"),
    [
        (b'{"$schema":"x","t\\u0079pe":"object"}', b'{"t\\u0079pe":"object"}'),
        (
            b'{"a\\"":{"$schema":1},"$schema":"x","\\u00e9":[1]}',
            b'{"a\\"":{"$schema":1},"\\u00e9":[1]}',
        ),
        (b'{"$schema":"x"}', b"{}"),
        (b'{"\\u0024schema":"\\"$schema\\""}', b'{"\\u0024schema":"\\"$schema\\""}'),
        (b'{"a":{"$schema":"x"}}', b'{"a":{"$schema":"x"}}'),
    ],
)
def test_a_schema_keeps_the_spelling_of_its_names(name: str, schema: bytes, kept: bytes) -> None:
    sent = ask(name, user(TEXT, more=b"," + TOOL % b'"input_schema":%b' % schema))
    assert b'"parametersJsonSchema":%b}' % kept in sent.body
    assert ("$schema" in sent.dropped) == (schema != kept)
