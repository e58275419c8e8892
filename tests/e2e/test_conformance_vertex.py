"""Claude on Vertex AI: rows 72 to 75 and 82, and what rows 11, 12, 13 and 34 say of it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any

import httpx
import msgspec
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import (
    COUNT,
    asked,
    counted,
    model_list,
    question,
    refused,
    until,
)
from tests.e2e.stubs import Login, WayOut
from tests.server import Tallygate

DOCUMENTED = "vertex_ai/claude-3-5-sonnet-v2@20241022"
PROJECT = {"vertex_project": "my-project", "vertex_location": "us-east5"}
IDS = {
    "id": ("claude-sonnet-4-6", {"claude-sonnet-4-6"}),
    "default": ("claude-sonnet-4-6@default", {"claude-sonnet-4-6"}),
    "latest": ("claude-sonnet-4-6@latest", {"claude-sonnet-4-6"}),
    # LiteLLM takes the date off, the documentation of the provider keeps it: either counts.
    "dated": (
        "claude-3-5-sonnet-v2@20241022",
        {"claude-3-5-sonnet-v2@20241022", "claude-3-5-sonnet-v2"},
    ),
}
LOCATIONS = {
    "us-east5": "us-east5-aiplatform.googleapis.com:443",
    "europe-west1": "europe-west1-aiplatform.googleapis.com:443",
    "global": "aiplatform.googleapis.com:443",
    "us": "aiplatform.us.rep.googleapis.com:443",
    "eu": "aiplatform.eu.rep.googleapis.com:443",
}


@pytest.fixture(scope="module")
def server(
    start: Callable[..., Tallygate],
    provider: SimulatedProvider,
    login: Login,
    way_out: WayOut,
    tmp_path_factory: pytest.TempPathFactory,
) -> Tallygate:
    """The documented entry, ids and locations by the handful, and every form of credential."""
    account = login.service_account()
    text = msgspec.json.encode(account).decode()
    files = tmp_path_factory.mktemp("credentials")
    for name in ("file.json", "default.json"):
        (files / name).write_text(text)
    here = {"api_base": provider.url}
    given = {"vertex_credentials": text}
    models: dict[str, dict[str, Any]] = {
        "claude-vertex": {"model": DOCUMENTED} | PROJECT | here | given,
        "by-file": {"model": DOCUMENTED, "vertex_credentials": str(files / "file.json")}
        | PROJECT
        | here,
        "by-environ": {"model": DOCUMENTED, "vertex_credentials": "os.environ/THE_ACCOUNT"}
        | PROJECT
        | here,
        "by-default": {"model": DOCUMENTED} | PROJECT | here,
        "undated": {"model": DOCUMENTED, "count_without_date": True} | PROJECT | here | given,
        "projectless": {"model": DOCUMENTED, "vertex_location": "us-east5"} | here | given,
        "overridden": {"model": DOCUMENTED, "vertex_count_tokens_location": "europe-west1"}
        | PROJECT
        | here
        | given,
    }
    for name, (model, _) in IDS.items():
        models[name] = {"model": f"vertex_ai/{model}"} | PROJECT | here | given
    for location in LOCATIONS:
        place = PROJECT | {"vertex_location": location}
        models[f"in-{location}"] = {"model": DOCUMENTED} | place | here | given
        models[f"home-{location}"] = {"model": DOCUMENTED} | place | given
    for number in range(3):
        own = login.service_account() | {"private_key_id": f"own-{number}"}
        models[f"own-account-{number}"] = (
            {"model": DOCUMENTED, "vertex_credentials": msgspec.json.encode(own).decode()}
            | PROJECT
            | here
        )
    return start(
        {"model_list": model_list(**models)},
        environ={
            "HTTPS_PROXY": way_out.url,
            "THE_ACCOUNT": text,
            "GOOGLE_APPLICATION_CREDENTIALS": str(files / "default.json"),
        },
    )


@pytest.fixture(autouse=True)
def _counting(provider: SimulatedProvider, _willing: None) -> None:
    provider.behave(body={"input_tokens": 77})


def _path(location: str = "us-east5", project: str = "my-project") -> str:
    return (
        f"/v1/projects/{project}/locations/{location}"
        "/publishers/anthropic/models/count-tokens:rawPredict"
    )


def test_row_11_documented_alias(client: httpx.Client, provider: SimulatedProvider) -> None:
    """``claude-vertex`` is counted by Vertex AI's own counting call."""
    response = client.post(COUNT, json=question("claude-vertex"))
    assert response.json() == {"input_tokens": 77}
    assert response.headers["x-tallygate-provider"] == "vertex_claude"
    (sent,) = provider.requests
    assert sent.target == _path()


