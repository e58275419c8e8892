"""Exact repeats inside one worker: neither decoded nor awaited, and never another's answer."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from sanic.compat import Header
from sanic.request import Request
from sanic.response import HTTPResponse

from app import question, routes
from app.config import load
from app.count_handler import CountResponse
from app.workers import Worker
from bench.provider import SimulatedProvider, count_tokens
from tests.server import KEY

BODY: dict[str, Any] = {
    "model": "claude",
    "messages": [{"role": "user", "content": "Hello, how are you?"}],
}
RAW = msgspec.json.encode(BODY)

CONFIG = """\
model_list:
  - model_name: claude
    litellm_params: {{model: anthropic/claude-x, api_key: k, api_base: "{url}"}}
  - model_name: ordered
    litellm_params: {{model: anthropic/first, api_key: k, api_base: "{url}"}}
  - model_name: ordered
    litellm_params: {{model: anthropic/second, api_key: k, api_base: "{url}"}}
general_settings: {{master_key: {key}}}
keys: [{{name: other, key: sk-other-0123456789, models: [ordered]}}]
cache: {{host: {{path: "{folder}/counts.sqlite3"}}, {cache}}}
telemetry: {{jsonl: {{enabled: false}}}}
"""


class Here:
    """One worker's handlers, called without a server."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._app: Any = SimpleNamespace(ctx=SimpleNamespace(worker=worker))

    def request(
        self, body: bytes = RAW, path: str = "/v1/messages/count_tokens", /, **headers: str
    ) -> Request:
        fields = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        transport: Any = SimpleNamespace(get_extra_info=lambda _: None)
        one = Request(path.encode(), Header(fields), "1.1", "POST", transport, self._app)
        one.body = body
        return one

    async def ask(self, body: bytes = RAW, /, **headers: str) -> HTTPResponse:
        return await routes.count_tokens(self.request(body, **headers))


def in_worker(
    folder: Path,
    provider: SimulatedProvider,
    test: Callable[[Here], Awaitable[None]],
    cache: str = "",
) -> None:
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(url=provider.url, key=KEY, folder=folder, cache=cache))

    async def run() -> None:
        worker = Worker(load(str(path), {}), None)
        await worker.open()
        try:
            await test(Here(worker))
        finally:
            await worker.close()

    asyncio.run(run())


def header(answer: HTTPResponse, name: str) -> str:
    assert isinstance(answer, CountResponse), answer.body
    return dict(answer.pairs)[name.encode()].decode()


def source(answer: HTTPResponse) -> str:
    return header(answer, "x-tallygate-source")


def test_an_exact_repeat_awaits_nothing_and_decodes_nothing(
    tmp_path: Path, provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    async def check(here: Here) -> None:
        live = await here.ask()
        assert source(live) == "live"
        for module in (routes, question):
            for name in ("decode", "decode_native", "compact", "members", "canonical"):
                monkeypatch.setattr(module, name, refuse, raising=False)
        handler = routes.count_tokens(here.request())
        with pytest.raises(StopIteration) as finished:
            handler.send(None)
        again: HTTPResponse = finished.value.value
        assert source(again) == "cache"
        assert again.body == live.body == b'{"input_tokens":%d}' % count_tokens(BODY)
        # The same question in other bytes is decoded: what was made to fail shows it.
        spaced = await here.ask(RAW + b" ")
        assert spaced.status == 500

    in_worker(tmp_path, provider, check)
    assert provider.calls == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"anthropic_version": "2026-10-21"},
        {"anthropic_beta": "context-1m-2025-08-07"},
        {"anthropic_workspace_id": "wrkspc_1"},
        {"anthropic_user_profile_id": "prof_1"},
        {"cache_control": "no-cache"},
    ],
)
def test_a_header_that_decides_makes_another_question(
    headers: dict[str, str], tmp_path: Path, provider: SimulatedProvider
) -> None:
    async def check(here: Here) -> None:
        for _ in range(2):
            await here.ask()
        assert source(await here.ask(**headers)) == "live"
        assert source(await here.ask()) == "cache"

    in_worker(tmp_path, provider, check)


