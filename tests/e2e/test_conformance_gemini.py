"""Gemini, on AI Studio and on Vertex AI: rows 76 to 81, and what rows 11, 51, 54, 55 and 57 say of
it."""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import COUNT, asked, counted, model_list, question, refused
from tests.e2e.stubs import Login, WayOut
from tests.server import Tallygate

STUDIO = "/v1beta/models/gemini-2.5-flash:countTokens"
VERTEX = (
    "/v1/projects/my-project/locations/us-central1"
    "/publishers/google/models/gemini-2.5-flash:countTokens"
)


@pytest.fixture(scope="module")
def server(
    start: Callable[..., Tallygate], provider: SimulatedProvider, login: Login, way_out: WayOut
) -> Tallygate:
    """One deployment on either platform, and one for each fault."""
    studio = {"model": "gemini/gemini-2.5-flash", "api_key": "gemini-key"}
    vertex = {
        "model": "vertex_ai/gemini-2.5-flash",
        "vertex_project": "my-project",
        "vertex_location": "us-central1",
        "vertex_credentials": msgspec.json.encode(login.service_account()).decode(),
    }
    here = {"api_base": provider.url}
    models = {"gemini": studio | here, "vertex-gemini": vertex | here}
    models |= {"gemini-at-home": studio, "vertex-gemini-at-home": vertex}
    models |= {f"fails-{name}": studio | here for name in ERRORS}
    models |= {f"empty-{name}": given | here for name, given in (("s", studio), ("v", vertex))}
    return start({"model_list": model_list(**models)}, environ={"HTTPS_PROXY": way_out.url})


@pytest.fixture(autouse=True)
def _counting(provider: SimulatedProvider, _willing: None) -> None:
    provider.behave(body={"totalTokens": 77, "promptTokensDetails": []})


def _content(sent: dict[str, Any]) -> dict[str, Any]:
    """Take the content out of AI Studio's envelope, where there is one."""
    inner: dict[str, Any] = sent.get("generateContentRequest", sent)
    return inner


@pytest.mark.parametrize(
    ("alias", "target", "provider_name"),
    [("gemini", STUDIO, "gemini"), ("vertex-gemini", VERTEX, "vertex_gemini")],
)
def test_row_11_aliases(
    client: httpx.Client,
    provider: SimulatedProvider,
    alias: str,
    target: str,
    provider_name: str,
) -> None:
    """Each alias is counted by its platform's own counting call."""
    body = question(alias)
    response = client.post(COUNT, json=body)
    assert response.json() == {"input_tokens": 77}
    assert response.headers["x-tallygate-provider"] == provider_name
    (sent,) = provider.requests
    assert sent.target == target
    text = body["messages"][0]["content"]
    assert _content(asked(provider))["contents"] == [{"role": "user", "parts": [{"text": text}]}]


def test_row_11_keys_and_hosts(
    client: httpx.Client, provider: SimulatedProvider, way_out: WayOut
) -> None:
    """AI Studio takes a key, Vertex AI a token; each has its own address."""
    way_out.hosts.clear()
    for alias in ("gemini-at-home", "vertex-gemini-at-home"):
        refused(client.post(COUNT, json=question(alias)), 502, "api_error")
    assert set(way_out.hosts) == {
        "generativelanguage.googleapis.com:443",
        "us-central1-aiplatform.googleapis.com:443",
    }
    for alias in ("gemini", "vertex-gemini"):
        counted(client.post(COUNT, json=question(alias)))
    studio, vertex = provider.requests
    assert studio.headers["x-goog-api-key"] == "gemini-key"
    assert "gemini-key" not in studio.target
    assert vertex.headers["authorization"].startswith("Bearer token-")


