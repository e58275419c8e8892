"""``python -m app cache``: what is remembered is carried, forgotten and checked."""

import asyncio
import base64
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.config import load
from app.operate.shared_tiers import SharedTiers, TierError
from bench.provider import SimulatedProvider, count_tokens
from cache.host import HostCache
from tests.e2e.exchange import MODEL, counted, question
from tests.e2e.operate import Operator, config
from tests.faults.redis_server import RedisServer
from tests.server import Tallygate, free_port

Start = Callable[..., Tallygate]
TEXT = "a sentence that nobody else must ever read"


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisServer:
    redis_server.do("FLUSHALL")
    return redis_server


def lines_of(export: bytes) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in export.splitlines()]


def keys(file: Path) -> list[bytes]:
    """List what stands in a host's file."""
    host = HostCache(file, 2**30)
    host.open()
    found = [key for key, _, _ in host.items()]
    host.shut()
    return found


def sources(server: Tallygate, bodies: list[dict[str, Any]]) -> set[str]:
    answers = [server.count(body) for body in bodies]
    assert [counted(one) for one in answers] == [count_tokens(body) for body in bodies]
    return {one.headers["x-tallygate-source"] for one in answers}


class Known:
    """A stopped server's file with twelve counts in it, and their export."""

    def __init__(self, folder: Path, provider: SimulatedProvider, start: Start) -> None:
        provider.clear()
        self.file = folder / "counts"
        self.config = config(provider, self.file)
        self.bodies = [question(system=TEXT) for _ in range(12)]
        server = start(self.config)
        assert sources(server, self.bodies) == {"live"}
        assert server.stop() == 0
        self.operator = Operator(folder / "operator", self.config)
        self.export = folder / "export.ndjson"
        self.told = self.operator.cache("export", str(self.export))


@pytest.fixture(scope="module")
def known(
    tmp_path_factory: pytest.TempPathFactory, provider: SimulatedProvider, start: Start
) -> Known:
    return Known(tmp_path_factory.mktemp("known"), provider, start)


def test_an_export_holds_keys_and_counts_and_no_text(known: Known) -> None:
    assert known.told.code == 0
    assert known.told.out.startswith("exported 12\n")
    assert f"host: {known.file}; cluster: not configured" in known.told.out
    assert stat.S_IMODE(known.export.stat().st_mode) == 0o600
    header, *counts, end = lines_of(known.export.read_bytes())
    assert set(header) == {"format", "key_version", "secret", "generations"}
    assert [set(one) for one in counts] == [{"key", "record", "expires_s"}] * 12
    assert end == {"counts": 12}
    plain = known.export.read_bytes() + b"".join(base64.b64decode(one["record"]) for one in counts)
    for text in (TEXT, known.bodies[0]["messages"][0]["content"], "sk-ant-api03", "sk-"):
        assert text.encode() not in plain
    assert not [one for one in known.export.parent.iterdir() if one.name.startswith(".")]


def test_an_export_to_standard_output_is_the_same(known: Known) -> None:
    ran = known.operator.cache("export", "-")
    assert ran.code == 0
    assert ran.raw == known.export.read_bytes()
    assert ran.err.startswith("exported 12\n")


def test_what_was_wiped_comes_back_without_a_call(
    known: Known, provider: SimulatedProvider, start: Start
) -> None:
    for one in known.file.parent.glob("counts*"):
        one.unlink()
    ran = known.operator.cache("import", str(known.export))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("imported 12, skipped 0, bad 0\n")
    server = start(known.config)
    assert sources(server, known.bodies) == {"cache"}
    assert provider.calls == 0
    server.stop()