def test_row_12_documented_keys(server: Tallygate) -> None:
    """``vertex_project`` and ``vertex_location`` are read unchanged, and nothing is missing."""
    (row,) = [
        line for line in server.err.read_text().splitlines() if line.startswith("claude-vertex ")
    ]
    assert "claude-3-5-sonnet-v2@20241022" in row
    assert "missing" not in row


def test_row_13_documented_id(client: httpx.Client, provider: SimulatedProvider) -> None:
    """``vertex_ai/claude-3-5-sonnet-v2@20241022`` counts."""
    assert counted(client.post(COUNT, json=question("dated"))) == 77
    assert asked(provider)["model"] in IDS["dated"][1]


REFUSED_BETAS = (
    "effort-2025-11-24",
    "structured-outputs-2025-12-15",
    "tool-search-tool-2025-10-19",
    "context-1m-2025-08-07",
    "redact-thinking-2026-02-12",
    "web-search-2025-03-05",
)


@pytest.mark.parametrize("beta", REFUSED_BETAS)
def test_row_34_betas_that_vertex_refuses(
    client: httpx.Client, provider: SimulatedProvider, beta: str
) -> None:
    """A beta that the counter does not know must not turn a count into a 400; it is told of."""
    response = client.post(COUNT, json=question("claude-vertex"), headers={"anthropic-beta": beta})
    counted(response)
    assert beta in response.headers["x-tallygate-dropped"]
    assert beta not in str(provider.requests[0].headers)


def test_row_72_body_and_headers(client: httpx.Client, provider: SimulatedProvider) -> None:
    """The model and ``anthropic_version`` stand in the body; the header of that name is absent."""
    body = question("id")
    counted(client.post(COUNT, json=body, headers={"anthropic-version": "2023-06-01"}))
    (sent,) = provider.requests
    assert asked(provider) == {
        "model": "claude-sonnet-4-6",
        "anthropic_version": "vertex-2023-10-16",
        "messages": body["messages"],
    }
    assert sent.method == "POST"
    assert "anthropic-version" not in sent.headers
    assert sent.headers["authorization"].startswith("Bearer token-")
    assert "x-api-key" not in sent.headers


