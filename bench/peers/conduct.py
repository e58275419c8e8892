"""What a server does besides being fast: whom it asks, and whom it answers."""

from msgspec import Struct

from bench.play import Place
from bench.provider.anthropic import REFUSED_KEY
from bench.questions import Message
from bench.scenarios import Server
from bench.servers import ask, count
from bench.traffic import body

_TIMES = 2


class Conduct(Struct, frozen=True):
    """What became of one question that was asked twice, then under a key that nobody knows."""

    calls: int
    """To the provider, for both."""
    stranger_status: int
    stranger_calls: int

    def __str__(self) -> str:
        served = "answered" if self.stranger_status == 200 else f"refused ({self.stranger_status})"
        return (
            f"the same question twice asked the provider {_times(self.calls)}; under a wrong key it"
            f" was {served}, which asked the provider {_times(self.stranger_calls)}"
        )


def _times(number: int) -> str:
    return {0: "not at all", 1: "once", 2: "twice"}.get(number, f"{number} times")


def observe(server: Server, place: Place) -> Conduct | None:
    """Ask a new question; None where nobody counts the provider's calls."""
    if place.provider is None:
        return None
    at = place.addresses[server]
    message = Message(b"", *body(place.model, 300))
    question = message.with_nonce(next(message.nonces()))
    place.provider.restart(0)
    for _ in range(_TIMES):
        count(at, place.key, question)
    calls = place.provider.calls()
    status = ask(at, REFUSED_KEY, question).status_code
    return Conduct(calls, status, place.provider.calls() - calls)
