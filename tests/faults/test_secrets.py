"""A3, A10: no credential and no prompt comes out where it does not belong, whatever goes wrong.

Every secret is a canary of its own (``canary_config``), every text of a question too
(``canary_tour``). Whoever is asked quotes what it was sent (``quoting``). Then everything that the
server has left is searched for each of them in each form (``left_behind``, ``canaries``).
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.exchange import Connection, request, until
from tests.faults.canaries import Canaries
from tests.faults.canary_config import COUNTING, Secrets
from tests.faults.canary_tour import Prompts, Tour
from tests.faults.left_behind import GuardedRedis, LeftBehind
from tests.faults.quoting import COUNTED, NO_COUNT, QuotingLogin, QuotingProvider, QuotingProxy
from tests.faults.scripted_provider import End
from tests.server import Tallygate

REFUSALS = (401, 402, 403)
FAULTS = (400, 422, *REFUSALS, 407, 429, 500, 529, COUNTED, NO_COUNT, End.RESET, 404)
SAME_WIRE = ("by-variable", "bedrock-container")
"""Asked like others, with a credential from elsewhere: the first faults are enough."""
COMMANDS = ("check", "cache stats", "cache export -", "usage")
SERVED = ("config.yaml", "server.log")
"""What the operator has written, and what Redis itself writes."""


@pytest.fixture
def way_out() -> Iterator[QuotingProxy]:
    with QuotingProxy() as running:
        yield running


@pytest.fixture
def quoting() -> Iterator[QuotingProvider]:
    with QuotingProvider() as running:
        yield running


def _suffer(tour: Tour, provider: QuotingProvider, model: str) -> None:
    """Let the provider refuse in every way: those who ask it, and then others beside them."""
    assert tour.ask(model) == 200
    assert tour.ask_plainly(model, times=2) == 200
    for fault in FAULTS[:2] if model in SAME_WIRE else FAULTS:
        provider.fault = fault
        for at_length in (False, True):
            tour.ask(model, neutral=fault in REFUSALS, at_length=at_length)
        tour.ask_plainly(model)
        provider.fault = None
        until(lambda: tour.ask_plainly(model) == 200)


def _shed(tour: Tour, server: Tallygate, provider: QuotingProvider, secrets: Secrets) -> None:
    """Be refused by every limit of this server's own, and by one that is silent."""
    provider.fault = End.SILENCE
    assert tour.ask("slow") == 504
    provider.fault = None
    assert {tour.ask("paced") for _ in range(3)} == {200, 429}
    assert {tour.ask("anthropic", secrets.narrow) for _ in range(3)} == {200, 429}
    assert tour.ask("gone") == 502
    large = b'{"model":"anthropic","pad":"%b"}' % (secrets.wrong.encode() * 2500)
    with Connection(server.port) as slow:
        slow.send(request(large)[:-100])
        until(lambda: tour.send(large) == 529)


def _search(left: LeftBehind, canaries: Canaries, prompts: set[str]) -> str:
    """Say what was found where; a question's own texts may come back to who asked it."""
    found = {place: canaries.found(data) for place, data in left.places.items()}
    size_mib = sum(map(len, left.places.values())) / 2**20
    print(f"{len(canaries.slots())} canaries sought in {len(found)} places, {size_mib:.1f} MiB")
    own = found["own answers"]
    quoted = {one for one in own if one.partition(":")[0] in prompts}
    assert quoted  # they are told the provider's text
    for one in quoted:
        del own[one]
    return "\n".join(
        f"{place}: {slot}: {around!r}"
        for place, slots in found.items()
        for slot, around in slots.items()
    )


