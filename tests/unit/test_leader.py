"""Where a request is written: on the loop if that is quick, else in a thread."""

import asyncio
import threading
from typing import Any, cast

import pytest

from adapters.base import (
    CountRequest,
    Deployment,
    Endpoint,
    HeaderCredential,
    Secret,
    UpstreamError,
    UpstreamRequest,
)
from adapters.registry import ADAPTERS
from app.leader import Journey, Leader
from app.limits import is_failure, is_worth_a_retry
from app.upstream import CrowdedUpstreamError, Upstream

QUICK, CONVERTED = 1_000_000, 65_536


class Crowded:
    """An upstream whose connections are all taken."""

    async def send(self, *_: Any) -> None:
        raise CrowdedUpstreamError

    async def sign(self, request: UpstreamRequest, *_: Any) -> UpstreamRequest:
        return request


def test_no_room_is_no_failure_of_the_provider() -> None:
    crowded: Any = Crowded()
    leader = Leader(crowded, crowded, lambda: 0.0)
    request = UpstreamRequest("POST", "http://x/", (), b"")
    deployment = Deployment("n", "a", "anthropic", Endpoint("m", "http://x"), 5.0)
    error = asyncio.run(leader.lead(request, deployment, 5.0, Journey())).error
    assert error is not None
    assert (error.status, error.type) == (529, "overloaded_error")
    assert ("retry-after", "1") in error.headers
    assert not is_failure(error)
    assert not is_worth_a_retry(error)


def test_no_room_is_told_in_time_though_signing_has_taken_most_of_it() -> None:
    class Slow(Crowded):
        async def sign(self, request: UpstreamRequest, *_: Any) -> UpstreamRequest:
            await asyncio.sleep(0.3)
            return request

    async def run() -> UpstreamError | None:
        upstream, signer = Upstream(connections=1), cast("Any", Slow())
        assert upstream._rooms.take("http://x")
        leader = Leader(upstream, signer, lambda: 0.0)
        credential = HeaderCredential("x-api-key", "", Secret("k"))
        endpoint = Endpoint("m", "http://x", credential=credential)
        deployment = Deployment("n", "a", "anthropic", endpoint, 5.0)
        request = UpstreamRequest("POST", "http://x/", (), b"")
        return (await leader.lead(request, deployment, 0.5, Journey())).error

    error = asyncio.run(run())
    assert error is not None
    assert error.status == 529
    assert not is_failure(error)


def thread_of(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> threading.Thread:
    found: list[threading.Thread] = []

    def request(*_: Any) -> UpstreamRequest:
        found.append(threading.current_thread())
        return UpstreamRequest("POST", "http://x/", (), b"")

    monkeypatch.setattr(type(ADAPTERS[name]), "request", request)
    nobody: Any = None
    leader = Leader(nobody, nobody, lambda: 0.0)
    deployment = Deployment("n", "a", name, Endpoint("m", "http://x"), 5.0)
    count = CountRequest(b" " * size, "2023-06-01")
    assert isinstance(asyncio.run(leader.write(count, deployment, 5.0)), UpstreamRequest)
    return found[0]


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_long_body_is_written_off_the_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    long = CONVERTED if "gemini" in name else QUICK
    here = threading.current_thread()
    assert thread_of(name, long - 1, monkeypatch) is here
    assert thread_of(name, long, monkeypatch) is not here
