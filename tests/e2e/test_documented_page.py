"""LiteLLM's page on ``/v1/messages/count_tokens``, followed from top to bottom by a new user.

The page's own configuration, with nothing added but keys and base addresses, and an entry for each
of the two rows of its table that the configuration leaves out; the page's own commands, with
nothing changed but the port.
"""

import json
import os
import shutil
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from bench.provider import Request, SimulatedProvider, count_tokens
from tests.e2e.exchange import question as unheard
from tests.e2e.stubs import Login
from tests.server import Tallygate

CONFIGURATION = """
model_list:
  - model_name: claude-3-5-sonnet
    litellm_params:
      model: anthropic/claude-3-5-sonnet-20241022
      api_key: os.environ/ANTHROPIC_API_KEY
  - model_name: claude-vertex
    litellm_params:
      model: vertex_ai/claude-3-5-sonnet-v2@20241022
      vertex_project: my-project
      vertex_location: us-east5
  - model_name: claude-bedrock
    litellm_params:
      model: bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0
      aws_region_name: us-west-2
"""
NOT_ON_THE_PAGE = """
  - model_name: gemini-flash
    litellm_params:
      model: gemini/gemini-2.5-flash
      api_key: os.environ/GEMINI_API_KEY
  - model_name: gemini-vertex
    litellm_params:
      model: vertex_ai/gemini-2.5-flash
      vertex_project: my-project
      vertex_location: us-central1
"""
CURL = """curl -X POST "http://localhost:4000/v1/messages/count_tokens" \\
-H "Content-Type: application/json" \\
-H "Authorization: Bearer sk-1234" \\
-d '{
"model": "%s",
"messages": [
%s
]
}'"""
PASS_THROUGH = """curl --request POST \\
--url http://0.0.0.0:4000/anthropic/v1/messages/count_tokens \\
--header "x-api-key: $LITELLM_API_KEY" \\
--header "anthropic-version: 2023-06-01" \\
--header "anthropic-beta: token-counting-2024-11-01" \\
--header "content-type: application/json" \\
--data '{
"model": "claude-3-5-sonnet-20241022",
"messages": [
{"role": "user", "content": "Hello, world"}
]
}'"""
HTTPX = """import httpx
response = httpx.post(
"http://localhost:4000/v1/messages/count_tokens",
headers={
"Content-Type": "application/json",
"Authorization": "Bearer sk-1234"
},
json={
"model": "claude-3-5-sonnet-20241022",
"messages": [
{"role": "user", "content": "Hello, how are you?"}
]
}
)
print(response.json())
"""
DATED = "claude-3-5-sonnet-20241022"
HELLO = '{"role": "user", "content": "Hello, how are you?"}'
WORLD = '{"role": "user", "content": "Hello, world!"}'
HAIKU = (
    '{"role": "user", "content": "You are a helpful assistant. '
    'Please help me write a haiku about programming."}'
)
TURNS = """{"role": "user", "content": "What is the capital of France?"},
{"role": "assistant", "content": "The capital of France is Paris."},
{"role": "user", "content": "What is its population?"}"""
VERTEX = "/v1/projects/my-project/locations/{}/publishers/{}"
GOOGLES = {"contents": [{"role": "user", "parts": [{"text": "Hello, world!"}]}]}

# The table's rows: the model to ask for, whose count it is, the model that was counted with, where
# the provider was asked, and what for, but for the question itself.
ROWS = {
    "Anthropic": ("claude-3-5-sonnet", "anthropic", DATED, "/v1/messages/count_tokens"),
    "Vertex AI (Claude)": (
        "claude-vertex",
        "vertex_claude",
        "claude-3-5-sonnet-v2@20241022",
        VERTEX.format("us-east5", "anthropic/models/count-tokens:rawPredict"),
    ),
    "Bedrock (Claude)": (
        "claude-bedrock",
        "bedrock",
        "anthropic.claude-3-5-sonnet-20241022-v2:0",
        "/model/anthropic.claude-3-5-sonnet-20241022-v2%3A0/count-tokens",
    ),
    "Gemini": (
        "gemini-flash",
        "gemini",
        "gemini-2.5-flash",
        "/v1beta/models/gemini-2.5-flash:countTokens",
    ),
    "Vertex AI (Gemini)": (
        "gemini-vertex",
        "vertex_gemini",
        "gemini-2.5-flash",
        VERTEX.format("us-central1", "google/models/gemini-2.5-flash:countTokens"),
    ),
}


@pytest.fixture(scope="module")
def server(
    provider: SimulatedProvider,
    login: Login,
    start: Callable[..., Tallygate],
    tmp_path_factory: pytest.TempPathFactory,
) -> Tallygate:
    """``sanic app.main --workers 2``, keys in the environment, as a new user starts it."""
    account = tmp_path_factory.mktemp("account") / "account.json"
    account.write_text(json.dumps(login.service_account()))
    config = yaml.safe_load(CONFIGURATION + NOT_ON_THE_PAGE)
    for entry in config["model_list"]:
        entry["litellm_params"]["api_base"] = provider.url
    return start(
        config | {"general_settings": {"master_key": "sk-1234"}},
        command=(str(Path(sys.executable).with_name("sanic")), "app.main"),
        workers=2,
        environ={
            "ANTHROPIC_API_KEY": "sk-ant-api03-a-user",
            "GEMINI_API_KEY": "AIza-a-user",
            "GOOGLE_APPLICATION_CREDENTIALS": str(account),
            "AWS_ACCESS_KEY_ID": "AKIAUSER",
            "AWS_SECRET_ACCESS_KEY": "secret",
        },
    )