def test_a3_a10_a_server_whose_providers_quote(
    tmp_path: Path,
    secrets: Secrets,
    quoting: QuotingProvider,
    login: QuotingLogin,
    way_out: QuotingProxy,
) -> None:
    """Every fault of every provider, every limit, a reload; Redis and the host's file remember."""
    left, prompts = LeftBehind(), Prompts(secrets.canaries)
    (tmp_path / "redis").mkdir()
    with GuardedRedis(tmp_path / "redis", secrets.redis) as cluster:
        config = secrets.config(quoting.url, login, tmp_path, {"url": cluster.url})
        environ = secrets.environ(login, way_out)
        with (
            Tallygate(tmp_path, config, environ=environ) as server,
            Tour(server, secrets, prompts) as tour,
        ):
            assert [tour.ask("anthropic", key) for key in secrets.callers] == [200, 200, 401]
            for model in COUNTING:
                _suffer(tour, quoting, model)
            assert tour.ask_as_oneself("claude-x") == 200
            for quoting.fault in FAULTS:
                tour.ask_as_oneself("claude-x")
            _shed(tour, server, quoting, secrets)
            tour.look_around()
            _keep(left, tour, server, tmp_path, environ)
            left.keep("Redis", cluster.contents())
            _reload_in_vain(server, tmp_path, secrets)
        left.keep("commands to Redis", cluster.heard())
    left.files(tmp_path, *SERVED)
    assert cluster.heard().count(b"EVAL") > len(COUNTING)
    assert b'"end_user"' in left.places["events"]
    assert "tallygate/counts.sqlite3" in left.places
    assert b"team" in left.places["tallygate/usage.sqlite3-wal"]
    assert b"team" in left.places["app usage"]
    if found := _search(left, secrets.canaries, prompts.slots):
        pytest.fail(found, pytrace=False)


def _keep(
    left: LeftBehind, tour: Tour, server: Tallygate, folder: Path, environ: dict[str, str]
) -> None:
    """Keep what a running server leaves; its files once more, as they are while they are open."""
    left.answers("own answers", tour.own)
    left.answers("others' answers", tour.others)
    left.processes(server.pid)
    left.files(folder, *SERVED)
    named = {"TALLYGATE_CONFIG": str(folder / "config.yaml"), "XDG_CACHE_HOME": str(folder)}
    left.commands(*COMMANDS, environ={**named, **environ})


def _reload_in_vain(server: Tallygate, folder: Path, secrets: Secrets) -> None:
    """Let it read a file that it cannot use."""
    written = folder / "config.yaml"
    written.write_text(f"{written.read_text()}\nserver: {{port: !{secrets.wrong}}}\n")
    os.kill(server.pid, signal.SIGHUP)
    until(lambda: "running configuration is kept" in server.err.read_text())


def test_a3_a10_a_server_that_is_refused(
    tmp_path: Path,
    secrets: Secrets,
    quoting: QuotingProvider,
    login: QuotingLogin,
    way_out: QuotingProxy,
) -> None:
    """Redis refuses the password, token endpoints the proof, the proxy its user: all quote."""
    left, prompts = LeftBehind(), Prompts(secrets.canaries)
    (tmp_path / "redis").mkdir()
    login.refuses = True
    with GuardedRedis(tmp_path / "redis", secrets.redis) as cluster:
        where = {
            "type": "redis",
            "host": "127.0.0.1",
            "port": str(cluster.port),
            "password": secrets.other_redis,
        }
        config = secrets.config(quoting.url, login, tmp_path, where)
        environ = secrets.environ(login, way_out)
        with (
            Tallygate(tmp_path, config, environ=environ) as server,
            Tour(server, secrets, prompts) as tour,
        ):
            for model in ("vertex", "bedrock-container", "abroad", "plain-abroad", "role"):
                statuses = {tour.ask(model, neutral=True) for _ in range(3)}
                assert statuses == {502}, model
                tour.ask_plainly(model)
            quoting.fault = 400
            tour.ask("anthropic")
            assert login.assertions
            assert way_out.asked
            until(lambda: "user or password refused" in server.err.read_text())
            _keep(left, tour, server, tmp_path, environ)
            cluster.kill()
            until(lambda: "/0: refused" in server.err.read_text())
    left.files(tmp_path, *SERVED)
    if found := _search(left, secrets.canaries, prompts.slots):
        pytest.fail(found, pytrace=False)
