"""Claude on Vertex AI: what goes out beside recorded SDK traffic, and what comes back."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.base import (
    Count,
    CountRequest,
    Endpoint,
    GoogleCredential,
    MalformedUpstreamError,
    Params,
    Secret,
    UpstreamRequest,
)
from adapters.registry import provider_of
from adapters.vertex_claude import VertexClaude
from app.errors import from_upstream
from app.question import decode

WIRE = Path(__file__).parents[1] / "fixtures" / "wire"
INPUTS = (
    "01_simple",
    "02_system",
    "03_multi_turn",
    "04_tools",
    "05_image_base64",
    "06_document_pdf",
    "07_thinking",
    "08_unicode",
)
CAPTURES = sorted(path.stem for path in (WIRE / "captures").glob("anthropic*_vertex*.json"))
ERRORS = sorted(path.stem for path in (WIRE / "errors").glob("vertex_claude__*.json"))
NEWEST = "2026-10-21"
BETAS = (
    "compact-2026-01-12",
    "context-1m-2025-08-07",
    "context-management-2025-06-27",
    "effort-2025-11-24",
    "mid-conversation-tool-changes-2026-07-01",
    "token-counting-2024-11-01",
)
CLAUDE = VertexClaude()


def load(kind: str, name: str) -> dict[str, Any]:
    return msgspec.json.decode((WIRE / kind / f"{name}.json").read_bytes(), type=dict[str, Any])


BETA_OF_SPEED = "fast-mode-2026-02-01"


def question(body: object, version: str = NEWEST, *betas: str) -> CountRequest:
    """Read a body as the proxy does."""
    headers = {"anthropic-version": version, "anthropic-beta": ",".join(betas)}
    return decode(headers, msgspec.json.encode(body)).request


def params(**given: Any) -> Params:
    return Params(**({"model": "claude-sonnet-4-5@20250929", "vertex_project": "p1"} | given))


def endpoint(environ: dict[str, str] | None = None, **given: Any) -> Endpoint:
    return CLAUDE.endpoint(params(**given), environ or {})


def asked(body: object, version: str = NEWEST, *betas: str, **given: Any) -> UpstreamRequest:
    return CLAUDE.request(question(body, version, *betas), endpoint(**given))


SIMPLE = load("inputs", "01_simple")


@pytest.mark.parametrize("name", CAPTURES)
def test_the_request_is_the_one_of_the_sdk(name: str) -> None:
    capture = load("captures", name)
    location = capture["path"].split("/")[5]
    version = NEWEST if capture["sdk_version"].startswith("2.") else "2023-06-01"
    sent = asked(
        load("inputs", capture["input"]),
        version,
        vertex_project="my-project",
        vertex_location=location,
        model=capture["body"]["model"],
    )
    assert (sent.method, sent.url) == (capture["method"], capture["production_url"])
    assert msgspec.json.decode(sent.body) == capture["body"]
    for header, value in sent.headers:
        assert capture["headers"][header] == value
    assert "anthropic-version" not in dict(sent.headers)


@pytest.mark.parametrize("name", INPUTS)
def test_the_clients_own_bytes_go_out(name: str) -> None:
    count = question(load("inputs", name))
    assert CLAUDE.request(count, endpoint()).body.endswith(count.body[1:])


def test_numbers_and_order_stay_as_they_were_written() -> None:
    schema = b'{"z":1.0,"a":1e5,"big":123456789012345678901234567890,"a":"\\u00e9"}'
    body = b'{"tools":[' + schema + b'],"model":"m","messages":[{"role":"user","content":"hi"}]}'
    sent = CLAUDE.request(decode({}, body).request, endpoint())
    assert schema in sent.body


@pytest.mark.parametrize(
    ("version", "member"),
    [
        ("2023-01-01", "vertex-2023-10-16"),
        ("2023-06-01", "vertex-2023-10-16"),
        ("2026-10-21", "2026-10-21"),
        ("2027-01-01", "2027-01-01"),
    ],
)
def test_the_version_goes_into_the_body(version: str, member: str) -> None:
    assert msgspec.json.decode(asked(SIMPLE, version).body)["anthropic_version"] == member


def test_the_clients_own_version_member_stands_alone() -> None:
    sent = asked({**SIMPLE, "anthropic_version": "vertex-2023-10-16"}, NEWEST)
    assert sent.body.count(b'"anthropic_version"') == 1
    assert msgspec.json.decode(sent.body)["anthropic_version"] == "vertex-2023-10-16"


def test_a_client_of_bedrocks_dialect_is_counted_all_the_same() -> None:
    own = {"anthropic_version": "bedrock-2023-05-31", "anthropic_beta": ["b", BETA_OF_SPEED]}
    sent = asked({**SIMPLE, **own, "speed": "fast"}, NEWEST, "a")
    body = msgspec.json.decode(sent.body)
    assert body["anthropic_version"] == NEWEST
    assert "anthropic_beta" not in body
    assert dict(sent.headers)["anthropic-beta"] == BETA_OF_SPEED
    assert sent.dropped == ("anthropic-beta:a", "anthropic-beta:b")


def test_a_version_deeper_in_the_body_is_none() -> None:
    tool = {"name": "t", "input_schema": {"anthropic_version": {"type": "string"}}}
    sent = asked({**SIMPLE, "tools": [tool]})
    assert msgspec.json.decode(sent.body)["anthropic_version"] == NEWEST


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("claude-sonnet-4-6@default", "claude-sonnet-4-6"),
        ("claude-sonnet-4-6@latest", "claude-sonnet-4-6"),
        ("claude-3-5-sonnet-v2@20241022", "claude-3-5-sonnet-v2@20241022"),
        ("claude-opus-4-8", "claude-opus-4-8"),
    ],
)
def test_a_moving_version_is_left_off_and_a_date_kept(model: str, sent: str) -> None:
    request = asked(SIMPLE, model=model)
    assert msgspec.json.decode(request.body)["model"] == sent
    assert "/models/count-tokens:rawPredict" in request.url


def test_betas_that_nothing_needs_are_left_out_and_named() -> None:
    sent = asked(SIMPLE, NEWEST, *BETAS)
    assert "anthropic-beta" not in dict(sent.headers)
    assert sent.dropped == tuple(f"anthropic-beta:{beta}" for beta in BETAS)


@pytest.mark.parametrize(
    ("body", "passed"),
    [
        (
            {**SIMPLE, "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
            "context-management-2025-06-27",
        ),
        (
            {**SIMPLE, "context_management": {"edits": [{"type": "compact_20260112"}]}},
            "compact-2026-01-12,context-management-2025-06-27",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "compaction", "content": "x"}]}]},
            "compact-2026-01-12",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": 'of "context_management": "type":"compact"'}
                ]
            },
            None,
        ),
    ],
)
def test_a_beta_goes_along_with_what_would_be_refused_without_it(
    body: dict[str, Any], passed: str | None
) -> None:
    sent = asked({"model": "m", **body}, NEWEST, *BETAS)
    assert dict(sent.headers).get("anthropic-beta") == passed
    kept = passed.split(",") if passed else []
    assert sent.dropped == tuple(f"anthropic-beta:{beta}" for beta in BETAS if beta not in kept)


SYSTEM = {"role": "system", "content": "s"}
LICENSED: list[tuple[str, dict[str, Any]]] = [
    ("advisor-tool-2026-03-01", {"tools": [{"type": "advisor_20260301", "name": "advisor"}]}),
    ("advisor-tool-2026-03-01", {"x": [{"type": "advisor_tool_result"}]}),
    ("compact-2026-09-04", {"compaction": {"type": "summarize"}}),
    ("computer-use-2024-10-22", {"tools": [{"type": "bash_20241022", "name": "bash"}]}),
    ("computer-use-2025-01-24", {"tools": [{"type": "computer_20250124", "name": "computer"}]}),
    ("computer-use-2025-11-24", {"tools": [{"type": "computer_20251124", "name": "computer"}]}),
    ("context-management-2025-06-27", {"tools": [{"type": "memory_20250818", "name": "memory"}]}),
    ("fast-mode-2026-02-01", {"speed": "fast"}),
    ("inline-tools-2026-09-15", {"x": [{"type": "tool_definition"}]}),
    (
        "mid-conversation-output-config-2026-07-01",
        {"messages": [*SIMPLE["messages"], SYSTEM | {"output_config": {"effort": "low"}}]},
    ),
    (
        "mid-conversation-system-clear-at-2026-08-21",
        {"messages": [*SIMPLE["messages"], SYSTEM | {"clear_at": "next_user_message"}]},
    ),
    ("mid-conversation-tool-changes-2026-07-01", {"x": [{"type": "tool_addition"}]}),
    ("mid-conversation-tool-changes-2026-07-01", {"x": [{"type": "tool_removal"}]}),
    ("server-side-fallback-2026-07-01", {"x": [{"type": "fallback"}]}),
    ("task-budgets-2026-03-13", {"output_config": {"task_budget": {"type": "tokens"}}}),
    (
        "thinking-binding-controls-2026-08-01",
        {"thinking": {"type": "adaptive", "block_binding": {}}},
    ),
    (
        "thinking-display-updates-2026-08-18",
        {"thinking": {"type": "adaptive", "display": "updates"}},
    ),
    ("user-profiles-billing-2026-10-01", {"billing_policy": {"type": "billing_policy"}}),
]


@pytest.mark.parametrize(("beta", "body"), LICENSED)
def test_every_beta_of_a_block_or_field_goes_along_with_it_alone(
    beta: str, body: dict[str, Any]
) -> None:
    sent = asked({**SIMPLE, **body}, NEWEST, beta)
    assert dict(sent.headers).get("anthropic-beta") == beta
    assert sent.dropped == ()
    alone = asked(SIMPLE, NEWEST, beta)
    assert "anthropic-beta" not in dict(alone.headers)
    assert alone.dropped == (f"anthropic-beta:{beta}",)


@pytest.mark.parametrize("beta", sorted({beta for beta, _ in LICENSED}))
def test_a_tools_parameters_license_no_beta(beta: str) -> None:
    names = ("compaction", "context_management", "speed", "billing_policy", "output_config")
    more = ("clear_at", "task_budget", "block_binding")
    schema = {"type": "object", "properties": {name: {} for name in names + more}}
    sent = asked({**SIMPLE, "tools": [{"name": "t", "input_schema": schema}]}, NEWEST, beta)
    assert sent.dropped == (f"anthropic-beta:{beta}",)


@pytest.mark.parametrize("odd", [{"thinking": 1}, {"output_config": []}, {"thinking": None}])
def test_a_member_of_an_odd_shape_licenses_no_beta(odd: dict[str, Any]) -> None:
    tool = {"name": "t", "input_schema": {"block_binding": 1, "task_budget": 1}}
    betas = ("task-budgets-2026-03-13", "thinking-binding-controls-2026-08-01")
    sent = asked({**SIMPLE, **odd, "tools": [tool]}, NEWEST, *betas)
    assert sent.dropped == tuple(f"anthropic-beta:{beta}" for beta in betas)


@pytest.mark.parametrize(
    ("model", "sent", "dropped"),
    [
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5", ("model_date",)),
        ("claude-sonnet-4-6@default", "claude-sonnet-4-6", ()),
        ("claude-opus-4-8", "claude-opus-4-8", ()),
        ("claude-x@2025092", "claude-x@2025092", ()),
        ("claude-x@preview-20250929", "claude-x@preview-20250929", ()),
    ],
)
def test_a_date_is_left_off_where_the_entry_says_so(
    model: str, sent: str, dropped: tuple[str, ...]
) -> None:
    request = asked(SIMPLE, model=model, count_without_date=True)
    assert msgspec.json.decode(request.body)["model"] == sent
    assert request.dropped == dropped


def test_with_and_without_a_date_are_two_counters() -> None:
    kept, left_off = endpoint(), endpoint(count_without_date=True)
    assert kept.upstream_model == left_off.upstream_model
    assert kept.scope != left_off.scope
    assert endpoint(count_without_date=False) == kept


def test_a_base_whose_variable_is_not_set_is_missing_and_not_replaced() -> None:
    assert endpoint(unset={"api_base": "MY_BASE"}).missing == ("MY_BASE",)
    assert endpoint(unset={"api_base": "MY_BASE"}).credential is None


def test_identity_headers_are_left_out_and_named() -> None:
    count = decode({"anthropic-workspace-id": "w1"}, msgspec.json.encode(SIMPLE)).request
    sent = CLAUDE.request(count, endpoint())
    assert sent.dropped == ("anthropic-workspace-id",)
    assert "w1" not in repr(sent)


def test_output_has_not_changed_without_a_new_wire_version() -> None:
    digest = hashlib.sha256(str(CLAUDE.WIRE_VERSION).encode())
    for name in INPUTS:
        for version in ("2023-06-01", NEWEST):
            digest.update(msgspec.json.encode(asked(load("inputs", name), version, *BETAS)))
    edited = {**SIMPLE, "anthropic_version": "x", "context_management": {"edits": []}}
    digest.update(msgspec.json.encode(asked(edited, NEWEST, *BETAS, model="claude-x@default")))
    digest.update(msgspec.json.encode(asked(SIMPLE, count_without_date=True)))
    for beta, body in LICENSED:
        digest.update(msgspec.json.encode(asked({**SIMPLE, **body}, NEWEST, beta)))
    # Another digest needs another WIRE_VERSION: stored counts belong to what was sent for them.
    assert digest.hexdigest()[:16] == "fe1b2ecdb16e30e7"


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("claude-3-5-sonnet-v2@20241022", "vertex_claude"),
        ("claude*", "vertex_claude"),
        ("claude-*", "vertex_claude"),
    ],
)
def test_claims_claude_and_its_wildcards(model: str, provider: str) -> None:
    assert provider_of("vertex_ai", model) == provider


@pytest.mark.parametrize(
    ("prefix", "model"),
    [("vertex_ai", "*"), ("vertex_ai", "gemini-2.5-pro"), ("", "claude-x"), ("gemini", "claude-x")],
)
def test_claims_nothing_else(prefix: str, model: str) -> None:
    assert not CLAUDE.claims(prefix, model)


GLOBAL = "https://aiplatform.googleapis.com"


@pytest.mark.parametrize(
    ("given", "environ", "location", "base_url"),
    [
        ({}, {}, "global", GLOBAL),
        ({}, {"VERTEX_LOCATION": "eu"}, "eu", "https://aiplatform.eu.rep.googleapis.com"),
        ({}, {"VERTEXAI_LOCATION": "us", "VERTEX_LOCATION": "eu"}, "us", None),
        ({"vertex_location": "europe-west1"}, {"VERTEXAI_LOCATION": "us"}, "europe-west1", None),
        (
            {"vertex_location": "global", "vertex_count_tokens_location": "us-east5"},
            {},
            "us-east5",
            "https://us-east5-aiplatform.googleapis.com",
        ),
        ({"vertex_location": "us"}, {}, "us", "https://aiplatform.us.rep.googleapis.com"),
        ({"api_base": "http://127.0.0.1:1/v1/"}, {}, "global", "http://127.0.0.1:1"),
    ],
)
def test_where_it_counts(
    given: dict[str, str], environ: dict[str, str], location: str, base_url: str | None
) -> None:
    found = endpoint(environ, **given)
    assert found.location == location
    if base_url:
        assert found.base_url == base_url
    assert f"/locations/{location}/" in CLAUDE.request(question(SIMPLE), found).url


def test_another_location_or_base_is_another_counter() -> None:
    scopes = {
        endpoint(vertex_location=location, api_base=base).scope
        for location in ("global", "us-east5")
        for base in (None, "http://127.0.0.1:1")
    }
    assert len(scopes) == 4
    projects = {endpoint(vertex_project=project).scope for project in ("p1", "p2")}
    assert len(projects) == 1


@pytest.mark.parametrize("location", ["US-EAST5", "us_east5", "evil.example/", "a.b", "a b", "e\n"])
def test_a_location_that_could_forge_a_host_is_refused(location: str) -> None:
    with pytest.raises(ValueError, match="us-east5"):
        endpoint(vertex_location=location)


@pytest.mark.parametrize("project", ["my-project", "123456789", "example.com:my-project"])
def test_a_project_stands_in_the_address(project: str) -> None:
    sent = CLAUDE.request(question(SIMPLE), endpoint(vertex_project=project))
    assert sent.url.startswith(f"{GLOBAL}/v1/projects/{project}/locations/")


@pytest.mark.parametrize("project", ["..", "a/b", "-", "A", "example.com:", "a?b", "a%2fb", "a\n"])
def test_what_is_no_project_is_refused(project: str) -> None:
    with pytest.raises(ValueError, match="vertex_project"):
        endpoint(vertex_project=project)


def test_project_and_credential_come_from_the_environment_too() -> None:
    environ = {"VERTEXAI_PROJECT": "p2", "VERTEXAI_CREDENTIALS": "/account.json"}
    found = CLAUDE.endpoint(Params(model="claude-x"), environ)
    assert found.project == "p2"
    assert isinstance(found.credential, GoogleCredential)
    assert found.credential.source is not None
    assert found.credential.source.reveal() == "/account.json"
    own = CLAUDE.endpoint(params(vertex_credentials=Secret("{}")), environ)
    assert isinstance(own.credential, GoogleCredential)
    assert own.credential.source is not None
    assert (own.project, own.credential.source.reveal()) == ("p1", "{}")


def test_without_a_project_the_credentials_own_is_left_to_signing() -> None:
    found = CLAUDE.endpoint(Params(model="claude-x"), {})
    assert found.credential == GoogleCredential()
    assert "/projects/-/locations/" in CLAUDE.request(question(SIMPLE), found).url


def test_variables_that_are_not_set_are_named_and_never_replaced() -> None:
    unset = {
        "vertex_project": "MY_PROJECT",
        "vertex_location": "MY_LOCATION",
        "vertex_credentials": "MY_CREDENTIALS",
    }
    environ = {"VERTEXAI_PROJECT": "p2", "VERTEXAI_LOCATION": "us", "VERTEXAI_CREDENTIALS": "{}"}
    found = CLAUDE.endpoint(Params(model="claude-x", unset=unset), environ)
    assert found.missing == tuple(unset.values())
    assert found.credential is None


@pytest.mark.parametrize("name", ERRORS)
def test_errors_reach_the_caller_as_they_should(name: str) -> None:
    fixture = load("errors", name)
    error = CLAUDE.error(
        fixture["status"], fixture["headers"], msgspec.json.encode(fixture["body"])
    )
    answer = from_upstream(error, caller_credential=False)
    wanted = fixture["client_response"]
    assert answer.status == wanted["status"]
    rendered = msgspec.json.decode(answer.body("<PROXY_REQUEST_ID>"))
    assert rendered == wanted["body"]


@pytest.mark.parametrize("name", ["anthropic__400_invalid_request", "anthropic__529_overloaded"])
def test_the_models_own_refusals_pass_as_they_are(name: str) -> None:
    fixture = load("errors", name)
    body = {**fixture["body"], "request_id": "req_vrtx_1"}
    error = CLAUDE.error(fixture["status"], {}, msgspec.json.encode(body))
    assert error.status == fixture["status"]
    assert error.type == fixture["body"]["error"]["type"]
    assert error.message == fixture["body"]["error"]["message"]
    assert error.upstream_request_id == "req_vrtx_1"


def test_googles_errors_come_in_a_list_too() -> None:
    fixture = load("errors", "vertex_claude__429_quota")
    alone = CLAUDE.error(429, {}, msgspec.json.encode(fixture["body"]))
    assert CLAUDE.error(429, {}, msgspec.json.encode([fixture["body"]])) == alone


@pytest.mark.parametrize("name", ["401_unauthenticated", "400_failed_precondition"])
def test_a_refused_credential_is_the_operators_fault(name: str) -> None:
    fixture = load("errors", f"vertex_claude__{name}")
    error = CLAUDE.error(fixture["status"], {}, msgspec.json.encode(fixture["body"]))
    assert error.credential_fault
    assert "my-project" not in error.reason
    assert from_upstream(error, caller_credential=False).headers["x-should-retry"] == "false"


def test_a_wait_that_google_names_becomes_retry_after() -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36s"}
    body = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [info]}}
    error = CLAUDE.error(429, {}, msgspec.json.encode(body))
    assert dict(error.headers)["retry-after"] == "36"


@pytest.mark.parametrize(
    ("status", "answered"),
    [(400, 502), (404, 502), (413, 413), (429, 429), (500, 500), (502, 502), (503, 529)],
)
def test_a_page_of_some_gateway_is_never_quoted(status: int, answered: int) -> None:
    error = CLAUDE.error(status, {}, b"<html>\xff secret </html>")
    assert error.status == answered
    assert "secret" not in error.message + error.reason


def test_reads_a_count() -> None:
    assert CLAUDE.count(b'{"input_tokens": 14}') == Count(14)


@pytest.mark.parametrize("body", [b"{}", b'{"input_tokens":0}', b'{"totalTokens":3}', b"[]", b""])
def test_a_reply_without_a_count_is_no_count(body: bytes) -> None:
    with pytest.raises(MalformedUpstreamError):
        CLAUDE.count(body)
