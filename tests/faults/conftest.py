"""The file and the servers that faults are done to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.host import HostCache
from tests.faults.canary_config import Secrets
from tests.faults.quoting import QuotingLogin
from tests.faults.redis_server import BINARIES, RedisServer
from tests.faults.scripted_provider import ScriptedProvider, truly
from tests.host_file import MAX_BYTES, RECORDS, put

UNTIMED = {
    "test_bounds.py",
    "test_clients.py",
    "test_cluster_values.py",
    "test_credentials.py",
    "test_host_file.py",
    "test_host_processes.py",
    "test_http_slow.py",
    "test_http_strictness.py",
    "test_http_valid.py",
    "test_memory_races.py",
    "test_secrets.py",
    "test_secrets_config.py",
    "test_secrets_search.py",
    "test_secrets_shown.py",
    "test_upstream_answers.py",
    "test_upstream_credentials.py",
    "test_upstream_refusals.py",
    "test_upstream_requests.py",
    "test_upstream_tls.py",
}
"""What takes long, but not less when nothing else runs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Faults are timed: they run by themselves, one after the other.

    But for UNTIMED. A test's own mark, ``slow`` or ``processes``, goes before its file's.
    """
    for item in items:
        marked = item.get_closest_marker("slow") or item.get_closest_marker("processes")
        if item.path.is_relative_to(Path(__file__).parent) and not marked:
            untimed = item.path.name in UNTIMED
            item.add_marker(pytest.mark.processes if untimed else pytest.mark.slow)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A healthy file of RECORDS records, its log written back."""
    path = tmp_path / "own" / "host.sqlite"
    cache = HostCache(path, MAX_BYTES)
    cache.open()
    for number in range(RECORDS):
        put(cache, number)
    cache.raise_generation("m", 3)
    cache.shut()
    return path


@pytest.fixture(params=BINARIES)
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """An empty server of each kind that is installed."""
    with RedisServer(tmp_path, request.param) as running:
        yield running


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedProvider]:
    """A provider that says what a test wants."""
    with ScriptedProvider() as running:
        yield running


@pytest.fixture(autouse=True)
def _truthful(request: pytest.FixtureRequest) -> None:
    """Let every test begin with one that answers truly."""
    if "scripted" in request.fixturenames:
        request.getfixturevalue("scripted").script = truly


@pytest.fixture
def secrets() -> Secrets:
    """A canary for each slot of a credential."""
    return Secrets()


@pytest.fixture
def login(secrets: Secrets) -> Iterator[QuotingLogin]:
    """The token endpoints, which quote when they refuse."""
    with secrets.login() as running:
        yield running
