"""Counts of every kind, and what their clients themselves saw of them."""

import http.client
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

from msgspec import Struct

from bench.provider import SimulatedProvider
from tests.e2e.exchange import COUNT, MODEL, NATIVE, Connection, anthropic, model_list
from tests.server import KEY

KEYS = {
    "master": KEY,
    "anna": "sk-anna-0123456789",
    "bert": "sk-bert-0123456789",
    "cora": "sk-cora-0123456789",
}
STRANGER = "stranger"
"""Whose key is none."""
LIMITED = "cora"
"""Whose key is for MODEL alone."""
END_USERS = [f"user-{number:02}" for number in range(50)]
CLIENTS, HERD, HERDS = 10, 8, 20
SLOW, FAILS_SLOWLY, SLOW_S = "is-slow", "fails-slowly", 0.3
LEAVERS = (SLOW,) * 16 + (FAILS_SLOWLY,) * 4
"""What those ask for who leave before their answer; some of it is asked a second time then."""
FAILS: dict[str, dict[str, Any]] = {
    "says-400": {"status": 400},
    "says-401": {"status": 401},
    "says-429": {"status": 429},
    "says-500": {"status": 500},
    "counts-nothing": {"body": {"input_tokens": 0}},
    "is-cut": {"truncate_bytes": -3},
}
"""What the provider does instead of counting, by the model.

It never ends a connection without a word: then nobody knows whether it was asked.
"""


class Ask(Struct, frozen=True):
    """One request; ``end_user`` is empty where nobody can read it."""

    body: bytes
    key: str
    end_user: str = ""
    header: str = ""
    """Names the end user besides."""
    path: str = COUNT


Facts = Counter[tuple[str, str]]
"""How often what was seen, by topic: one of TOPICS, and what of it."""
TOPICS = ("status", "source", "tokens", "calls", "key", "end user")
NO_NUMBER = "none: an error"
"""The source of what is not answered with a number."""


def note(
    facts: Facts,
    status: str,
    source: str,
    *,
    key: str = "",
    end_user: str = "",
    tokens: int = 0,
    calls: int = 0,
) -> None:
    """Add one count: its status, where its number came from, and who asked for whom."""
    facts["status", status] += 1
    facts["source", source or NO_NUMBER] += 1
    facts["key", key] += 1
    facts["end user", end_user] += 1
    facts["tokens", "counted"] += tokens
    facts["calls", "to providers"] += calls


def configuration(provider: SimulatedProvider) -> dict[str, Any]:
    """Entries that answer, entries that fail, and four keys."""
    models = (MODEL, SLOW, FAILS_SLOWLY, *FAILS)
    entries = {name: anthropic(name, provider.url) for name in models}
    keys: list[dict[str, Any]] = [{"name": name, "key": key} for name, key in KEYS.items()]
    only = {LIMITED: {"models": [MODEL]}}
    return {
        "model_list": model_list(**entries),
        "keys": [{**one, **only.get(one["name"], {})} for one in keys if one["key"] != KEY],
    }


def prepare(provider: SimulatedProvider) -> None:
    """Let the provider fail where FAILS say so, and take its time for SLOW."""
    for model, behaviour in FAILS.items():
        provider.behave(model=model, **behaviour)
    provider.behave(model=SLOW, delay_s=SLOW_S)
    provider.behave(model=FAILS_SLOWLY, delay_s=SLOW_S, status=500)


def play(port: int, requests: int) -> Facts:
    """Ask so many questions of every kind; nothing is in flight any more when it returns.

    What the clients cannot see, how often providers were asked, is not in the result.
    """
    dice = random.Random(7)
    asks = [*_mixed(dice, requests - len(LEAVERS) - HERD * HERDS), *_herds(dice)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        shares = [asks[number::CLIENTS] for number in range(CLIENTS)]
        parts = [*pool.map(partial(_ask_all, port), shares)]
        parts += pool.map(partial(_leave, port), LEAVERS)
    time.sleep(4 * SLOW_S)  # what they left behind is answered, too
    return sum(parts, Facts())


def _mixed(dice: random.Random, requests: int) -> Iterator[Ask]:
    """Repeats for the most part; then what is new, what fails and what is refused."""
    new = (f"nobody has asked {number}" for number in count())
    known = [f"question {number}" for number in range(100)]
    trusted = [name for name in KEYS if name != LIMITED]

    def plain(text: str, keys: Iterable[str] = KEYS, model: str = MODEL, **more: Any) -> Ask:
        return _ask(dice, text, dice.choice([*keys]), model, **more)

    kinds: dict[Callable[[], Ask], int] = {
        lambda: plain(dice.choice(known)): 70,
        lambda: plain(dice.choice(known), space=dice.randrange(1, 2000)): 10,
        lambda: plain(dice.choice(known), path=NATIVE): 4,
        lambda: plain(next(new)): 6,
        lambda: plain(next(new), trusted, dice.choice([*FAILS])): 4,
        lambda: plain(next(new), [LIMITED], SLOW): 2,
        lambda: plain("unheard of", trusted, "unheard-of"): 2,
        lambda: Ask(plain("?").body, STRANGER): 1,
        lambda: Ask(b'{"model": ', dice.choice([*KEYS])): 1,
    }
    for kind in dice.choices([*kinds], [*kinds.values()], k=requests):
        yield kind()


def _herds(dice: random.Random) -> Iterator[Ask]:
    """Eight who ask the same new question at the same moment, again and again."""
    for herd in range(HERDS):
        yield from (_ask(dice, f"herd {herd}", "bert", SLOW) for _ in range(HERD))


def _ask(
    dice: random.Random, text: str, key: str, model: str, *, space: int = 0, path: str = COUNT
) -> Ask:
    """Name an end user, in a header or in the body; ``space`` makes other bytes of it."""
    end_user, in_header = dice.choice(END_USERS), dice.random() < 0.5
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    body = json.dumps(asked if in_header else {**asked, "user": end_user}).encode()
    return Ask(body + b" " * space, key, end_user, end_user if in_header else "", path)


def _ask_all(port: int, asks: list[Ask]) -> Facts:
    facts = Facts()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for ask in asks:
        named = {"x-litellm-end-user-id": ask.header} if ask.header else {}
        headers = {"x-api-key": KEYS.get(ask.key, "sk-nobody-s"), **named}
        connection.request("POST", ask.path, ask.body, headers)
        response = connection.getresponse()
        body = json.loads(response.read())
        source = response.headers.get("x-tallygate-source", "")
        _saw(facts, ask, str(response.status), source, body.get("input_tokens", 0))
    connection.close()
    return facts


def _leave(port: int, model: str) -> Facts:
    """Ask what takes its time, and be gone before it is answered."""
    asked = {"model": model, "messages": [{"role": "user", "content": uuid4().hex}]}
    ask = Ask(json.dumps(asked).encode(), "bert")
    lines = (f"POST {ask.path} HTTP/1.1", "host: here", f"x-api-key: {KEYS[ask.key]}")
    head = "\r\n".join((*lines, f"content-length: {len(ask.body)}", "", "")).encode()
    connection = Connection(port)
    connection.send(head + ask.body)
    time.sleep(SLOW_S / 3)
    connection.reset()
    facts = Facts()
    _saw(facts, ask, "499")
    return facts


def _saw(facts: Facts, ask: Ask, status: str, source: str = "", tokens: int = 0) -> None:
    key = "" if ask.key == STRANGER else ask.key
    note(facts, status, source, key=key, end_user=ask.end_user, tokens=tokens)