def _google(code: int, status: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": "too odd", "status": status, "details": details}}


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36s"}
BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
ERRORS: dict[str, tuple[int, Any, int, str]] = {
    "object": (400, _google(400, "INVALID_ARGUMENT"), 400, "invalid_request_error"),
    "list": (400, [_google(400, "INVALID_ARGUMENT")], 400, "invalid_request_error"),
    "missing": (404, _google(404, "NOT_FOUND"), 404, "not_found_error"),
    "internal": (500, _google(500, "INTERNAL"), 500, "api_error"),
    "unavailable": (503, _google(503, "UNAVAILABLE"), 529, "overloaded_error"),
    "html": (502, "<html>bad gateway</html>", 502, "api_error"),
    "limited": (429, _google(429, "RESOURCE_EXHAUSTED", RETRY), 429, "rate_limit_error"),
    "key": (400, _google(400, "INVALID_ARGUMENT", BAD_KEY), 502, "api_error"),
    "denied": (403, _google(403, "PERMISSION_DENIED"), 502, "api_error"),
}


def _fail(client: httpx.Client, provider: SimulatedProvider, name: str) -> httpx.Response:
    upstream_status, body, _, _ = ERRORS[name]
    provider.clear()
    provider.behave(status=upstream_status, body=body)
    return client.post(COUNT, json=question(f"fails-{name}"))


def test_row_51_retry_delay(client: httpx.Client, provider: SimulatedProvider) -> None:
    """Google's ``retryDelay`` becomes ``retry-after``."""
    response = _fail(client, provider, "limited")
    refused(response, 429, "rate_limit_error")
    assert response.headers["retry-after"] == "36"


@pytest.mark.parametrize("name", ["s", "v"])
@pytest.mark.parametrize("reply", ["{}", '{"totalTokens":0}', '{"totalTokens":"7"}', "[]"])
def test_row_54_no_count(
    client: httpx.Client, provider: SimulatedProvider, name: str, reply: str
) -> None:
    """Google leaves zeros out: a reply without a total is an error, never a 0."""
    provider.clear()
    provider.behave(status=200, body=reply)
    refused(client.post(COUNT, json=question(f"empty-{name}")), 502, "api_error")


@pytest.mark.parametrize("name", ERRORS)
def test_row_55_errors_of_google(
    client: httpx.Client, provider: SimulatedProvider, name: str
) -> None:
    """Google's error, an object or a list with one, becomes Anthropic's; its text stays plain."""
    _, _, status, type_ = ERRORS[name]
    message = refused(_fail(client, provider, name), status, type_)
    assert "{" not in message
    assert "Google" not in message
    if status in {400, 404}:
        assert "too odd" in message


def test_row_57_bad_key(client: httpx.Client, provider: SimulatedProvider) -> None:
    """Google's 400 for a bad key is the operator's fault, not the caller's."""
    response = _fail(client, provider, "key")
    message = refused(response, 502, "api_error")
    assert message.startswith("upstream provider rejected the proxy's request")
    assert response.headers["x-should-retry"] == "false"


SYSTEM_AND_TOOLS: dict[str, Any] = {
    "system": [{"type": "text", "text": "Be brief."}],
    "tools": [
        {"name": "get_weather", "description": "d", "input_schema": {"type": "object", "b": 1}}
    ],
}


@pytest.mark.parametrize("part", ["system", "tools"])
def test_row_76_envelope(client: httpx.Client, provider: SimulatedProvider, part: str) -> None:
    """System and tools count only within ``generateContentRequest``, which names the model."""
    counted(client.post(COUNT, json=question("gemini", **{part: SYSTEM_AND_TOOLS[part]})))
    sent = asked(provider)
    assert set(sent) == {"generateContentRequest"}
    inner = sent["generateContentRequest"]
    assert inner["model"] == "models/gemini-2.5-flash"
    if part == "system":
        assert inner["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    else:
        (function,) = inner["tools"][0]["functionDeclarations"]
        assert function["name"] == "get_weather"
        assert function["description"] == "d"
        assert {"type": "object", "b": 1} in function.values()


@pytest.mark.parametrize("alias", ["gemini", "vertex-gemini"])
def test_row_77_functions(client: httpx.Client, provider: SimulatedProvider, alias: str) -> None:
    """A tool's use and its result become a function's call and response, by the tool's name."""
    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"at": "Rome"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "15 degrees"}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    counted(client.post(COUNT, json=question(alias, messages=messages)))
    _, call, response = _content(asked(provider))["contents"]
    assert call["role"] == "model"
    called = call["parts"][0]["functionCall"]
    assert (called["name"], called["args"]) == ("get_weather", {"at": "Rome"})
    answered = response["parts"][0]["functionResponse"]
    assert answered["name"] == "get_weather"
    assert "15 degrees" in str(answered["response"])


@pytest.mark.parametrize("alias", ["gemini", "vertex-gemini"])
def test_row_78_images_are_not_fetched(
    client: httpx.Client, provider: SimulatedProvider, alias: str
) -> None:
    """An image that stands elsewhere is refused by its path; the proxy fetches nothing."""
    image = {"type": "image", "source": {"type": "url", "url": f"{provider.url}/image.png"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "?"}, image]}]
    response = client.post(COUNT, json=question(alias, messages=messages))
    assert "messages.0.content.1" in refused(response, 400, "invalid_request_error")
    assert provider.calls == 0


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        (
            {
                "messages": [
                    {"role": "user", "content": "?"},
                    {
                        "role": "assistant",
                        "content": [
                            {"type": "server_tool_use", "id": "s", "name": "n", "input": {}}
                        ],
                    },
                ]
            },
            "messages.1.content.0",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "brand_new"}]}]}, "messages.0"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0"),
    ],
    ids=["server-tool-use", "unknown-block", "server-tool"],
)
@pytest.mark.parametrize("alias", ["gemini", "vertex-gemini"])
def test_row_79_what_has_no_form(
    client: httpx.Client,
    provider: SimulatedProvider,
    alias: str,
    fields: dict[str, Any],
    path: str,
) -> None:
    """What Gemini has no form for is a 400 that names its place."""
    response = client.post(COUNT, json=question(alias, **fields))
    assert path in refused(response, 400, "invalid_request_error")
    assert provider.calls == 0


def test_row_79_what_is_left_out_is_told(client: httpx.Client, provider: SimulatedProvider) -> None:
    """What carries no tokens may be left out, and a header says so."""
    response = client.post(
        COUNT, json=question("gemini", thinking={"type": "enabled", "budget_tokens": 1024})
    )
    counted(response)
    assert "thinking" in response.headers["x-tallygate-dropped"]
    assert "thinking" not in provider.requests[0].body.decode()


def test_row_80_plain_install(client: httpx.Client) -> None:
    """Nothing of Google's own client library is needed to count."""
    assert counted(client.post(COUNT, json=question("gemini"))) == 77
    program = "import sys, app.workers; sys.exit('google.genai' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert not [name for name in project["dependencies"] if "genai" in name]


def test_row_81_flat_on_vertex(client: httpx.Client, provider: SimulatedProvider) -> None:
    """Vertex AI's method is flat, and knows neither ``toolConfig`` nor safety, cache or labels."""
    fields = SYSTEM_AND_TOOLS | {"tool_choice": {"type": "any"}}
    counted(client.post(COUNT, json=question("vertex-gemini", **fields)))
    assert set(asked(provider)) == {"contents", "systemInstruction", "tools"}
