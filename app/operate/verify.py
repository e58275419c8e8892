"""Counting bodies again, to compare with what is remembered of them.

All that is remembered is read first: a count that proves wrong ends all that its model has
remembered, and the lines after it would have nothing to compare with.
"""

from collections.abc import Callable

import msgspec
from msgspec import Struct

from app.operate.terminal import progress, say

OK, NOT_REMEMBERED = 200, 504
FROM_PROVIDER = frozenset({"live", "coalesced"})


class Reply(Struct, frozen=True):
    """What a server answered to one body."""

    status: int
    content: bytes
    source: str = ""
    counter: str = ""
    """Provider and upstream model."""


Ask = Callable[[bytes, str], Reply]
"""Sends a body with a ``cache-control``."""


class Verdict(Struct, frozen=True):
    """What became of one line."""

    kind: str
    """same, drift, unknown or failed."""
    text: str = ""


def verify(bodies: list[tuple[int, bytes]], ask: Ask) -> int:
    """Compare, print what differs and a summary; return the exit code.

    Bodies come with their line's number. Says nothing of their content.
    """
    tally = dict.fromkeys(("same", "drift", "unknown", "failed"), 0)
    with progress("verify", 2 * len(bodies)) as advance:
        remembered: list[Reply] = []
        for _, body in bodies:
            remembered.append(ask(body, "only-if-cached"))
            advance(1)
        for (number, body), before in zip(bodies, remembered, strict=True):
            verdict = _compare(before, body, ask)
            tally[verdict.kind] += 1
            if verdict.text:
                say(f"line {number}: {verdict.kind}: {verdict.text}")
            advance(1)
    say(", ".join(f"{kind} {count}" for kind, count in tally.items()))
    return 1 if tally["drift"] or tally["failed"] else 0


def _compare(before: Reply, body: bytes, ask: Ask) -> Verdict:
    """Ask the provider only where there is something to compare with."""
    if before.status == NOT_REMEMBERED:
        return Verdict("unknown")
    if before.source == "estimate":
        return Verdict("unknown", "estimates are not remembered")
    if before.status != OK:
        return Verdict("failed", _refusal(before))
    now = ask(body, "no-cache, no-store")
    if now.status != OK:
        return Verdict("failed", _refusal(now))
    if now.source not in FROM_PROVIDER:
        return Verdict("failed", f"the provider gave no count; the answer was {now.source}")
    if now.counter != before.counter:
        return Verdict("failed", f"counted by {before.counter}, now by {now.counter}")
    old, new = _tokens(before), _tokens(now)
    if old == new:
        return Verdict("same")
    return Verdict("drift", f"{now.counter}: remembered {old}, counted {new} ({new - old:+d})")


def _tokens(reply: Reply) -> int:
    tokens: int = msgspec.json.decode(reply.content)["input_tokens"]
    return tokens


def _refusal(reply: Reply) -> str:
    """Name status and type; the message may quote the body."""
    try:
        kind = str(msgspec.json.decode(reply.content)["error"]["type"])
    except (msgspec.DecodeError, KeyError, TypeError):
        kind = reply.source or "no answer of a Tallygate server"
    return f"{reply.status} {kind}" if reply.status else kind
