"""How much is remembered: ``GET /cache/stats`` for the master key, and ``cache stats``."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import BEARER, refused
from tests.e2e.exchange import question as ask
from tests.e2e.operate import Operator, config
from tests.faults.redis_server import RedisServer
from tests.server import KEY, Tallygate, free_port

Start = Callable[..., Tallygate]
TEAM = "sk-team-a-and-nobody-else"


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="module")
def both(
    provider: SimulatedProvider, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Describe a server with every tier, and a key beside the master's."""
    file = tmp_path_factory.mktemp("host") / "counts"
    tiers = config(provider, file, cluster={"url": redis_server.url})
    return {**tiers, "keys": [{"name": "team-a", "key": TEAM}]}


@pytest.fixture(scope="module")
def server(both: dict[str, Any], start: Start) -> Tallygate:
    return start(both)


def stats(server: Tallygate, **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(f"{server.url}/cache/stats", headers=sent)


def test_the_master_key_sees_every_tier(server: Tallygate) -> None:
    body = ask()
    for _ in range(3):
        server.count(body)
    answer = stats(server, **BEARER)
    assert answer.status_code == 200
    shown = answer.json()
    assert shown["local"]["entries"] == 1
    assert shown["local"]["bytes"] > 500
    assert shown["memo"] == {"entries": 1}
    assert shown["host"]["trouble"] is None
    assert shown["host"]["file_bytes"] > 0
    assert shown["cluster"]["trouble"] is None
    assert shown["cluster"]["breaker_open"] is False
    assert shown["generations"] == {}
    totals = shown["tallygate_cache_total"]
    assert totals["local"]["hit"] == 2
    assert totals["host"]["miss"] >= 1
    assert set(totals) == {"local", "host", "cluster"}
    assert body["messages"][0]["content"] not in answer.text


@pytest.mark.parametrize(
    ("headers", "status", "type_"),
    [
        ({}, 401, "authentication_error"),
        ({"x_api_key": "sk-wrong"}, 401, "authentication_error"),
        ({"x_api_key": TEAM}, 403, "permission_error"),
    ],
    ids=["none", "wrong", "another's"],
)
def test_nobody_else_sees_them(
    headers: dict[str, str], status: int, type_: str, server: Tallygate
) -> None:
    refused(stats(server, **headers), status, type_)


def test_without_a_key_this_machine_sees_them_and_no_other(
    provider: SimulatedProvider, start: Start
) -> None:
    server = start(config(provider, None) | {"general_settings": {"master_key": None}})
    shown = stats(server).json()
    assert shown["host"] is None
    assert shown["cluster"] is None
    refused(stats(server, x_forwarded_for="203.0.113.9"), 403, "permission_error")


def test_a_cluster_that_is_away_is_said_and_costs_little(
    provider: SimulatedProvider, start: Start, tmp_path: Path
) -> None:
    away = {"url": f"redis://127.0.0.1:{free_port()}"}
    server = start(config(provider, tmp_path / "counts", cluster=away))
    shown = [stats(server, x_api_key=KEY).json() for _ in range(4)][-1]
    assert shown["cluster"]["trouble"]
    assert shown["cluster"]["breaker_open"] is True
    assert shown["host"]["trouble"] is None


def test_the_command_says_the_same_without_a_server(
    server: Tallygate, both: dict[str, Any], tmp_path: Path
) -> None:
    server.count(ask())
    operator = Operator(tmp_path, both)
    ran = operator.cache("stats", "--json")
    assert (ran.code, ran.err) == (0, "")
    shown = msgspec.json.decode(ran.raw)
    assert shown["host"]["entries"] >= 1
    assert shown["host"]["used"] == both["cache"]["host"]["path"]
    assert shown["cluster"]["keys"] >= 1
    assert shown["cluster"]["used"].startswith("redis://127.0.0.1:")
    table = operator.cache("stats")
    assert table.code == 0
    assert f"host        entries           {shown['host']['entries']}\n" in table.out


def test_the_command_says_what_is_not_there(provider: SimulatedProvider, tmp_path: Path) -> None:
    ran = Operator(tmp_path, config(provider, tmp_path / "counts")).cache("stats")
    assert ran.code == 0
    assert f"no file yet at {tmp_path / 'counts'}" in ran.out
    assert "not configured" in ran.out
    assert not (tmp_path / "counts").exists()
    away = {"url": f"redis://:secret@127.0.0.1:{free_port()}"}
    ran = Operator(tmp_path, config(provider, None, cluster=away)).cache("stats")
    assert ran.code == 1
    assert "does not answer" in ran.out
    assert "switched off" in ran.out
    assert "secret" not in ran.out + ran.err
