"""``GET /openapi.json``: the document tells of this server all there is, and nothing else."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from sanic import Sanic
from schemathesis.checks import load_all_checks
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from app.auth import KEY_HEADERS
from app.routes import add_routes
from bench.provider import SimulatedProvider
from tests.e2e.exchange import (
    BEARER,
    COUNT,
    MODEL,
    NATIVE,
    anthropic,
    counted,
    model_list,
    question,
    refused,
)
from tests.server import KEY, Tallygate

load_all_checks()

UPSTREAM_KEY = "sk-ant-api03-upstream"
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
ASKED_FOR = {504}
"""What a caller gets for ``only-if-cached``, or for a wait too short: no failure."""


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Iterator[Tallygate]:
    names = {MODEL: anthropic("claude-x", provider.url), "*": anthropic("*", provider.url)}
    running = start({"model_list": model_list(**names)})
    yield running
    running.stop()
    assert "Traceback" not in running.err.read_text()


@pytest.fixture(scope="module")
def document(server: Tallygate) -> dict[str, Any]:
    response = httpx.get(f"{server.url}/openapi.json")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    found: dict[str, Any] = response.json()
    return found


@pytest.fixture(scope="module")
def api(server: Tallygate) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_every_route_is_told_and_nothing_else(document: dict[str, Any]) -> None:
    app: Sanic[Any, Any] = Sanic("Documented", configure_logging=False)
    add_routes(app)
    served = {(f"/{route.path}", m.lower()) for route in app.router.routes for m in route.methods}
    # Of each GET there is a HEAD, which need not be told.
    served -= {(path, "head") for path, method in served if method == "get"}
    told = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert told == served


def test_it_is_valid(api: Any) -> None:
    assert api.raw_schema["openapi"].startswith("3.1.")
    api.validate()


def test_it_tells_nothing_of_the_configuration(server: Tallygate) -> None:
    text = httpx.get(f"{server.url}/openapi.json").text
    for secret in (KEY, UPSTREAM_KEY, MODEL, "claude-x", "127.0.0.1"):
        assert secret not in text


def test_what_it_calls_an_answer_is_one(
    document: dict[str, Any], client: httpx.Client, stranger: httpx.Client
) -> None:
    """The headers that it says are always there, and those of an error, by hand."""
    answers = document["paths"][COUNT]["post"]["responses"]
    required = {
        name
        for name in answers["200"]["headers"]
        if document["components"]["headers"][name].get("required")
    }
    answer = client.post(COUNT, json=question())
    assert counted(answer)
    assert required <= set(answer.headers)
    assert {name for name in answer.headers if name.startswith("x-")} <= set(
        answers["200"]["headers"]
    )
    refused(stranger.post(COUNT, json=question()), 401, "authentication_error")


def _operations(api: Any) -> Iterator[Any]:
    """List all but the stream, which lasts ten minutes: tests/e2e/test_status.py reads it."""
    found = (one.ok() for one in api.get_all_operations())
    return (one for one in found if one.path != "/status/stream")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_it_answers_as_it_says(api: Any, provider: SimulatedProvider, mode: GenerationMode) -> None:
    """What the document allows, and what it does not, is answered in one of its own ways."""
    provider.behave(body={"input_tokens": 5})
    seen: Counter[tuple[str, int]] = Counter()

    def ask(case: Any) -> None:
        for name in KEY_HEADERS:
            case.headers.pop(name, None)
        response = case.call(headers=BEARER)
        seen[case.operation.label, response.status_code] += 1
        case.validate_response(response, checks=CHECKS)
        assert response.status_code < 500 or response.status_code in ASKED_FOR

    for operation in _operations(api):
        if operation.body or mode is GenerationMode.POSITIVE:
            bounds = settings(
                max_examples=100 if operation.body else 3,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            with_cases: Any = given(operation.as_strategy(mode))
            bounds(with_cases(ask))()
    print(*seen.items(), sep="\n")
    for path in (COUNT, NATIVE):
        # What is not allowed may by chance be taken none the less: the document is the narrower.
        assert seen[f"POST {path}", 200 if mode is GenerationMode.POSITIVE else 400]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS"])
def test_methods_that_it_does_not_name(
    document: dict[str, Any], client: httpx.Client, method: str
) -> None:
    for path, methods in document["paths"].items():
        if method.lower() not in methods:
            refused(client.request(method, path), 405, "invalid_request_error")


def test_a_head_is_a_get_without_its_body(document: dict[str, Any], client: httpx.Client) -> None:
    reads = [path for path, methods in document["paths"].items() if "get" in methods]
    assert "/health/readiness" in reads
    for path in reads:
        if path != "/status/stream":
            got, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (got.status_code, b""), path
            assert head.headers["content-type"] == got.headers["content-type"]
