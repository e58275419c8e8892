"""The way of a count inside one worker: no await on a hit, one call per question, keys complete."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.auth import Caller
from app.config import load
from app.counter import TokenCounter
from app.errors import ProxyError
from app.keys import Answer
from app.leader import Journey
from app.question import Question, decode, decode_native
from app.workers import Worker
from bench.provider import SimulatedProvider, count_tokens

CALLER = Caller("team")
BODY: dict[str, Any] = {
    "model": "claude",
    "messages": [{"role": "user", "content": "Hello, how are you?"}],
}


def raw(**changes: Any) -> bytes:
    return msgspec.json.encode({**BODY, **changes})


def in_worker(
    folder: Path, provider: SimulatedProvider, test: Callable[[TokenCounter], Awaitable[None]]
) -> None:
    path = folder / "config.yaml"
    path.write_text(
        f"""\
model_list:
  - model_name: claude
    litellm_params: {{model: anthropic/claude-x, api_key: k, api_base: "{provider.url}"}}
  - model_name: bad-key
    litellm_params:
      {{model: anthropic/claude-x, api_key: sk-ant-invalid, api_base: "{provider.url}"}}
  - model_name: claude-y
    litellm_params: {{model: anthropic/claude-y, api_key: k, api_base: "{provider.url}"}}