def test_what_the_ordinary_way_refuses_is_refused_of_repeats(
    tmp_path: Path, provider: SimulatedProvider
) -> None:
    async def check(here: Here) -> None:
        for _ in range(2):
            assert (await here.ask()).status == 200
        other = {"authorization": "Bearer sk-other-0123456789"}
        assert (await here.ask(**other)).status == 403
        assert (await here.ask(authorization="Bearer wrong")).status == 401
        assert (await here.ask(content_encoding="gzip")).status == 415
        assert (await here.ask(content_type="text/plain")).status == 415
        assert (await here.ask(x_litellm_timeout="soon")).status == 400

    in_worker(tmp_path, provider, check)
    assert provider.calls == 1


def test_the_route_is_part_of_the_question(tmp_path: Path, provider: SimulatedProvider) -> None:
    async def check(here: Here) -> None:
        for _ in range(2):
            await here.ask()
        native = here.request(RAW, "/anthropic/v1/messages/count_tokens?x=1")
        answer = await routes.count_native(native)
        assert (source(answer), header(answer, "x-tallygate-model")) == ("live", "claude")

    in_worker(tmp_path, provider, check)


def test_what_stood_in_for_the_first_entry_is_not_repeated(
    tmp_path: Path, provider: SimulatedProvider
) -> None:
    async def check(here: Here) -> None:
        body = msgspec.json.encode({**BODY, "model": "ordered"})
        # Once more after a pause, and then the next.
        provider.behave(status=529, times=2, model="first")
        assert header(await here.ask(body), "x-tallygate-model") == "second"
        assert header(await here.ask(body), "x-tallygate-model") == "first"

    in_worker(tmp_path, provider, check)


def test_a_forgotten_model_is_not_repeated(tmp_path: Path, provider: SimulatedProvider) -> None:
    async def check(here: Here) -> None:
        for _ in range(2):
            await here.ask()
        here.worker.tiers.advance("claude-x")
        assert source(await here.ask()) == "live"
        assert source(await here.ask()) == "cache"

    in_worker(tmp_path, provider, check)
    assert provider.calls == 2


def test_a_flight_from_before_a_purge_is_not_repeated_after_it(
    tmp_path: Path, provider: SimulatedProvider
) -> None:
    async def check(here: Here) -> None:
        provider.behave(delay_s=0.3, times=1)
        flying = asyncio.create_task(here.ask())
        await asyncio.sleep(0.1)
        here.worker.tiers.advance("claude-x")
        assert source(await flying) == "live"
        assert source(await here.ask()) == "live"

    in_worker(tmp_path, provider, check)
    assert provider.calls == 2


def test_an_expired_count_is_not_repeated(tmp_path: Path, provider: SimulatedProvider) -> None:
    async def check(here: Here) -> None:
        for _ in range(2):
            await here.ask()
        await asyncio.sleep(0.6)
        assert source(await here.ask()) == "live"

    in_worker(tmp_path, provider, check, cache="ttl_s: 0.5")


def test_callers_that_share_nothing_repeat_nothing_of_each_other(
    tmp_path: Path, provider: SimulatedProvider
) -> None:
    async def check(here: Here) -> None:
        body = msgspec.json.encode({**BODY, "model": "ordered"})
        assert source(await here.ask(body)) == "live"
        assert source(await here.ask(body)) == "cache"
        other = {"authorization": "Bearer sk-other-0123456789"}
        assert source(await here.ask(body, **other)) == "live"

    in_worker(tmp_path, provider, check, cache="scope: caller")


def test_the_end_user_of_a_repeat_is_its_own(tmp_path: Path, provider: SimulatedProvider) -> None:
    async def check(here: Here) -> None:
        told: list[str] = []
        sink: Any = SimpleNamespace(
            emit=lambda event: told.append(event.end_user),
            end=lambda: None,
            wait=lambda _: None,
        )
        here.worker.telemetry._sinks = (sink,)
        body = msgspec.json.encode({**BODY, "metadata": {"user_id": "of-the-body"}})
        for headers in ({}, {}, {"x_litellm_end_user_id": "of-the-header"}, {}):
            await here.ask(body, **headers)
        assert told == ["of-the-body", "of-the-body", "of-the-header", "of-the-body"]

    in_worker(tmp_path, provider, check)
