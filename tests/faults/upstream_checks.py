"""What holds for a count whatever the provider does: the right number, or an error."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Self

import httpx
import msgspec

from bench.load import run
from bench.provider.count import count_tokens
from bench.questions import Message
from bench.slice import Address, Load
from tests.e2e.exchange import BEARER, COUNT, Connection, question, refused, request, until
from tests.faults.crowd import workers
from tests.faults.scripted_provider import ScriptedProvider, truly
from tests.server import Tallygate

PAIRS = 5
"""How often a rate with trouble is measured beside one without."""


class Asker:
    """Asks one server over kept-alive connections, and knows the right answers."""

    def __init__(self, server: Tallygate) -> None:
        self.server = server
        self.client = httpx.Client(base_url=server.url, headers=BEARER, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def ask(self, asked: dict[str, Any]) -> httpx.Response:
        return self.client.post(COUNT, json=asked)

    def is_refused(self, status: int, type_: str, model: str) -> httpx.Response:
        """Ask something new, which must be refused so, and must not be remembered."""
        asked = question(model)
        response = self.ask(asked)
        refused(response, status, type_)
        self.forgot(asked)
        return response

    def forgot(self, asked: dict[str, Any]) -> None:
        """Nothing is known of a question that was answered by a fault."""
        response = self.client.post(COUNT, json=asked, headers={"cache-control": "only-if-cached"})
        refused(response, 504, "timeout_error")

    def answers(self, asked: dict[str, Any], source: str = "live") -> httpx.Response:
        """The right number, from there."""
        response = self.ask(asked)
        assert response.status_code == 200, response.text
        assert response.json() == {"input_tokens": count_tokens(asked)}
        assert response.headers["x-tallygate-source"] == source
        return response


def fails_and_recovers(
    asker: Asker, provider: ScriptedProvider, model: str, *refusals: tuple[int, str]
) -> httpx.Response:
    """The provider's fault is one of these refusals; once it is over the question is asked anew."""
    asked = question(model)
    response = asker.ask(asked)
    assert response.status_code in [status for status, _ in refusals], response.text
    refused(response, response.status_code, dict(refusals)[response.status_code])
    asker.forgot(asked)
    provider.script = truly
    asker.answers(asked)
    asker.answers(asked, "cache")
    return response


@contextmanager
def growth_bytes(server: Tallygate) -> Iterator[list[int]]:
    """Append by how much the one worker's resident memory grew at its peak."""
    (worker,) = workers(server.pid).values()
    process = Path(f"/proc/{worker}")
    (process / "clear_refs").write_text("5")  # the peak begins anew
    before = _peak_bytes(process)
    grown: list[int] = []
    yield grown
    grown.append(_peak_bytes(process) - before)


def _peak_bytes(process: Path) -> int:
    lines = (process / "status").read_text().splitlines()
    line = next(one for one in lines if one.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def until_closed(provider: ScriptedProvider, *, but: int = 0) -> None:
    """Wait until the server has closed the connections to the provider that it cannot use again."""
    until(lambda: provider.open_connections <= but)


@contextmanager
def hanging(
    server: Tallygate, model: str, requests: int, refusal: tuple[int, str]
) -> Iterator[None]:
    """Have so many questions out within the block; at its end all have been refused so."""
    connections = []
    for _ in range(requests):
        connections.append(Connection(server.port))
        connections[-1].send(request(msgspec.json.encode(question(model))))
    try:
        yield
        for one in connections:
            refused(one.read(), *refusal)
    finally:
        for one in connections:
            one.close()


def _hits(asker: Asker, known: dict[str, Any]) -> Load:
    body = msgspec.json.encode(known)
    message = Message(request(body).removesuffix(body), body)
    return Load(
        address=Address.of(asker.server.url),
        message=message,
        tokens=lambda asked: count_tokens(msgspec.json.decode(asked)),
        connections=8,
        seconds=1.0,
    )


def hit_p99s_ms(
    asker: Asker, known: dict[str, Any], *cases: Callable[[], AbstractContextManager[None]]
) -> list[tuple[float, ...]]:
    """Measure the p99 of hits in each case in turns: a tuple for each round."""
    load, rounds = _hits(asker, known), []
    for _ in range(PAIRS):
        p99s = []
        for case in cases:
            with case():
                p99s.append(run(load).latency.percentile_ns(99) / 1e6)
        rounds.append(tuple(p99s))
    return rounds


def hit_rates(
    asker: Asker, known: dict[str, Any], trouble: Callable[[], AbstractContextManager[None]]
) -> float:
    """Measure hits in turns without and with the trouble, and give the median of their ratios."""
    load, ratios = _hits(asker, known), []
    for _ in range(PAIRS):
        calm = run(load).rate
        with trouble():
            ratios.append(run(load).rate / calm)
    return median(ratios)
