"""Clients of the server that a test file starts in its own ``server`` fixture."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import BEARER
from tests.e2e.launch import Launch
from tests.e2e.offence import Offender
from tests.e2e.stubs import Login, WayOut
from tests.server import Tallygate


@pytest.fixture(scope="module")
def client(server: Tallygate) -> Iterator[httpx.Client]:
    """Ask with KEY over kept-alive connections."""
    with httpx.Client(base_url=server.url, headers=BEARER, timeout=30) as one:
        yield one


@pytest.fixture(scope="module")
def stranger(server: Tallygate) -> Iterator[httpx.Client]:
    """Ask without a key."""
    with httpx.Client(base_url=server.url, timeout=30) as one:
        yield one


@pytest.fixture(autouse=True)
def _willing(provider: SimulatedProvider) -> None:
    """Let every test begin with a provider that answers, and has not been asked."""
    provider.clear()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launch]]:
    """Start processes that may refuse to; what still runs ends with the test."""
    launched: list[Launch] = []

    def launch_one(config: Any, *arguments: str, **options: Any) -> Launch:
        folder = tmp_path / str(len(launched))
        folder.mkdir()
        launched.append(Launch(folder, config, *arguments, **options))
        return launched[-1]

    yield launch_one
    for one in launched:
        one.kill()


@pytest.fixture(scope="module")
def login() -> Iterator[Login]:
    """Google's token endpoint and AWS's container credentials."""
    with Login() as running:
        yield running
        running.gate.set()


@pytest.fixture(scope="module")
def way_out() -> Iterator[WayOut]:
    """The proxy that leads, or would lead, to the internet."""
    with WayOut() as running:
        yield running


@pytest.fixture
def offender(server: Tallygate, provider: SimulatedProvider) -> Offender:
    """Send what must be refused."""
    return Offender(server, provider)
