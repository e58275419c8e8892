"""A count's way from client to provider and back, as a client and an operator see it."""

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any

import httpx
import pytest

from bench.provider import SimulatedProvider, count_tokens
from tests.e2e.exchange import FAILURES_STAND_ALONE
from tests.server import KEY, Tallygate, free_port

Body = dict[str, Any]

UPSTREAM_KEY = "sk-ant-the-servers-own"
TEAM_A, TEAM_B = "sk-team-a-0123456789", "sk-team-b-0123456789"
TIMEOUT_S = 1.0
NATIVE = "claude-sonnet-4-5-20250929"

_unique = count()


def entry(alias: str, provider: SimulatedProvider, upstream: str = "", **params: Any) -> Body:
    given = {"model": f"anthropic/{upstream or alias}", "api_key": UPSTREAM_KEY}
    return {"model_name": alias, "litellm_params": {**given, "api_base": provider.url, **params}}


@pytest.fixture(scope="module")
def server(provider: SimulatedProvider, start: Callable[..., Tallygate]) -> Tallygate:
    def one(*arguments: str, **params: Any) -> Body:
        return entry(arguments[0], provider, *arguments[1:], **params)

    nowhere = f"http://127.0.0.1:{free_port()}"
    return start(
        {
            "model_list": [
                one("claude"),
                one("other"),
                one("ordered", "first"),
                one("ordered", "second"),
                one("ordered", "third"),
                one("slow-first", "hanging", timeout=TIMEOUT_S),
                one("slow-first", "answering", timeout=TIMEOUT_S),
                one("unreachable-first", "unreachable", api_base=nowhere),
                one("unreachable-first", "reachable"),
                one("keyless-first", "keyless", api_key="os.environ/NOT_SET_HERE"),
                one("keyless-first", "with-key"),
                one("estimable", fallback="estimate"),
                one("keyless", api_key="os.environ/NOT_SET_HERE"),
                one("keyless-estimable", api_key="os.environ/NOT_SET_HERE", fallback="estimate"),
                one("impatient", timeout=TIMEOUT_S),
                one("refused", api_key="sk-ant-invalid"),
                one("anthropic/*", "*"),
            ],
            "limits": FAILURES_STAND_ALONE,
            "keys": [
                {"name": "team-a", "key": TEAM_A, "models": ["other", "anthropic/*"]},
                {"name": "team-b", "key": TEAM_B, "models": ["claude"]},
            ],
        }
    )


@pytest.fixture(scope="module")
def separate(provider: SimulatedProvider, start: Callable[..., Tallygate]) -> Tallygate:
    """A server that keeps callers apart, and lets them ask with their own Anthropic keys."""
    return start(
        {
            "model_list": [entry("claude", provider)],
            "keys": [{"name": "team-a", "key": TEAM_A}, {"name": "team-b", "key": TEAM_B}],
            "cache": {"scope": "caller"},
            "pass_through": {"caller_key": True},
        }
    )


@pytest.fixture(autouse=True)
def _as_new(provider: SimulatedProvider) -> None:
    provider.clear()


def question(model: str = "claude", **fields: Any) -> Body:
    """Ask what nobody has asked before."""
    content = f"Is this the first time? {next(_unique)}"
    return {"model": model, "messages": [{"role": "user", "content": content}], **fields}


def tokens(body: Body) -> int:
    return count_tokens(body)