def test_another_machine_takes_it_over_while_its_server_runs(
    known: Known, provider: SimulatedProvider, start: Start, tmp_path: Path
) -> None:
    elsewhere = config(provider, tmp_path / "else" / "counts")
    server = start(elsewhere)
    assert sources(server, known.bodies[:1]) == {"live"}
    ran = Operator(tmp_path, elsewhere).cache("import", "-", stdin=known.export.read_bytes())
    assert ran.code == 0, ran
    provider.clear()
    assert sources(server, known.bodies) == {"cache"}
    assert provider.calls == 0
    server.stop()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "tallygate counts 2"}, "format 'tallygate counts 2'"),
        ({"key_version": 99}, "keys of version 99"),
        ({"secret": "0" * 16}, "made under another secret"),
        ({"generations": {"m": -1}}, "not an export of counts"),
    ],
)
def test_an_import_of_what_means_nothing_here_is_refused(
    change: dict[str, Any], says: str, known: Known, provider: SimulatedProvider, tmp_path: Path
) -> None:
    first, rest = known.export.read_bytes().split(b"\n", 1)
    header = msgspec.json.encode({**msgspec.json.decode(first), **change})
    operator = Operator(tmp_path, config(provider, tmp_path / "counts"))
    ran = operator.cache("import", "-", stdin=header + b"\n" + rest)
    assert (ran.code, ran.out) == (1, "")
    assert says in ran.err
    assert ran.err.count("\n") == 1
    assert not keys(tmp_path / "counts")


def test_another_installation_refuses_the_export(
    known: Known, provider: SimulatedProvider, tmp_path: Path
) -> None:
    other = config(provider, tmp_path / "counts", key_secret="another-secret-of-32-characters!")
    ran = Operator(tmp_path, other).cache("import", str(known.export))
    assert ran.code == 1
    assert "made under another secret" in ran.err
    assert "another-secret" not in ran.err
    assert not keys(tmp_path / "counts")


def test_bad_lines_are_counted_and_not_imported(
    known: Known, provider: SimulatedProvider, tmp_path: Path
) -> None:
    header, *counts, end = known.export.read_bytes().splitlines()
    swapped = msgspec.json.decode(counts[0]) | {"key": msgspec.json.decode(counts[1])["key"]}
    expired = msgspec.json.decode(counts[2]) | {"expires_s": 1}
    counts[0] = msgspec.json.encode(swapped)
    counts[2] = msgspec.json.encode(expired)
    counts[3] = b"{no json"
    counts[4] = b'{"key":"zz","record":"","expires_s":9999999999}'
    operator = Operator(tmp_path, config(provider, tmp_path / "counts"))
    ran = operator.cache("import", "-", stdin=b"\n".join([header, *counts, end, b""]))
    assert ran.code == 0, ran
    assert ran.out.startswith("imported 8, skipped 1, bad 3\nskipped 1: expired\n")
    assert len(keys(tmp_path / "counts")) == 8
    cut = operator.cache("import", "-", stdin=b"\n".join([header, *counts[5:8], b""]))
    assert cut.code == 1
    assert cut.out.startswith("imported 3, skipped 0, bad 0\n")
    assert "it was cut off" in cut.err
    short = operator.cache("import", "-", stdin=b"\n".join([header, *counts[5:8], end, b""]))
    assert short.code == 1
    assert "has 3 counts where it was written with 12" in short.err


def test_what_was_purged_does_not_come_back(
    known: Known, provider: SimulatedProvider, start: Start, tmp_path: Path
) -> None:
    here = config(provider, tmp_path / "counts")
    operator = Operator(tmp_path, here)
    assert operator.cache("import", str(known.export)).code == 0
    purged = operator.cache("purge", "--model", MODEL)
    assert purged.code == 0, purged
    assert "host: deleted 12\n" in purged.out
    assert not keys(tmp_path / "counts")
    ran = operator.cache("import", str(known.export))
    assert ran.code == 0
    assert "skipped 12: belongs to a generation that was purged\n" in ran.out
    assert not keys(tmp_path / "counts")
    # Nor on a machine that has never heard of the purge, once an export has told it.
    told = operator.cache("export", "-").raw
    other = Operator(tmp_path / "other", config(provider, tmp_path / "other" / "counts"))
    assert other.cache("import", "-", stdin=told).code == 0
    assert "skipped 12: belongs" in other.cache("import", str(known.export)).out
    server = start(here)
    assert sources(server, known.bodies[:2]) == {"live"}
    assert provider.calls == 2
    server.stop()


