"""The real parts that tests put together: server processes and the simulated provider."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.provider import SimulatedProvider
from tests.server import Tallygate

PROCESSES = tuple(Path(__file__).parent / room for room in ("clients", "e2e"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what goes through server processes, which `make test` leaves to `make processes`."""
    for item in items:
        if any(item.path.is_relative_to(room) for room in PROCESSES):
            item.add_marker(pytest.mark.processes)


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatedProvider]:
    """One simulated provider per test file."""
    with SimulatedProvider() as running:
        yield running


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Tallygate]]:
    """Start servers of this file's own configurations; all end with the file."""
    running: list[Tallygate] = []

    def start_one(config: dict[str, Any], **options: Any) -> Tallygate:
        folder = tmp_path_factory.mktemp("tallygate")
        running.append(Tallygate(folder, config, **options))
        return running[-1]

    yield start_one
    for server in running:
        server.stop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Turn a skip into a failure where everything should be installed (TALLYGATE_CI=1)."""
    del item
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("TALLYGATE_CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).parent.parent