def run(server: Tallygate, command: str) -> tuple[dict[str, str], Any]:
    """Run a command of the page; return the reply's headers and body."""
    if not shutil.which("curl"):
        pytest.skip("curl is missing")
    here = f"127.0.0.1:{server.port}"
    for host in ("localhost:4000", "0.0.0.0:4000"):
        command = command.replace(host, here)
    assert here in command
    ran = subprocess.run(
        ["sh", "-ec", command.replace("curl ", "curl --silent --show-error --include ", 1)],
        env={"PATH": os.environ["PATH"], "LITELLM_API_KEY": "sk-1234"},
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    head, _, body = ran.stdout.replace("\r\n", "\n").partition("\n\n")
    status, *lines = head.split("\n")
    assert status.split()[1] == "200", ran.stdout
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return headers, json.loads(body)


def question(model: str, messages: str) -> dict[str, Any]:
    return {"model": model, "messages": json.loads(f"[{messages}]")}


def body_of(provider_name: str, sent: Request) -> dict[str, Any]:
    """What the provider was asked, without what its own form adds to the question."""
    body: dict[str, Any] = json.loads(sent.body)
    if provider_name == "bedrock":
        body = json.loads(b64decode(body["input"]["invokeModel"]["body"]))
        assert body.pop("anthropic_version") == "bedrock-2023-05-31"
        assert body.pop("max_tokens") == 1
    if provider_name == "vertex_claude":
        assert body.pop("anthropic_version") == "vertex-2023-10-16"
    return body


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_table_is_counted_by_its_provider(
    server: Tallygate, provider: SimulatedProvider, row: str
) -> None:
    alias, name, model, target = ROWS[row]
    headers, body = run(server, CURL % (alias, WORLD))
    (sent,) = provider.requests
    assert sent.target == target
    asked = body_of(name, sent)
    expected: dict[str, Any] = GOOGLES if "gemini" in name else question(model, WORLD)
    if name == "bedrock":
        del expected["model"]
    assert asked == expected
    assert body == {"input_tokens": count_tokens(asked)}
    assert headers["x-tallygate-source"] == "live"
    assert headers["x-tallygate-provider"] == name
    assert headers["x-tallygate-model"] == model
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_remembered(server: Tallygate, provider: SimulatedProvider, row: str) -> None:
    alias, name, *_ = ROWS[row]
    asked = unheard(alias)
    bearer = {"authorization": "Bearer sk-1234"}
    # One connection is one worker's, who knows what it has answered.
    with httpx.Client(base_url=server.url, headers=bearer) as client:
        replies = [client.post("/v1/messages/count_tokens", json=asked) for _ in range(2)]
    assert [reply.headers["x-tallygate-source"] for reply in replies] == ["live", "cache"]
    assert [reply.headers["x-tallygate-provider"] for reply in replies] == [name, name]
    (sent,) = provider.requests
    tokens = count_tokens(body_of(name, sent))
    assert [reply.json() for reply in replies] == [{"input_tokens": tokens}] * 2


def test_the_quick_start_asks_by_the_providers_own_id(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    """Its expected response is 14; the model stands in the configuration under another name."""
    headers, body = run(server, CURL % (DATED, HELLO))
    assert body == {"input_tokens": 14}
    (sent,) = provider.requests
    assert sent.headers["x-api-key"] == "sk-ant-api03-a-user"
    assert json.loads(sent.body) == question(DATED, HELLO)
    assert headers["x-tallygate-provider"] == "anthropic"
    assert headers["x-tallygate-model"] == DATED


def test_the_quick_start_in_python(server: Tallygate) -> None:
    script = HTTPX.replace("localhost:4000", f"127.0.0.1:{server.port}")
    ran = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=30
    )
    assert ran.stdout == "{'input_tokens': 14}\n"


@pytest.mark.parametrize("messages", [HAIKU, TURNS])
def test_the_examples(server: Tallygate, provider: SimulatedProvider, messages: str) -> None:
    _, body = run(server, CURL % (DATED, messages))
    asked = question(DATED, messages)
    assert body == {"input_tokens": count_tokens(asked)}
    (sent,) = provider.requests
    assert json.loads(sent.body) == asked


def test_the_pass_through(server: Tallygate, provider: SimulatedProvider) -> None:
    headers, body = run(server, PASS_THROUGH)
    asked = question(DATED, '{"role": "user", "content": "Hello, world"}')
    (sent,) = provider.requests
    assert (sent.target, json.loads(sent.body)) == ("/v1/messages/count_tokens", asked)
    assert sent.headers["anthropic-version"] == "2023-06-01"
    assert sent.headers["anthropic-beta"] == "token-counting-2024-11-01"
    assert sent.headers["x-api-key"] == "sk-ant-api03-a-user"
    # A call with a beta is answered with the field that betas may fill.
    assert body == {"input_tokens": count_tokens(asked), "context_management": None}
    assert headers["x-tallygate-source"] == "live"
    assert headers["x-tallygate-provider"] == "anthropic"