@pytest.mark.slow
def test_a_purge_is_heard_by_every_server_within_two_seconds(
    redis: RedisServer, provider: SimulatedProvider, start: Start, tmp_path: Path
) -> None:
    cluster = {"cluster": {"url": redis.url}}
    models = (MODEL, "claude-other")
    configs = [config(provider, tmp_path / name / "counts", models, **cluster) for name in "ab"]
    servers = [start(one, workers=2) for one in configs]
    purged, kept = question(), question("claude-other")
    for server in servers:
        for _ in range(6):  # every worker knows both
            server.count(purged)
            server.count(kept)
    old = count_tokens(purged)
    provider.clear()
    provider.behave(body={"input_tokens": old + 1})
    assert len(redis.do("KEYS", "tallygate:count:*")) == 2

    told_at = last_old_at = 0.0
    with ThreadPoolExecutor() as beside:
        command = beside.submit(Operator(tmp_path, configs[0]).cache, "purge", "--model", MODEL)
        while not command.done() or time.monotonic() < told_at + 2.5:
            asked_at = time.monotonic()
            if not told_at and redis.do("EXISTS", "tallygate:generations"):
                told_at = asked_at
            for server in servers:
                number = counted(server.count(purged))
                assert number in {old, old + 1}
                if number == old:
                    last_old_at = asked_at
            time.sleep(0.1)
        ran = command.result()
    assert ran.code == 0, ran
    assert 0 < last_old_at < told_at + 2
    assert provider.calls == 1
    # Other models are not forgotten.
    assert {counted(server.count(kept)) for server in servers} == {count_tokens(kept)}
    assert provider.calls == 1
    assert f"{MODEL}-x: a new generation" in ran.out
    assert "host: deleted 1\n" in ran.out
    assert "cluster: deleted 1\n" in ran.out
    held = {key.split(b"{")[1][:64].decode() for key in redis.do("KEYS", "tallygate:count:*")}
    assert len(held) == 2  # the other's, and the new count
    assert {key.hex() for key in keys(tmp_path / "a" / "counts")} == held
    for server in servers:  # or they tell the generation to every Redis that they share
        server.stop()


def test_a_purge_that_cannot_be_heard_fails(provider: SimulatedProvider, tmp_path: Path) -> None:
    ran = Operator(tmp_path, config(provider, None)).cache("purge", "--model", MODEL)
    assert (ran.code, ran.out) == (1, "")
    assert "a running server cannot be told: host: switched off; cluster: not configured" in ran.err


