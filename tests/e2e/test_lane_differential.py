"""The lane and the ordinary way: the same bytes, events and metrics for the same traffic."""

import contextlib
import os
import random
import re
import select
import socket
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import FAILURES_STAND_ALONE, anthropic, model_list
from tests.e2e.failures import FAILING, FAILURES, HANGS_S
from tests.e2e.traffic import END_USER_HEADER, ENDED, OTHER_KEY, Client, bodies, conversation
from tests.server import KEY, Tallygate

Start = Callable[..., Tallygate]
USUAL_SEED = 3
SEED = int(os.environ.get("SEED", USUAL_SEED))
CONVERSATIONS = int(os.environ.get("CONVERSATIONS", "400"))
MANY = 60
COUNTED_HITS = 'tallygate_counts_total.*source="cache"'
PAUSE_S = 0.01
"""For an answer, where the piece was a whole request."""
OWN = {
    "time_s",
    "request_id",
    "duration_ms",
    "upstream_ms",
    "upstream_from_ms",
    "budget_wait_ms",
}
"""What an event tells of the one run."""

_ids_and_times = re.compile(
    rb"req_(?:sim_)?[0-9a-f]+"
    rb"|(?<=x-tallygate-counted-at: )[^\r]*|(?<=requests-reset: )[^\r]*|(?<=retry-after: )[0-9]+"
)


def config(provider: SimulatedProvider, **server: Any) -> dict[str, Any]:
    base = provider.url
    return {
        "model_list": model_list(
            **{
                "claude-3-5-sonnet": anthropic("claude-one", base),
                "wild/*": anthropic("*", base),
                "gemini": {
                    "model": "gemini/gemini-2",
                    "api_base": base,
                    "api_key": "AIza-upstream",
                },
                "only-for-others": anthropic("claude-two", base),
                f"{FAILING}/*": anthropic("*", base),
                f"{FAILING}/hangs": anthropic("hangs", base, timeout=HANGS_S),
            }
        ),
        "general_settings": {
            "user_header_mappings": [
                {"header_name": END_USER_HEADER, "litellm_user_role": "customer"}
            ]
        },
        "keys": [
            {
                "name": "other",
                "key": OTHER_KEY,
                "models": ["claude-3-5-sonnet", "wild/*", f"{FAILING}/*"],
            }
        ],
        "limits": FAILURES_STAND_ALONE,
        "telemetry": {"hit_records_per_s": 1_000_000},
        "server": server,
    }


def say(server: Tallygate, pieces: list[bytes]) -> tuple[bytes, bool]:
    """Send the pieces one by one, and return all that comes, apart from ids and times.

    And whether that is all: what has come is lost where more is sent behind a `connection: close`.
    """
    heard, is_all = b"", False
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock,
        contextlib.suppress(BrokenPipeError, ConnectionResetError),
    ):
        for piece in pieces:
            if piece == ENDED:
                with contextlib.suppress(OSError):  # not connected any more
                    sock.shutdown(socket.SHUT_WR)
                continue
            sock.sendall(piece)
            if select.select([sock], [], [], PAUSE_S)[0]:
                heard += sock.recv(65_536)
        while more := sock.recv(65_536):
            heard += more
        is_all = True
    return _ids_and_times.sub(b"-", heard), is_all


def difference(turn: int, pieces: list[bytes], heard: bytes, right: bytes) -> str:
    at = next((i for i, (a, b) in enumerate(zip(heard, right, strict=False)) if a != b), 0)
    heads = [piece[:600] for piece in pieces]
    near = slice(max(0, at - 500), at + 100)
    return f"conversation {turn}: {heads}\n\n{heard[near]!r}\n\n{right[near]!r}"


def events(server: Tallygate) -> list[dict[str, Any]]:
    lines = (msgspec.json.decode(line) for line in server.out.read_bytes().splitlines())
    return [{name: line[name] for name in line if name not in OWN} for line in lines]


def usage(server: Tallygate) -> list[dict[str, Any]]:
    """What the ledger says, by all but the minute."""
    names = "key,end_user,model,upstream_model,provider,source"
    asked = {"group_by": names, "limit": "100000"}
    answer = httpx.get(f"{server.url}/usage", params=asked, headers={"x-api-key": KEY})
    rows: list[dict[str, Any]] = answer.json()["data"]
    return rows


@pytest.mark.timeout(180)
@pytest.mark.parametrize("delay_s", [0, 0.02])
def test_lane_on_and_off_are_the_same_but_for_speed(
    start: Start, provider: SimulatedProvider, delay_s: float
) -> None:
    """With a provider that is slow most of what comes meets a question that is out."""
    with_lane, without = start(config(provider)), start(config(provider, hit_lane=False))
    dice = random.Random(SEED)
    for model, behaviour in FAILURES.items():
        provider.behave(model=model, **behaviour)
    if delay_s:
        provider.behave(delay_s=delay_s)
    stock, clients = bodies(dice, 12), [Client(dice) for _ in range(16)]
    for turn in range(CONVERSATIONS):
        pieces = conversation(dice, dice.choice(clients), stock)
        (heard, is_all), (right, is_all_right) = say(with_lane, pieces), say(without, pieces)
        if not (is_all and is_all_right):
            length = min(len(heard), len(right))
            heard, right = heard[:length], right[:length]
        assert heard == right, difference(turn, pieces, heard, right)
    # Also brings to both files what has been counted by now.
    used = [usage(one) for one in (with_lane, without)]
    assert used[0] == used[1]
    assert sum(row["requests"] for row in used[0]) > CONVERSATIONS
    metrics, others = with_lane.metrics(), without.metrics()
    lane_hits = metrics.pop("tallygate_lane_hits_total")
    assert others.pop("tallygate_lane_hits_total") == 0
    timed = re.compile("tallygate_request_seconds_(bucket|sum)")
    for series in [name for name in metrics if timed.match(name)]:
        del metrics[series], others[series]
    assert metrics == others
    hits = sum(value for name, value in metrics.items() if re.match(COUNTED_HITS, name))
    print(f"{lane_hits:.0f} of {hits:.0f} hits by the lane")
    assert lane_hits > (MANY if SEED == USUAL_SEED else 0)
    with_lane.stop()
    without.stop()
    told = events(with_lane)
    assert told == events(without)
    assert len(told) > CONVERSATIONS