cache: {{host: {{path: "{folder}/counts.sqlite3"}}}}
telemetry: {{jsonl: {{enabled: false}}}}
"""
    )

    async def run() -> None:
        worker = Worker(load(str(path), {}), None)
        await worker.open()
        try:
            await test(worker.counter)
        finally:
            await worker.close()

    asyncio.run(run())


async def ask(counter: TokenCounter, question: Question, caller: Caller = CALLER) -> Answer:
    return await counter.count(question, caller, counter.route(question, caller), Journey())


def test_a_hit_awaits_nothing(tmp_path: Path, provider: SimulatedProvider) -> None:
    async def check(counter: TokenCounter) -> None:
        question = decode({}, raw())
        live = await ask(counter, question)
        assert live.source == "live"
        repeat = counter.count(question, CALLER, counter.route(question, CALLER), Journey())
        with pytest.raises(StopIteration) as finished:
            repeat.send(None)
        assert finished.value.value.source == "cache"
        assert finished.value.value.record == live.record
        assert live.record.input_tokens == count_tokens(BODY)

    in_worker(tmp_path, provider, check)


def test_c12_what_is_hashed_is_what_is_sent(tmp_path: Path, provider: SimulatedProvider) -> None:
    spaced = (
        b'{ "model": "claude", "tools": [ {"name": "t", "input_schema": {"z" : 1.0, "a": 1E3} } ],'
        b'\n "max_tokens": 9, "messages": [ {"role": "user", "content": "a  \\u0041"} ] }'
    )

    async def check(counter: TokenCounter) -> None:
        question = decode({}, spaced)
        await ask(counter, question)
        sent = provider.requests[-1].body
        assert sent == b'{"model":"claude-x",' + question.request.body[1:]
        assert sent == (
            b'{"model":"claude-x","messages":[{"role":"user","content":"a  \\u0041"}],'
            b'"tools":[{"name":"t","input_schema":{"z":1.0,"a":1E3}}]}'
        )

    in_worker(tmp_path, provider, check)


DIFFERENT: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "plain": ({}, {}),
    "another version": ({"anthropic-version": "2026-10-21"}, {}),
    "a beta": ({"anthropic-beta": "a"}, {}),
    "another beta": ({"anthropic-beta": "b"}, {}),
    "both betas": ({"anthropic-beta": "a,b"}, {}),
    "a user profile": ({"anthropic-user-profile-id": "u"}, {}),
    "a workspace": ({"anthropic-workspace-id": "u"}, {}),
    "another model": ({}, {"model": "claude-y"}),
    "another message": ({}, {"messages": [{"role": "user", "content": "Hello, how are you? "}]}),
    "an unknown field": ({}, {"brand_new": 1}),
}


def test_c11_whatever_decides_the_number_is_in_the_key(
    tmp_path: Path, provider: SimulatedProvider
) -> None:
    async def check(counter: TokenCounter) -> None:
        for name, (headers, changes) in DIFFERENT.items():
            answer = await ask(counter, decode(headers, raw(**changes)))
            assert answer.source == "live", name

    in_worker(tmp_path, provider, check)


SAME: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "the default version": ({"anthropic-version": "2023-06-01"}, {}),
    "who asks": ({"x-litellm-end-user-id": "someone"}, {}),
    "another order": ({}, {"messages": BODY["messages"], "model": "claude"}),
    "fields of inference": ({}, {"max_tokens": 5, "metadata": {"user_id": "x"}, "stream": True}),
}


@pytest.mark.parametrize("name", SAME)
def test_what_does_not_decide_the_number_is_not(
    tmp_path: Path, provider: SimulatedProvider, name: str
) -> None:
    headers, changes = SAME[name]

    async def check(counter: TokenCounter) -> None:
        assert (await ask(counter, decode({}, raw()))).source == "live"
        assert (await ask(counter, decode(headers, raw(**changes)))).source == "cache"

    in_worker(tmp_path, provider, check)


def test_betas_are_a_set(tmp_path: Path, provider: SimulatedProvider) -> None:
    async def check(counter: TokenCounter) -> None:
        first = decode({"anthropic-beta": "b, a ,b"}, raw())
        assert (await ask(counter, first)).source == "live"
        assert provider.requests[-1].headers["anthropic-beta"] == "a,b,token-counting-2024-11-01"
        again = decode({"anthropic-beta": "a,b"}, raw())
        assert (await ask(counter, again)).source == "cache"

    in_worker(tmp_path, provider, check)


def test_both_routes_share_what_they_send_alike(
    tmp_path: Path, provider: SimulatedProvider
) -> None:
    async def check(counter: TokenCounter) -> None:
        assert (await ask(counter, decode({}, raw()))).source == "live"
        native = decode_native({}, raw(model="claude-x"), "")
        assert (await ask(counter, native)).source == "cache"
        queried = decode_native({}, raw(model="claude-x"), "beta=true")
        assert (await ask(counter, queried)).source == "live"
        assert provider.requests[-1].target == "/v1/messages/count_tokens?beta=true"

    in_worker(tmp_path, provider, check)


def test_many_at_once_make_one_call(tmp_path: Path, provider: SimulatedProvider) -> None:
    async def check(counter: TokenCounter) -> None:
        before = provider.calls
        provider.behave(delay_s=0.1, times=1)
        question = decode({}, raw())
        asks = [asyncio.create_task(ask(counter, question)) for _ in range(200)]
        answers = [await one for one in asks]
        assert provider.calls == before + 1
        assert sorted(answer.source for answer in answers) == ["coalesced"] * 199 + ["live"]

    in_worker(tmp_path, provider, check)


def test_an_older_flight_does_not_take_the_place_of_a_newer_count(
    tmp_path: Path, provider: SimulatedProvider
) -> None:
    async def check(counter: TokenCounter) -> None:
        provider.behave(delay_s=0.5, status=200, body={"input_tokens": 1}, times=1)
        provider.behave(status=200, body={"input_tokens": 2}, times=1)
        older = asyncio.create_task(ask(counter, decode({}, raw())))
        await asyncio.sleep(0.1)
        newer = await ask(counter, decode({"cache-control": "no-cache"}, raw()))
        assert (newer.record.input_tokens, newer.source) == (2, "live")
        assert newer.stored
        late = await older
        assert (late.record.input_tokens, late.stored) == (1, False)
        assert (await ask(counter, decode({}, raw()))).record.input_tokens == 2

    in_worker(tmp_path, provider, check)


def test_an_entry_s_failure_is_its_own(tmp_path: Path, provider: SimulatedProvider) -> None:
    async def check(counter: TokenCounter) -> None:
        provider.behave(delay_s=0.3, times=1)
        bad = asyncio.create_task(ask(counter, decode({}, raw(model="bad-key"))))
        await asyncio.sleep(0.05)
        good = await ask(counter, decode({}, raw()))
        assert good.record.input_tokens == count_tokens(BODY)
        with pytest.raises(ProxyError) as refused:
            await bad
        assert refused.value.status == 502

    in_worker(tmp_path, provider, check)