def test_row_73_date_left_off_where_the_entry_says_so(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    """``count_without_date`` sends the bare name, and the answer says so."""
    response = client.post(COUNT, json=question("undated"))
    counted(response)
    assert response.headers["x-tallygate-dropped"] == "model_date"
    assert asked(provider)["model"] == "claude-3-5-sonnet-v2"


@pytest.mark.parametrize("name", IDS)
def test_row_73_ids(client: httpx.Client, provider: SimulatedProvider, name: str) -> None:
    """``@default`` and ``@latest`` are taken off, a date is handled so that it counts."""
    counted(client.post(COUNT, json=question(name)))
    assert asked(provider)["model"] in IDS[name][1]


@pytest.mark.parametrize("location", LOCATIONS)
def test_row_74_location(
    client: httpx.Client, provider: SimulatedProvider, way_out: WayOut, location: str
) -> None:
    """Each location has its path and its host; none is replaced by another."""
    counted(client.post(COUNT, json=question(f"in-{location}")))
    (sent,) = provider.requests
    assert sent.target == _path(location)
    way_out.hosts.clear()
    refused(client.post(COUNT, json=question(f"home-{location}")), 502, "api_error")
    assert set(way_out.hosts) == {LOCATIONS[location]}


def test_row_74_location_of_its_own(client: httpx.Client, provider: SimulatedProvider) -> None:
    """``vertex_count_tokens_location`` goes before ``vertex_location``."""
    counted(client.post(COUNT, json=question("overridden")))
    (sent,) = provider.requests
    assert sent.target == _path("europe-west1")


def test_row_75_system_and_tools(client: httpx.Client, provider: SimulatedProvider) -> None:
    """System prompt, tools, their choice and thinking are sent as they came."""
    fields = {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "t", "input_schema": {"type": "object", "b": 1, "a": 2}}],
        "tool_choice": {"type": "any"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    counted(client.post(COUNT, json=question("claude-vertex", **fields)))
    sent = asked(provider)
    assert {name: sent[name] for name in fields} == fields
    assert b'{"type":"object","b":1,"a":2}' in provider.requests[0].body


@pytest.mark.parametrize("name", ["claude-vertex", "by-file", "by-environ", "by-default"])
def test_row_82_forms_of_credentials(
    client: httpx.Client, provider: SimulatedProvider, name: str
) -> None:
    """JSON text, a file, a variable and the application's default are all accepted."""
    counted(client.post(COUNT, json=question(name)))
    assert provider.requests[0].headers["authorization"].startswith("Bearer token-")


def test_row_82_project_of_the_credential(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    """Where the configuration names no project, the credential's own is asked."""
    counted(client.post(COUNT, json=question("projectless")))
    (sent,) = provider.requests
    assert sent.target == _path(project="project-of-the-credential")


def test_row_82_one_refresh_at_a_time(
    client: httpx.Client, provider: SimulatedProvider, login: Login
) -> None:
    """Twenty counts that need the same token wait for one grant, and everybody else for none."""
    before = login.asked
    login.gate.clear()
    with ThreadPoolExecutor(20) as pool:
        waiting = [
            pool.submit(client.post, COUNT, json=question("own-account-0")) for _count in range(20)
        ]
        until(lambda: login.asked > before or waiting[0].done())
        assert client.get("/health/readiness").status_code == 200
        assert not any(one.done() for one in waiting)
        login.gate.set()
        assert {counted(one.result()) for one in waiting} == {77}
    assert login.asked == before + 1
    tokens = {one.headers["authorization"] for one in provider.requests}
    assert tokens == {f"Bearer token-{login.granted}"}


def test_row_82_tokens_are_renewed(
    client: httpx.Client, provider: SimulatedProvider, login: Login
) -> None:
    """A token that has expired is never sent."""
    login.lifetime_s = 2
    try:
        counted(client.post(COUNT, json=question("own-account-1")))
        sleep(2.1)
        counted(client.post(COUNT, json=question("own-account-1")))
    finally:
        login.lifetime_s = 3600
    first, second = (one.headers["authorization"] for one in provider.requests)
    assert first != second


def test_row_82_credential_that_is_no_credential(
    start: Callable[..., Tallygate], provider: SimulatedProvider, tmp_path: Path
) -> None:
    """A credential that cannot be used is the operator's fault, and does not show itself."""
    file = tmp_path / "account.json"
    file.write_text('{"type":"service_account","private_key":"canary"}')
    broken = {"model": DOCUMENTED, "api_base": provider.url, "vertex_credentials": str(file)}
    server = start({"model_list": model_list(broken=broken | PROJECT)})
    response = server.count(question("broken"))
    refused(response, 502, "api_error")
    assert response.headers["x-should-retry"] == "false"
    assert "canary" not in response.text + server.err.read_text() + server.out.read_text()
