"""The ledger of a server, as its operator asks for it."""

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from bench.provider import SimulatedProvider
from tests.e2e.exchange import COUNT, MODEL, anthropic, model_list
from tests.server import KEY, ROOT, Tallygate

Body = dict[str, Any]

TEAMS = {f"team-{name}": f"sk-team-{name}-0123456789" for name in "abc"}


def config(provider: SimulatedProvider, **usage: Any) -> dict[str, Any]:
    keyless = {**anthropic("claude-two", provider.url), "api_key": "os.environ/NOT_SET_HERE"}
    models = {MODEL: anthropic("claude-one", provider.url), "keyless": keyless}
    return {
        "model_list": model_list(**models),
        "keys": [{"name": name, "key": key} for name, key in TEAMS.items()],
        "telemetry": {"usage": usage},
    }


def ledger(server: Tallygate, asker: str = KEY, /, **query: str | int) -> dict[str, Any]:
    answer = httpx.get(
        f"{server.url}/usage", params=query, headers={"x-api-key": asker}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def total(server: Tallygate, **query: str) -> Counter[str]:
    (row,) = ledger(server, **query)["data"]
    return Counter(row)


class Command:
    """``python -m app usage`` on the file of a server, which may have ended."""

    def __init__(self, folder: Path) -> None:
        named = {"TALLYGATE_CONFIG": str(folder / "config.yaml"), "XDG_CACHE_HOME": str(folder)}
        self._environ = {"PATH": os.environ["PATH"], "HOME": str(folder), **named}

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app", "usage", *arguments]
        ran = subprocess.run(
            command, cwd=ROOT, env=self._environ, capture_output=True, check=False, timeout=50
        )
        out, err = ran.stdout.decode(), ran.stderr.decode()
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(command, ran.returncode, out, err)

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        ran = self("--format", "json", *arguments)
        assert ran.returncode == 0, ran.stderr
        data: list[dict[str, Any]] = json.loads(ran.stdout)["data"]
        return data

    def total(self) -> Counter[str]:
        (row,) = self.rows("--group-by", "")
        return Counter(row)


def ask(server: Tallygate, asked: list[tuple[str, str, Body]]) -> list[httpx.Response]:
    """Ask each question with a key and for an end user, over four kept-alive connections."""

    def one(part: list[tuple[str, str, Body]]) -> list[httpx.Response]:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            return [
                client.post(COUNT, json=body, headers=_headers(key, user))
                for key, user, body in part
            ]

    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(one, [asked[start::4] for start in range(4)])
        return [answer for part in parts for answer in part]


def _headers(key: str, user: str) -> dict[str, str]:
    return {"x-api-key": key, **({"x-tallygate-end-user": user} if user else {})}
