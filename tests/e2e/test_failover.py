"""Pools, retries, breakers and cooldowns, as a client of a server with the usual limits sees."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from bench.provider import SimulatedProvider, count_tokens
from tests.e2e.exchange import anthropic, counted, model_list, question, refused, until
from tests.server import Tallygate, free_port

KEYS = [f"sk-ant-api03-pool-{letter}" for letter in "abc"]
FAILURES = 5


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Tallygate:
    base, nowhere = provider.url, f"http://127.0.0.1:{free_port()}"
    lone = {f"lone-{n}": anthropic(f"claude-lone-{n}", base) for n in range(12)}
    pools = [
        (f"pool-{n}", anthropic(f"claude-pool-{n}", base, api_key=key))
        for n in range(8)
        for key in KEYS
    ]
    weighted = [
        ("weighted", anthropic("claude-w", base, api_key=key, weight=weight))
        for key, weight in zip(KEYS[:2], (9, 1), strict=True)
    ]
    ordered = [("ordered", anthropic(f"claude-{name}", base)) for name in ("one", "two")]
    partly = [
        ("partly", anthropic("claude-partly", base, api_key="os.environ/NOT_SET_HERE")),
        ("partly", anthropic("claude-partly", base)),
    ]
    deadlines = [
        (name, anthropic("claude-deadline", base, timeout=timeout_s))
        for name, timeout_s in (("hasty", 1), ("patient", 10))
    ]
    entries = [*pools, *weighted, *ordered, *partly, *deadlines]
    return start(
        {
            "model_list": [
                *model_list(**lone, nowhere=anthropic("claude-x", nowhere)),
                *({"model_name": name, "litellm_params": params} for name, params in entries),
            ]
        }
    )


def keys_asked(provider: SimulatedProvider) -> list[str]:
    return [request.headers["x-api-key"] for request in provider.requests]


def models_asked(provider: SimulatedProvider) -> list[str]:
    return [msgspec.json.decode(request.body)["model"] for request in provider.requests]


@pytest.mark.parametrize("failure", [{"status": 500}, {"status": 529}, {"reset": True}])
def test_what_fails_once_is_asked_once_more(
    server: Tallygate, provider: SimulatedProvider, failure: dict[str, Any]
) -> None:
    provider.behave(**failure, times=1)
    body = question("lone-0")
    assert counted(server.count(body)) == count_tokens(body)
    assert provider.calls == 2


@pytest.mark.parametrize("failure", [{"status": 500}, {"reset": True}])
def test_what_fails_twice_is_told_and_not_to_be_tried_again(
    server: Tallygate, provider: SimulatedProvider, failure: dict[str, Any]
) -> None:
    provider.hang_up()  # what a kept connection ends with is sent again by a new one
    provider.behave(**failure)
    answer = server.count(question("lone-1"))
    refused(answer, failure.get("status", 502), "api_error")
    assert answer.headers["x-should-retry"] == "false"
    assert provider.calls == 2


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        ({"status": 400}, 400),
        ({"status": 404}, 404),
        ({"status": 413}, 413),
        ({"status": 200, "body": {}}, 502),
    ],
)
def test_what_would_be_answered_alike_is_not_asked_again(
    server: Tallygate, provider: SimulatedProvider, failure: dict[str, Any], status: int
) -> None:
    provider.behave(**failure)
    assert server.count(question("lone-2")).status_code == status
    assert provider.calls == 1


def test_a_breaker_opens_tells_why_and_closes_again(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    known = question("lone-3")
    counted(server.count(known))
    provider.behave(status=503)
    answers = [server.count(question("lone-3")) for _ in range(6)]
    assert provider.calls == 1 + FAILURES
    last = answers[-1]
    refused(last, 529, "overloaded_error")
    assert 0 < int(last.headers["retry-after"]) <= 5
    assert server.count(known).headers["x-tallygate-source"] == "cache"
    provider.clear()
    body = question("lone-3")
    until(lambda: server.count(body).status_code == 200)
    assert provider.calls == 1
    counted(server.count(question("lone-3")))


def test_a_limit_is_kept_by_every_worker(
    start: Callable[..., Tallygate], provider: SimulatedProvider
) -> None:
    server = start(
        {"model_list": model_list(claude=anthropic("claude-x", provider.url))}, workers=4
    )
    counted(server.count(question("claude")))
    provider.behave(status=429, headers={"retry-after": "30"})
    first = server.count(question("claude"))
    refused(first, 429, "rate_limit_error")
    assert first.headers["retry-after"] == "30"
    for _ in range(16):  # each over a connection of its own, to any of the workers
        answer = server.count(question("claude"))
        refused(answer, 429, "rate_limit_error")
        assert 25 <= int(answer.headers["retry-after"]) <= 30
    assert provider.calls == 2


@pytest.mark.parametrize("status", [429, 500, 401])
def test_another_of_the_pool_answers_for_one_that_fails(
    server: Tallygate, provider: SimulatedProvider, status: int
) -> None:
    name = {429: "pool-0", 500: "pool-1", 401: "pool-2"}[status]
    provider.behave(status=status, times=2)
    body = question(name)
    answer = server.count(body)
    assert counted(answer) == count_tokens(body)
    assert answer.headers["x-tallygate-model"] == f"claude-{name}"
    assert sorted(keys_asked(provider)) == KEYS
    assert server.count(body).headers["x-tallygate-source"] == "cache"
    assert provider.calls == 3


def test_one_that_is_limited_is_left_alone_while_the_others_answer(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    provider.behave(status=429, times=1, headers={"retry-after": "50"})
    counted(server.count(question("pool-3")))
    limited = keys_asked(provider)[0]
    for _ in range(12):
        counted(server.count(question("pool-3")))
    asked = Counter(keys_asked(provider))
    assert asked[limited] == 1
    assert set(asked) == set(KEYS)


def test_when_the_whole_pool_is_limited_the_earliest_time_is_told(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    for wait in ("50", "20", "40"):
        provider.behave(status=429, times=1, headers={"retry-after": wait})
    refused(server.count(question("pool-4")), 429, "rate_limit_error")
    assert provider.calls == 3
    answer = server.count(question("pool-4"))
    refused(answer, 429, "rate_limit_error")
    assert 15 <= int(answer.headers["retry-after"]) <= 20
    assert provider.calls == 3


def test_a_pool_whose_entries_all_fail_is_asked_once_more_at_most(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    provider.behave(status=500)
    refused(server.count(question("pool-5")), 500, "api_error")
    assert provider.calls == len(KEYS) + 1


def test_the_least_busy_is_asked(server: Tallygate, provider: SimulatedProvider) -> None:
    provider.behave(delay_s=0.5)
    bodies = [question("pool-6") for _ in range(9)]
    with ThreadPoolExecutor(len(bodies)) as crowd:
        answers = list(crowd.map(server.count, bodies))
    assert [counted(one) for one in answers] == [count_tokens(body) for body in bodies]
    assert Counter(keys_asked(provider)) == dict.fromkeys(KEYS, 3)


def test_weights_decide_who_is_asked_how_often(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    for _ in range(100):
        counted(server.count(question("weighted")))
    heavy = Counter(keys_asked(provider))[KEYS[0]]
    assert 75 <= heavy <= 99  # 90 expected; four standard deviations are 12


def test_different_counters_are_never_balanced(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    for _ in range(12):
        assert server.count(question("ordered")).headers["x-tallygate-model"] == "claude-one"
    assert set(models_asked(provider)) == {"claude-one"}
    provider.behave(status=500, model="claude-one")
    answer = server.count(question("ordered"))
    assert answer.headers["x-tallygate-model"] == "claude-two"
    assert Counter(models_asked(provider)) == {"claude-one": 14, "claude-two": 1}


def test_one_question_is_repeated_once_whatever_fails(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    provider.behave(status=500)
    refused(server.count(question("ordered")), 500, "api_error")
    assert Counter(models_asked(provider)) == {"claude-one": 2, "claude-two": 1}


def test_an_entry_without_its_key_leaves_the_others_of_the_pool(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    for _ in range(4):
        counted(server.count(question("partly")))
    assert provider.calls == 4


def test_a_caller_may_wait_less_and_harms_nobody(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    provider.behave(delay_s=1.5)
    body = question("lone-4")
    began = time.monotonic()
    answer = server.count(body, x_litellm_timeout="0.3")
    assert time.monotonic() - began < 1.2
    refused(answer, 504, "timeout_error")
    assert counted(server.count(body)) == count_tokens(body)
    assert provider.calls == 1


def test_a_caller_that_leaves_still_has_its_question_in_flight(
    start: Callable[..., Tallygate], provider: SimulatedProvider
) -> None:
    one = {"name": "one", "key": "sk-one-0123456789", "max_parallel_misses": 1}
    models = model_list(claude=anthropic("claude-x", provider.url))
    server = start({"model_list": models, "keys": [one]})
    counted(server.count(question("claude")))
    provider.behave(delay_s=3)
    hurried = {"authorization": "Bearer sk-one-0123456789", "x_litellm_timeout": "0.2"}
    refused(server.count(question("claude"), **hurried), 504, "timeout_error")
    for _ in range(3):
        refused(server.count(question("claude"), **hurried), 429, "rate_limit_error")
    assert provider.calls == 2
    until(lambda: server.count(question("claude"), **hurried).status_code == 504)


@pytest.mark.parametrize("given", ["0", "-1", "soon", "1e3", "NaN", "", "9999999"])
def test_a_time_that_is_none_is_refused(
    server: Tallygate, provider: SimulatedProvider, given: str
) -> None:
    message = refused(
        server.count(question("lone-5"), x_litellm_timeout=given), 400, "invalid_request_error"
    )
    assert message.startswith("x-litellm-timeout:")
    assert provider.calls == 0


def test_nobody_is_reached(server: Tallygate) -> None:
    answers = [server.count(question("nowhere")) for _ in range(4)]
    for answer in answers:
        refused(answer, 502, "api_error")
    assert answers[0].headers["x-should-retry"] == "false"
    assert "retry-after" in answers[-1].headers


@pytest.mark.slow
def test_a_short_deadline_of_one_name_ends_no_wait_of_another(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    """The same question by two names: who may wait longer is not told of the other's end."""
    provider.behave(delay_s=2)
    body = question("hasty")
    with ThreadPoolExecutor(2) as pool:
        hasty = pool.submit(server.count, body)
        until(lambda: provider.calls == 1)
        patient = server.count({**body, "model": "patient"})
    refused(hasty.result(), 504, "timeout_error")
    assert counted(patient) == count_tokens(body)
