"""``python -m app``: check, count and serve, each as a process of its own."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from bench.provider import SimulatedProvider, count_tokens
from tests.server import KEY, ROOT, START_S, Tallygate, free_port

APP = (sys.executable, "-m", "app")
QUESTION = b'{"model":"claude","messages":[{"role":"user","content":"Hello, how are you?"}]}'
LINE = re.compile(r"(\d+)\t(\w+)\t\d+\.\d ms\n")

Config = dict[str, Any]


def run(*arguments: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run one command with nothing in its environment but what is given."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    ran = subprocess.run(
        [*APP, *arguments],
        cwd=ROOT,
        env={**kept, **environ},
        input=stdin,
        capture_output=True,
        timeout=30,
        check=False,
    )
    return subprocess.CompletedProcess(
        ran.args, ran.returncode, ran.stdout.decode(), ran.stderr.decode()
    )


def write(folder: Path, config: Config) -> str:
    path = folder / "given.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return str(path)


def entry(name: str, **params: Any) -> Config:
    return {"model_name": name, "litellm_params": {"model": f"anthropic/{name}", **params}}


@pytest.fixture(scope="module")
def server(provider: SimulatedProvider, start: Callable[..., Tallygate]) -> Tallygate:
    params = {"api_key": "sk-ant-upstream", "api_base": provider.url}
    return start({"model_list": [entry("claude", **params), entry("claude-2", **params)]})


@pytest.fixture
def count(server: Tallygate) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run_count(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return run("count", "--url", server.url, *arguments, **{"TALLYGATE_KEY": KEY, **options})

    return run_count


def test_check_shows_what_a_valid_configuration_leads_to(tmp_path: Path) -> None:
    config = {
        "model_list": [
            entry("claude-a", api_key="sk-ant-do-not-show", max_tokens=7),
            entry("claude-b", api_key="os.environ/KEY_OF_B"),
            entry("claude-c", api_key="os.environ/KEY_OF_C"),
        ],
        "litellm_settings": {"drop_params": True},
    }
    ran = run("check", write(tmp_path, config), KEY_OF_C="sk-ant-nor-this")
    assert ran.returncode == 0
    _, a, b, c, last = ran.stdout.splitlines()
    assert a.split() == ["claude-a", "anthropic", "claude-a", "found"]
    assert b.split() == ["claude-b", "anthropic", "claude-b", "missing:", "KEY_OF_B"]
    assert c.split() == ["claude-c", "anthropic", "claude-c", "found"]
    assert last == f"{tmp_path}/given.yaml: valid"
    notices = ran.stderr.splitlines()
    assert [line.startswith(f"{tmp_path}/given.yaml: ") for line in notices] == [True, True]
    assert "drop_params" in notices[0]
    assert "max_tokens" in notices[1]
    assert "sk-ant-" not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("text", "line", "key", "remedy"),
    [
        ("model_list: []\n", 1, "model_list", "at least one model"),
        ("model_list:\n  - model_name: a\n", 2, "model_list[0].litellm_params", "mapping"),
        ("a: 1\nserver:\n  prot: 4000\n", 3, "server.prot", "did you mean port?"),
        ("server: {port: [}\n", 1, "not YAML", ""),
        (
            "model_list:\n- model_name: a\n  litellm_params:\n    model: nobody/a\n",
            4,
            "model_list[0].litellm_params.model",
            "known: anthropic",
        ),
        (
            "general_settings:\n  master_key: os.environ/NOT_SET_HERE\n",
            2,
            "general_settings.master_key",
            "NOT_SET_HERE is not set",
        ),
    ],
    ids=lambda it: it.split(":")[0] if isinstance(it, str) else None,
)
def test_check_names_line_key_and_remedy(
    text: str, line: int, key: str, remedy: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    ran = run("check", TALLYGATE_CONFIG=str(path))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"{path}:{line}: {key}: ")
    assert remedy in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_check_of_a_file_that_is_not_there() -> None:
    ran = run("check", "no/such.yaml")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("no/such.yaml: No such file")
    assert ran.stderr.count("\n") == 1


def test_count_of_a_file(
    count: Callable[..., subprocess.CompletedProcess[str]],
    provider: SimulatedProvider,
    tmp_path: Path,
) -> None:
    (tmp_path / "request.json").write_bytes(QUESTION)
    provider.clear()
    first = count(str(tmp_path / "request.json"))
    again = count(str(tmp_path / "request.json"))
    assert (first.returncode, first.stderr) == (0, "")
    for ran, source in ((first, "live"), (again, "cache")):
        shown = LINE.fullmatch(ran.stdout)
        assert shown is not None
        assert shown.groups() == ("14", source)
    assert provider.calls == 1


def test_count_of_standard_input_under_another_model(
    count: Callable[..., subprocess.CompletedProcess[str]], provider: SimulatedProvider
) -> None:
    provider.clear()
    ran = count("-", "--model", "claude-2", stdin=QUESTION)
    assert ran.stdout.startswith("14\tlive\t")
    assert b'"model":"claude-2"' in provider.requests[0].body


def test_count_of_plain_text(
    count: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    text = "Grüße an Ägypten\n"
    ran = count("-", "--model", "claude", stdin=text.encode())
    expected = count_tokens({"messages": [{"role": "user", "content": text}]})
    assert ran.stdout.startswith(f"{expected}\tlive\t")


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "says"),
    [
        (["-"], b"Hello", 2, "--model"),
        (["-", "--model", "claude"], b"\xff\xfe", 2, "utf-8"),
        (["no/such.json"], b"", 2, "No such file"),
        (["-", "--key", "sk-wrong"], QUESTION, 1, "401: invalid API key"),
        (["-", "--model", "claude-nobody"], QUESTION, 1, "404: model: claude-nobody"),
        (["-", "--url", "http://127.0.0.1:1"], QUESTION, 1, "is the server running?"),
        ([], b"", 2, "usage: python -m app count"),
    ],
    ids=["text", "binary", "file", "key", "model", "server", "usage"],
)
def test_count_says_why_there_is_no_number(
    arguments: list[str],
    stdin: bytes,
    code: int,
    says: str,
    count: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ran = count(*arguments, stdin=stdin)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr


def test_count_finds_server_and_key_in_the_configuration(server: Tallygate, tmp_path: Path) -> None:
    config = {
        "model_list": [entry("claude")],
        "general_settings": {"master_key": KEY},
        "server": {"port": server.port},
    }
    ran = run("count", "-", stdin=QUESTION, TALLYGATE_CONFIG=write(tmp_path, config))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("14\t")


def test_serve_takes_port_and_workers(tmp_path: Path) -> None:
    config = {"model_list": [entry("estimated") | {"litellm_params": {"model": "estimate/x"}}]}
    with Tallygate(tmp_path, config, workers=2, command=(*APP, "serve")) as server:
        # Each worker begins its request ids in its own way.
        workers: set[str] = set()
        deadline = time.monotonic() + START_S
        while len(workers) < 2 and time.monotonic() < deadline:
            reply = httpx.get(f"{server.url}/health/readiness")
            workers.add(reply.headers["request-id"][:20])
        for _ in range(20):
            answer = server.count(QUESTION.replace(b"claude", b"estimated"))
            assert answer.status_code == 200
            workers.add(answer.headers["request-id"][:20])
        assert len(workers) == 2
        assert f"Tallygate on {server.url}" in server.err.read_text()
        assert server.stop() == 0


def test_serve_refuses_a_bad_configuration_at_once(tmp_path: Path) -> None:
    bad = write(tmp_path, {"model_list": []})
    ran = run("serve", "--config", bad, "--port", str(free_port()), "--workers", "1")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"{bad}:1: model_list: must be a list with at least one model\n"


@pytest.mark.parametrize("weak", [{}, {"master_key": "sk-1234"}], ids=["no key", "sk-1234"])
def test_serve_keeps_a_server_that_everybody_may_ask_on_this_machine(
    weak: Config, tmp_path: Path
) -> None:
    given = write(tmp_path, {"model_list": [entry("claude")], "general_settings": weak})
    ran = run("serve", "--config", given, "--host", "0.0.0.0", "--port", str(free_port()))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "0.0.0.0 is refused" in ran.stderr
    assert "master_key" in ran.stderr.splitlines()[-1]


def test_a_server_that_is_still_starting_can_be_stopped(tmp_path: Path) -> None:
    config = {"model_list": [entry("claude")]}
    server = Tallygate(tmp_path, config, workers=2)  # one of them has answered
    assert server.stop() == 0