def test_a_purge_names_what_it_takes_for_an_upstream_model(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    operator = Operator(tmp_path, config(provider, tmp_path / "counts"))
    ran = operator.cache("purge", "--model", "claude-nobody")
    assert ran.code == 0
    assert "claude-nobody: no name of " in ran.err
    assert "claude-nobody: a new generation" in ran.out
    assert operator.cache("purge", "--model", "claude-*").code == 2


def test_a_file_that_is_replaced_while_it_is_read_is_no_end(known: Known, tmp_path: Path) -> None:
    async def walk() -> list[bytes]:
        elsewhere = {**known.config, "cache": {"host": {"path": str(tmp_path / "counts")}}}
        operator = Operator(tmp_path, elsewhere)
        assert operator.cache("import", str(known.export)).code == 0
        settings = load(str(tmp_path / "operator.yaml"), {})
        async with SharedTiers(settings, time.time, create=False) as tiers:
            items = tiers.host_items()
            first, *_ = next(items)
            (tmp_path / "counts").rename(tmp_path / "away")
            (tmp_path / "counts").touch(mode=0o600)
            return [first, *(key for key, *_ in items)]

    with pytest.raises(TierError, match="host: "):
        asyncio.run(walk())


def test_the_cluster_is_exported_too_and_fails_loudly(
    known: Known, redis: RedisServer, provider: SimulatedProvider, tmp_path: Path
) -> None:
    both = config(provider, tmp_path / "counts", cluster={"url": redis.url})
    operator = Operator(tmp_path, both)
    ran = operator.cache("import", "--without", "host", str(known.export))
    assert ran.out.startswith("imported 12, skipped 0, bad 0\n")
    assert len(redis.do("KEYS", "tallygate:count:*")) == 12
    half = lines_of(known.export.read_bytes())
    half[-1] = {"counts": 6}
    some = b"".join(msgspec.json.encode(one) + b"\n" for one in [*half[:7], half[-1]])
    assert operator.cache("import", "--without", "cluster", "-", stdin=some).code == 0
    ran = operator.cache("export", "-")
    assert ran.code == 0, ran
    assert {one.get("key") for one in lines_of(ran.raw)} == {one.get("key") for one in half}
    assert len(lines_of(ran.raw)) == 14  # each count once
    gone = config(
        provider, tmp_path / "counts", cluster={"url": f"redis://127.0.0.1:{free_port()}"}
    )
    operator = Operator(tmp_path, gone)
    target = tmp_path / "export"
    ran = operator.cache("export", str(target))
    assert (ran.code, ran.out) == (1, "")
    assert "cluster: redis://127.0.0.1:" in ran.err
    assert "--without cluster does the rest" in ran.err
    assert operator.cache("purge", "--model", MODEL).code == 1
    assert not target.exists()
    assert operator.cache("export", "--without", "cluster", str(target)).code == 0
    assert len(lines_of(target.read_bytes())) == 8


def test_verify_finds_drift_and_is_silent_without(
    known: Known, provider: SimulatedProvider, start: Start, tmp_path: Path
) -> None:
    server = start(config(provider, tmp_path / "counts"))
    operator = Operator(tmp_path, known.config)
    bodies = known.bodies[:4]
    assert sources(server, bodies) == {"live"}
    bodies.append(question())
    file = tmp_path / "bodies.ndjson"
    file.write_bytes(b"\n\n".join(map(msgspec.json.encode, bodies)))
    same = operator.cache("verify", str(file), "--url", server.url)
    assert (same.code, same.out) == (0, "same 4, drift 0, unknown 1, failed 0\n")
    provider.clear()
    provider.behave(body={"input_tokens": 4711})
    drift = operator.cache("verify", "-", "--url", server.url, stdin=file.read_bytes())
    assert drift.code == 1
    *found, summary = drift.out.splitlines()
    assert summary == "same 0, drift 4, unknown 1, failed 0"
    assert [line.split(":")[0] for line in found] == ["line 1", "line 3", "line 5", "line 7"]
    old = count_tokens(bodies[0])
    assert found[0].endswith(
        f"drift: anthropic {MODEL}-x: remembered {old}, counted 4711 (+{4711 - old})"
    )
    assert provider.calls == 4
    server.stop()


def test_verify_tells_a_failure_from_drift(
    known: Known, provider: SimulatedProvider, start: Start, tmp_path: Path
) -> None:
    server = start(config(provider, tmp_path / "counts"))
    operator = Operator(tmp_path, known.config)
    body = known.bodies[0]
    server.count(body)
    provider.behave(status=529)
    text = msgspec.json.encode(body) + b"\n{no json\n"
    ran = operator.cache("verify", "-", "--url", server.url, stdin=text)
    assert ran.code == 1
    first, second, summary = ran.out.splitlines()
    assert first == "line 1: failed: 529 overloaded_error"
    assert second == "line 2: failed: 400 invalid_request_error"
    assert summary == "same 0, drift 0, unknown 0, failed 2"
    assert TEXT not in ran.out + ran.err
    server.stop()
    away = operator.cache("verify", "-", "--url", server.url, stdin=text)
    assert away.code == 1
    assert "is the server running?" in away.err
