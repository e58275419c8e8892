"""A3, A10: no credential and no prompt comes out where it does not belong, whatever goes wrong.

tests/e2e/test_start.py searches what is logged; this searches everything that a server leaves.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import redis

from bench.provider import SimulatedProvider
from tests.e2e.exchange import COUNT, FAILURES_STAND_ALONE, question, until
from tests.e2e.stubs import Login
from tests.faults.redis_server import RedisServer
from tests.server import ROOT, Tallygate

CANARY = "canary7f3a"
MASTER, TEAM = f"sk-{CANARY}-master", f"sk-{CANARY}-team"
VARIABLES = {"UPSTREAM_KEY": f"sk-ant-{CANARY}-variable"}
MODELS = ("anthropic", "by-variable", "bedrock", "bedrock-key", "gemini", "vertex", "claude-vertex")


@pytest.fixture
def login() -> Any:
    with Login() as running:
        yield running


def _entries(base: str, login: Login) -> dict[str, dict[str, Any]]:
    account = {**login.service_account(), "private_key_id": CANARY}
    google = {
        "vertex_project": "p",
        "vertex_location": "us-east5",
        "vertex_credentials": msgspec.json.encode(account).decode(),
        "api_base": base,
    }
    aws = {
        "aws_region_name": "us-west-2",
        "aws_access_key_id": f"AKIA{CANARY}",
        "aws_secret_access_key": f"{CANARY}-secret",
        "aws_session_token": f"{CANARY}-session",
        "aws_bedrock_runtime_endpoint": base,
    }
    runtime = {"aws_region_name": "us-west-2", "aws_bedrock_runtime_endpoint": base}
    claude = "anthropic.claude-3-5-sonnet-20241022-v2:0"
    return {
        "anthropic": {
            "model": "anthropic/claude-x",
            "api_key": f"sk-ant-{CANARY}-file",
            "api_base": base,
        },
        "by-variable": {
            "model": "anthropic/claude-y",
            "api_key": "os.environ/UPSTREAM_KEY",
            "api_base": base,
        },
        "bedrock": {"model": f"bedrock/{claude}", **aws},
        "bedrock-key": {"model": f"bedrock/{claude}", "api_key": f"{CANARY}-bearer", **runtime},
        "gemini": {
            "model": "gemini/gemini-2.5-flash",
            "api_key": f"{CANARY}-gemini",
            "api_base": base,
        },
        "vertex": {"model": "vertex_ai/gemini-2.5-flash", **google},
        "claude-vertex": {"model": "vertex_ai/claude-sonnet-4-5@20250929", **google},
    }


def _config(base: str, login: Login, folder: Path, redis_url: str) -> dict[str, Any]:
    entries = _entries(base, login).items()
    return {
        "model_list": [{"model_name": name, "litellm_params": given} for name, given in entries],
        "general_settings": {"master_key": MASTER},
        "keys": [{"name": "team", "key": TEAM, "rpm": 1000}],
        "cache": {
            "key_secret": f"{CANARY}-cache",
            "host": {"path": str(folder / "counts")},
            "cluster": {"url": redis_url},
        },
        "limits": FAILURES_STAND_ALONE,
        "telemetry": {"log_level": "debug"},
    }


class Tour:
    """Asks in every way, and keeps what was answered; the question's text is a canary too."""

    def __init__(self, server: Tallygate, provider: SimulatedProvider) -> None:
        self.answers: list[httpx.Response] = []
        self.counted = 0
        self._provider = provider
        self._client = httpx.Client(base_url=server.url, timeout=30)

    def ask(self, model: str, key: str = MASTER, **fields: Any) -> None:
        text = [{"role": "user", "content": f"{CANARY} {len(self.answers)}"}]
        body = question(model, system=CANARY, **fields) | {"messages": text}
        response = self._client.post(COUNT, json=body, headers={"x-api-key": key})
        self.answers.append(response)
        self.counted += response.status_code == 200

    def go(self) -> None:
        for model in MODELS:
            for key in (MASTER, TEAM, f"sk-{CANARY}-wrong"):
                self.ask(model, key)
        assert self.counted == 2 * len(MODELS), [one.text for one in self.answers]
        for model in MODELS:
            for behaviour in (
                {"status": 401},
                {"status": 429},
                {"status": 500},
                {"status": 200, "body": {}},
                {"reset": True},
            ):
                self._provider.clear()
                self._provider.behave(**behaviour)
                self.ask(model)
        self._provider.clear()
        for path in (
            "/metrics",
            "/cache/stats",
            "/openapi.json",
            "/v1/models",
            "/health/readiness",
        ):
            self.answers.append(self._client.get(path, headers={"x-api-key": MASTER}))
        for content in (CANARY, f'{{"model":"{CANARY}', f'{{"model":["{CANARY}"]}}'):
            self.answers.append(
                self._client.post(COUNT, content=content, headers={"x-api-key": MASTER})
            )
        self._client.close()


def _command(*arguments: str, config: Path) -> bytes:
    environ = {"PATH": os.environ["PATH"], "TALLYGATE_CONFIG": str(config), **VARIABLES}
    command = [sys.executable, "-m", "app", *arguments]
    ran = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=False)
    return ran.stdout + ran.stderr


def test_a3_nothing_that_a_server_leaves_holds_a_secret(
    tmp_path: Path, provider: SimulatedProvider, login: Login
) -> None:
    """Output, answers, the cache's file and Redis, archives, the commands, the process list."""
    left: dict[str, bytes] = {}
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as cluster:
        config = _config(provider.url, login, tmp_path, cluster.url)
        with Tallygate(tmp_path, config, environ=VARIABLES) as server:
            tour = Tour(server, provider)
            tour.go()
            left["answers"] = b"\n".join(
                repr(one.headers.multi_items()).encode() + one.content for one in tour.answers
            )
            left["process list"] = Path(f"/proc/{server.pid}/cmdline").read_bytes()
            written = tmp_path / "config.yaml"
            archive = tmp_path / "archive"
            left["export"] = _command("cache", "export", str(archive), config=written)
            left["check"] = _command("check", config=written)
            left["cache stats"] = _command("cache", "stats", config=written)
            text = written.read_text()
            written.write_text(text + f"\nserver: {{port: {CANARY}}}\n")
            os.kill(server.pid, signal.SIGHUP)
            until(lambda: "running configuration is kept" in server.err.read_text())
            written.write_text(text)
        assert archive.stat().st_size > 0
        left["archive"] = archive.read_bytes()
        left["redis"] = _contents(cluster)
        assert left["redis"]
    left["output"] = server.out.read_bytes()
    left["errors"] = server.err.read_bytes()
    for file in tmp_path.glob("counts*"):
        left[file.name] = file.read_bytes()
    found = [name for name, data in left.items() if CANARY.encode() in data]
    assert not found, {name: _around(left[name]) for name in found}


def _contents(server: RedisServer) -> bytes:
    """Every key and every value that Redis holds."""
    with redis.Redis.from_url(server.url) as client:
        keys = list(client.scan_iter())
        return b"\n".join(key + b" " + (client.dump(key) or b"") for key in keys)


def _around(data: bytes) -> bytes:
    at = data.index(CANARY.encode())
    return data[max(at - 120, 0) : at + 60]