def source(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    found: str = answer.headers["x-tallygate-source"]
    return found


def error(answer: httpx.Response) -> tuple[int, str]:
    """Check the shape of a refusal; return its status and type."""
    body = answer.json()
    assert body["type"] == "error"
    assert body["request_id"] == answer.headers["request-id"]
    assert body["error"]["message"]
    assert "x-tallygate-source" not in answer.headers
    return answer.status_code, body["error"]["type"]


def asked(provider: SimulatedProvider) -> list[str]:
    """List the models that the provider was asked about, in order."""
    return [json.loads(request.body)["model"] for request in provider.requests]


def native(server: Tallygate, body: Body, query: str = "", **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"{server.url}/anthropic/v1/messages/count_tokens{query}"
    return httpx.post(url, json=body, headers={"x-litellm-api-key": KEY, **sent}, timeout=30)


def test_an_answer_says_where_its_number_comes_from(server: Tallygate) -> None:
    body = question()
    before = datetime.now(UTC).replace(microsecond=0)
    live, cached = server.count(body), server.count(body)
    after = datetime.now(UTC)
    assert live.json() == cached.json() == {"input_tokens": tokens(body)}
    assert live.headers["cache-status"] == "tallygate; fwd=miss; stored"
    assert cached.headers["cache-status"] == "tallygate; hit"
    assert [source(live), source(cached)] == ["live", "cache"]
    for answer in (live, cached):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-tallygate-provider"] == "anthropic"
        assert answer.headers["x-tallygate-model"] == "claude"
    counted_at = live.headers["x-tallygate-counted-at"]
    assert cached.headers["x-tallygate-counted-at"] == counted_at
    assert before <= datetime.strptime(counted_at, "%Y-%m-%dT%H:%M:%S%z") <= after


def test_the_model_named_is_the_one_that_was_asked(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    for name in ("claude-of-tomorrow", "anthropic/claude-of-tomorrow"):
        answer = server.count(question(name))
        assert answer.headers["x-tallygate-model"] == "claude-of-tomorrow"
    assert asked(provider) == ["claude-of-tomorrow"] * 2


def test_every_answer_has_a_request_id_of_its_own(server: Tallygate) -> None:
    body = question()
    answers = [server.count(body), server.count(body), server.count(question("nobody"))]
    ids = [answer.headers["request-id"] for answer in answers]
    assert len(set(ids)) == 3
    assert all(re.fullmatch(r"req_\w{16,}", one) for one in ids)


def test_a_clients_own_request_id_comes_back(server: Tallygate) -> None:
    body = question()
    for ask in (body, body, question("nobody")):
        assert server.count(ask, x_request_id="mine-7").headers["x-request-id"] == "mine-7"
    assert "x-request-id" not in server.count(body).headers
    assert "x-request-id" not in server.count(body, x_request_id="x" * 500).headers


def test_betas_and_version_are_passed_on_and_are_part_of_the_question(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    body = question()
    for betas, expected in (
        ("b-2,a-1", "live"),
        ("a-1, b-2,,a-1", "cache"),
        ("a-1", "live"),
        ("", "live"),
    ):
        assert source(server.count(body, anthropic_beta=betas)) == expected
    assert source(server.count(body, anthropic_version="2026-10-21")) == "live"
    first, second, third, fourth = (request.headers for request in provider.requests)
    assert first["anthropic-beta"] == "a-1,b-2,token-counting-2024-11-01"
    assert second["anthropic-beta"] == "a-1,token-counting-2024-11-01"
    assert "anthropic-beta" not in third
    versions = [headers["anthropic-version"] for headers in (first, second, third, fourth)]
    assert versions == ["2023-06-01"] * 3 + ["2026-10-21"]


def test_no_cache_asks_again_and_remembers_the_answer(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    body = question()
    server.count(body)
    provider.behave(status=200, body={"input_tokens": 4711}, times=1)
    anew = server.count(body, cache_control="no-cache")
    assert anew.json() == {"input_tokens": 4711}
    assert anew.headers["cache-status"] == "tallygate; fwd=miss; stored"
    later = server.count(body)
    assert (source(later), later.json()) == ("cache", {"input_tokens": 4711})
    assert provider.calls == 2


def test_no_store_leaves_nothing_behind(server: Tallygate, provider: SimulatedProvider) -> None:
    body = question()
    first = server.count(body, cache_control="no-store")
    assert (source(first), first.headers["cache-status"]) == ("live", "tallygate; fwd=miss")
    assert source(server.count(body)) == "live"
    assert provider.calls == 2


def test_only_if_cached_never_asks(server: Tallygate, provider: SimulatedProvider) -> None:
    for model in ("claude", "ordered", "estimable"):
        body = question(model)
        refused = server.count(body, cache_control="only-if-cached")
        assert error(refused) == (504, "timeout_error")
        assert provider.calls == 0
    server.count(body)
    assert source(server.count(body, cache_control="max-age=60, only-if-cached")) == "cache"


@pytest.mark.parametrize("failure", [{"status": 502}, {"status": 429}, {"status": 401}, "reset"])
def test_the_next_entry_is_asked_when_one_fails(
    failure: Any, server: Tallygate, provider: SimulatedProvider
) -> None:
    body = question("ordered")
    provider.hang_up()  # what a kept connection ends with is sent again by a new one
    for model in ("first", "second"):
        behaviour = {"reset": True} if failure == "reset" else failure
        provider.behave(**behaviour, times=1, model=model)
    answer = server.count(body)
    assert source(answer) == "live"
    assert answer.json() == {"input_tokens": tokens(body)}
    assert answer.headers["x-tallygate-model"] == "third"
    assert asked(provider) == ["first", "second", "third"]


def test_the_first_entry_answers_again_as_soon_as_it_can(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    body = question("ordered")
    provider.behave(status=529, times=1, model="first")
    assert server.count(body).headers["x-tallygate-model"] == "second"
    provider.clear()
    # What another counter said is not remembered as what the first one would say.
    answer = server.count(body)
    assert (source(answer), answer.headers["x-tallygate-model"]) == ("live", "first")


def test_the_next_entry_is_asked_when_one_does_not_answer_in_time(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    provider.behave(hang=True, model="hanging")
    answer = server.count(question("slow-first"))
    assert answer.headers.get("x-tallygate-model") == "answering", answer.text
    assert asked(provider) == ["hanging", "answering"]


def test_the_next_entry_is_asked_when_one_cannot_be_reached(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    answer = server.count(question("unreachable-first"))
    assert answer.headers["x-tallygate-model"] == "reachable"
    assert asked(provider) == ["reachable"]


def test_the_next_entry_is_asked_when_one_has_no_key(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    answer = server.count(question("keyless-first"))
    assert answer.headers["x-tallygate-model"] == "with-key"
    assert asked(provider) == ["with-key"]


def test_a_callers_own_mistake_is_put_to_one_entry_only(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    body = question("ordered", mcp_servers=[{"name": "x"}])
    assert error(server.count(body)) == (400, "invalid_request_error")
    assert asked(provider) == ["first"]


def test_when_all_entries_fail_the_first_ones_error_is_told(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    provider.behave(status=529, times=1, model="first")
    provider.behave(status=500, times=2)
    assert error(server.count(question("ordered"))) == (529, "overloaded_error")
    assert asked(provider) == ["first", "second", "third"]


@pytest.mark.parametrize("failure", [{"status": 529}, {"status": 401}, {"body": {}}, "reset"])
def test_an_estimate_stands_in_marked_and_is_never_remembered(
    failure: Any, server: Tallygate, provider: SimulatedProvider
) -> None:
    body = question("estimable")
    provider.hang_up()  # what a kept connection ends with is sent again by a new one
    provider.behave(**({"reset": True} if failure == "reset" else failure), times=2)
    for calls in (1, 2):
        answer = server.count(body)
        assert source(answer) == "estimate"
        assert answer.json().keys() == {"input_tokens"}
        assert answer.json()["input_tokens"] > 0
        assert answer.headers["x-tallygate-provider"] == "estimate"
        assert answer.headers["cache-status"] == "tallygate; fwd=bypass"
        assert provider.calls == calls
    recovered = server.count(body)
    assert (source(recovered), recovered.json()) == ("live", {"input_tokens": tokens(body)})


def test_an_estimate_does_not_hide_the_callers_mistake(server: Tallygate) -> None:
    body = question("estimable", mcp_servers=[{"name": "x"}])
    assert error(server.count(body)) == (400, "invalid_request_error")


def test_without_a_fallback_no_number_is_invented(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    provider.behave(status=529, times=1)
    refused = server.count(question())
    assert error(refused) == (529, "overloaded_error")
    assert "input_tokens" not in refused.text


def test_an_estimate_stands_in_for_a_missing_key(server: Tallygate) -> None:
    assert source(server.count(question("keyless-estimable"))) == "estimate"


def test_a_missing_key_is_named_on_this_machine_only(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    here = server.count(question("keyless"))
    assert error(here) == (502, "api_error")
    assert here.headers["x-should-retry"] == "false"
    assert "NOT_SET_HERE" in here.json()["error"]["message"]
    for headers in ({"x_forwarded_for": "10.0.0.7"}, {"forwarded": "for=10.0.0.7"}):
        elsewhere = server.count(question("keyless"), **headers)
        assert error(elsewhere) == (502, "api_error")
        assert "NOT_SET_HERE" not in elsewhere.text
    assert provider.calls == 0


def test_a_refused_key_of_the_server_is_not_the_callers_401(server: Tallygate) -> None:
    refused = server.count(question("refused"), x_forwarded_for="10.0.0.7")
    assert error(refused) == (502, "api_error")
    assert refused.headers["x-should-retry"] == "false"
    assert "invalid" not in refused.json()["error"]["message"]
    assert "sk-ant-" not in refused.text


def test_a_key_counts_with_its_own_models_only(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    body = question("claude")
    assert source(server.count(body, x_api_key=TEAM_B)) == "live"
    refused = server.count(body, x_api_key=TEAM_A)  # although its count is remembered
    assert error(refused) == (403, "permission_error")
    assert source(server.count(question("other"), x_api_key=TEAM_A)) == "live"
    assert source(server.count(question("claude-by-wildcard"), x_api_key=TEAM_A)) == "live"
    assert error(server.count(question("claude-by-wildcard"), x_api_key=TEAM_B))[0] == 403
    assert error(server.count(question("nobody"), x_api_key=TEAM_A))[0] == 404
    listed = httpx.get(f"{server.url}/v1/models", headers={"x-api-key": TEAM_A}).json()
    assert [model["id"] for model in listed["data"]] == ["other", "anthropic/*"]
    assert provider.calls == 3


def test_a_key_counts_with_its_own_models_only_on_the_pass_through(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    assert error(native(server, question(NATIVE), x_litellm_api_key=TEAM_B))[0] == 403
    assert provider.calls == 0
    assert source(native(server, question(NATIVE), x_litellm_api_key=TEAM_A)) == "live"


def test_the_pass_through_keeps_model_query_and_every_field(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    body = question(NATIVE, max_tokens=5, metadata={"user_id": "u"}, new_field={"b": 1, "a": 2.50})
    refused = native(server, body, "?beta=true&x=%2F")
    # The provider's own word: it, not the proxy, decides what it takes.
    assert error(refused) == (400, "invalid_request_error")
    assert "Extra inputs are not permitted" in refused.json()["error"]["message"]
    (seen,) = provider.requests
    assert json.loads(seen.body) == body
    assert seen.query == "beta=true&x=%2F"
    assert seen.headers["x-api-key"] == UPSTREAM_KEY
    assert KEY not in str(seen.raw_headers)


def test_the_pass_through_counts_and_remembers(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    body = question(NATIVE)
    answers = [native(server, body) for _ in range(2)]
    assert [source(answer) for answer in answers] == ["live", "cache"]
    assert answers[0].json() == {"input_tokens": tokens(body)}
    assert answers[0].headers["x-tallygate-model"] == NATIVE
    # The query may decide the number, so another one is another question.
    assert source(native(server, body, "?beta=true")) == "live"
    assert provider.calls == 2


def test_the_unified_route_leaves_out_what_a_count_does_not_take(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    body = question()
    answer = server.count({**body, "max_tokens": 5, "metadata": {"user_id": "u"}, "stream": True})
    assert answer.json() == {"input_tokens": tokens(body)}
    assert source(server.count({**body, "max_tokens": 6, "temperature": 0.5})) == "cache"
    assert json.loads(provider.requests[0].body) == body


def test_a_callers_own_key_is_not_used_unless_configured(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    native(server, question(NATIVE), x_api_key="sk-ant-of-a-caller")
    server.count(question(), x_litellm_api_key=KEY, x_api_key="sk-ant-of-a-caller")
    assert [request.headers["x-api-key"] for request in provider.requests] == [UPSTREAM_KEY] * 2
    assert not any("sk-ant-of-a-caller" in str(one.raw_headers) for one in provider.requests)


def test_answers_to_one_callers_key_are_never_given_to_another(
    separate: Tallygate, provider: SimulatedProvider
) -> None:
    body = question(NATIVE)
    keys = ["sk-ant-of-caller-1", "sk-ant-of-caller-2", "sk-ant-of-caller-1"]
    answers = [native(separate, body, x_api_key=key) for key in keys]
    assert [source(answer) for answer in answers] == ["live", "live", "cache"]
    assert source(native(separate, body)) == "live"  # and the server's own key is another one
    used = [request.headers["x-api-key"] for request in provider.requests]
    assert used == ["sk-ant-of-caller-1", "sk-ant-of-caller-2", UPSTREAM_KEY]


def test_a_callers_own_refused_key_is_the_callers_fault(separate: Tallygate) -> None:
    refused = native(separate, question(NATIVE), x_api_key="sk-ant-invalid")
    assert error(refused) == (401, "authentication_error")
    assert "x-should-retry" not in refused.headers


def test_a_subscriptions_token_is_used_only_where_the_server_has_no_key(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    token = {"x_litellm_api_key": KEY, "authorization": "Bearer sk-ant-oat01-of-a-caller"}
    body = question("keyless")
    assert source(server.count(body, **token)) == "live"
    assert source(server.count(body, **token)) == "cache"
    other = {**token, "authorization": "Bearer sk-ant-oat01-of-another"}
    assert source(server.count(body, **other)) == "live"
    assert source(server.count(question(), **token)) == "live"
    first, second, third = provider.requests
    assert first.headers["authorization"] == "Bearer sk-ant-oat01-of-a-caller"
    assert "oauth-2025-04-20" in first.headers["anthropic-beta"].split(",")
    assert "x-api-key" not in first.headers
    assert second.headers["authorization"] == "Bearer sk-ant-oat01-of-another"
    assert third.headers["x-api-key"] == UPSTREAM_KEY
    assert "authorization" not in third.headers


def test_c13_callers_share_answers_unless_kept_apart(
    server: Tallygate, separate: Tallygate, provider: SimulatedProvider
) -> None:
    body = question()
    assert [source(server.count(body, x_api_key=key)) for key in (KEY, TEAM_B)] == ["live", "cache"]
    provider.clear()
    keys = [TEAM_A, TEAM_B, KEY, TEAM_A, TEAM_B]
    sources = [source(separate.count(body, x_api_key=key)) for key in keys]
    assert sources == ["live", "live", "live", "cache", "cache"]
    assert provider.calls == 3


END_USERS: tuple[tuple[dict[str, str], Body], ...] = (
    ({"x_tallygate_end_user": "admin"}, {}),
    ({"x_litellm_end_user_id": "admin"}, {}),
    ({"x_litellm_customer_id": "admin"}, {}),
    ({}, {"user": "admin"}),
    ({}, {"metadata": {"user_id": "admin"}}),
    ({}, {"litellm_metadata": {"user": "admin"}}),
    ({}, {"safety_identifier": "admin"}),
)


@pytest.mark.parametrize(("headers", "fields"), END_USERS)
def test_a8_an_end_user_is_no_proof_of_anything(
    server: Tallygate,
    separate: Tallygate,
    provider: SimulatedProvider,
    headers: dict[str, str],
    fields: Body,
) -> None:
    """Whom a caller names decides neither what it may ask nor whose counts it is given."""
    body = question()
    forbidden = server.count(body | fields, x_api_key=TEAM_A, **headers)
    assert error(forbidden) == (403, "permission_error")
    assert provider.calls == 0
    asks = [
        (TEAM_A, headers, fields, "live"),
        (TEAM_B, headers, fields, "live"),
        (TEAM_A, {}, {}, "cache"),
        (TEAM_B, {}, {"user": "another"}, "cache"),
    ]
    for key, names, members, expected in asks:
        assert source(separate.count(body | members, x_api_key=key, **names)) == expected
    assert provider.calls == 2


NO_COUNTS = {
    "zero": b'{"input_tokens":0}',
    "negative": b'{"input_tokens":-1}',
    "text": b'{"input_tokens":"12"}',
    "exponent": b'{"input_tokens":1e3}',
    "fraction": b'{"input_tokens":12.0}',
    "true": b'{"input_tokens":true}',
    "null": b'{"input_tokens":null}',
    "2^63": b'{"input_tokens":9223372036854775808}',
    "2^64+12": b'{"input_tokens":18446744073709551628}',
    "twice": b'{"input_tokens":12,"input_tokens":13}',
    "elsewhere": b'{"usage":{"input_tokens":12}}',
    "empty object": b"{}",
    "array": b"[12]",
    "empty": b"",
    "half": b'{"input_tokens":12',
    "HTML": b"<html><body>Sign in to the Wi-Fi</body></html>",
    "2 MB": b'{"input_tokens":12,"padding":"' + b" " * 2_000_000 + b'"}',
}


@pytest.mark.parametrize("reply", NO_COUNTS.values(), ids=NO_COUNTS)
def test_a_reply_that_holds_no_count_is_an_error_and_not_remembered(
    reply: bytes, server: Tallygate, provider: SimulatedProvider
) -> None:
    body = question()
    provider.behave(status=200, body=reply, times=1)
    refused = server.count(body)
    assert error(refused) == (502, "api_error")
    answer = server.count(body)
    assert (source(answer), answer.json()) == ("live", {"input_tokens": tokens(body)})


@pytest.mark.parametrize("status", [201, 204, 301, 307, 308, 404])
def test_a_count_under_another_status_is_no_count(
    status: int, server: Tallygate, provider: SimulatedProvider
) -> None:
    body = question()
    content = b"" if status == 204 else b'{"input_tokens":12}'
    headers = {"location": f"{provider.url}/v1/messages/count_tokens"}
    provider.behave(status=status, body=content, headers=headers, times=1)
    refused = server.count(body)
    assert error(refused) == (502, "api_error")
    assert provider.calls == 1
    assert source(server.count(body)) == "live"


@pytest.mark.parametrize("behaviour", [{"hang": True}, {"drip_s": 0.2}], ids=["silent", "slow"])
def test_a_late_provider_is_a_504_within_the_timeout(
    behaviour: dict[str, Any], server: Tallygate, provider: SimulatedProvider
) -> None:
    body = question("impatient")
    provider.behave(**behaviour, times=1)
    started = time.monotonic()
    assert error(server.count(body)) == (504, "timeout_error")
    assert time.monotonic() - started < 10 * TIMEOUT_S
    assert source(server.count(body)) == "live"
