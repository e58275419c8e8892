"""Names that cannot be looked up, or not in time. Row U12."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.exchange import anthropic, model_list, question, until
from tests.faults.name_server import (
    NO_SUCH_NAME,
    REFUSED,
    SERVER_FAILURE,
    NameServer,
    with_name_server,
)
from tests.faults.scripted_provider import ScriptedProvider
from tests.faults.upstream_checks import PAIRS, Asker, hanging, hit_rates
from tests.server import Tallygate

HUNG = 50
LEAST_RATE = 0.8
DEADLINE_S = 4.0
KNOWN, UNKNOWN = "known", "unknown"
SLOW = [f"slow-{turn}" for turn in range(PAIRS)]


@pytest.fixture(scope="module")
def names() -> Iterator[NameServer]:
    with NameServer() as running:
        yield running


@pytest.fixture(scope="module")
def asker(
    start: Callable[..., Tallygate],
    scripted: ScriptedProvider,
    names: NameServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Asker]:
    """One worker; one entry's host is in the machine's own file, the other's is to be looked up."""
    names.code = NO_SUCH_NAME
    models = {
        KNOWN: anthropic("known", f"http://localhost:{scripted.port}"),
        **{
            name: anthropic(name, "http://counter.example:8080", timeout=DEADLINE_S)
            for name in (UNKNOWN, *SLOW)
        },
    }
    command = with_name_server(tmp_path_factory.mktemp("names"))
    with Asker(start({"model_list": model_list(**models)}, command=command)) as one:
        yield one


@pytest.mark.parametrize("code", [NO_SUCH_NAME, SERVER_FAILURE, REFUSED])
def test_u12_a_name_that_is_not_found_is_a_bad_gateway(
    asker: Asker, names: NameServer, code: int
) -> None:
    before, names.code = names.asked, code
    asker.is_refused(502, "api_error", UNKNOWN)
    assert names.asked > before
    asker.answers(question(KNOWN))


@pytest.mark.timeout(180)
def test_u12_look_ups_that_hang_hold_nobody_up(asker: Asker, names: NameServer) -> None:
    names.code = None
    slow = iter(SLOW)

    @contextmanager
    def hung() -> Iterator[None]:
        before = names.asked
        with hanging(asker.server, next(slow), HUNG, (504, "timeout_error")):
            until(lambda: names.asked > before)
            asker.answers(question(KNOWN))
            yield

    known = question(KNOWN)
    asker.answers(known)
    rate = hit_rates(asker, known, hung)
    print(f"u12: {HUNG} look-ups hang: hits at {rate:.1%} of the rate without")
    assert rate >= LEAST_RATE
