"""Every block of code in the README, run as a reader would run it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from bench.provider import SimulatedProvider
from tests.server import ROOT, START_S, free_port

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
NODE_MODULES = ROOT / "tests/clients/node/node_modules"
SERVING = ("make run", "sanic app.main", "python -m app serve")
PORT = "4000"


def of(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def commands(block: str) -> list[str]:
    """Take a block apart, without its comments."""
    if block.startswith("curl"):
        return [block]  # one command on several lines
    return [re.sub(r"\s+# .*", "", line) for line in block.splitlines()]


def the_command(start: str) -> str:
    """Find the README's own spelling of a command."""
    found = [line for block in of("sh") for line in commands(block) if line.startswith(start)]
    assert found, f"the README no longer says {start}"
    return found[0]


class Checkout:
    """What a reader has after cloning: links to everything, and config.yaml on a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        for path in ROOT.iterdir():
            if path.name not in {"config.yaml", ".git"}:
                (folder / path.name).symlink_to(path)
        shipped = (ROOT / "config.yaml").read_text()
        assert "server:" not in shipped
        (folder / "config.yaml").write_text(f"{shipped}\nserver:\n  port: {self.port}\n")
        question = {"model": "local-estimate", "messages": [{"role": "user", "content": "Hello"}]}
        (folder / "request.json").write_text(json.dumps(question))

    def popen(
        self, script: str, environ: dict[str, str] | None = None, *, capture: bool = False
    ) -> subprocess.Popen[str]:
        """Run a shell script here, in the environment of the tests, without any provider's key."""
        kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.Popen(
            ["sh", "-ec", script.replace(PORT, str(self.port))],
            cwd=self.folder,
            env={**kept, "PATH": path, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if capture else None,
            stderr=subprocess.PIPE if capture else None,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str) -> str:
        """Return what a script prints; it must succeed."""
        process = self.popen(script, capture=True)
        out, err = process.communicate(timeout=START_S)
        assert process.returncode == 0, err
        return out

    @contextmanager
    def serving(self, command: str, **environ: str) -> Iterator[None]:
        """Serve until the end of the block, then press Ctrl-C: nothing may be left running."""
        # Two workers show as much as eight, and eight take long to start on a small machine.
        command = command.replace("--workers 8", "--workers 2")
        process = self.popen(command, environ)
        try:
            self._wait_until_ready(process, workers=1 if "--workers 1" in command else 2)
            yield
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=20)
            assert not self._answers()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _wait_until_ready(self, process: subprocess.Popen[str], workers: int) -> None:
        """Wait until every worker has answered: each begins its request ids in its own way."""
        answered: set[str] = set()
        deadline = time.monotonic() + START_S
        while len(answered) < workers:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
            answered.update(self._answers())

    def _answers(self) -> list[str]:
        try:
            reply = httpx.get(f"http://127.0.0.1:{self.port}/health/readiness", timeout=2)
        except httpx.TransportError:
            return []
        return [reply.headers["request-id"][:20]]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture(scope="module")
def with_a_key(
    provider: SimulatedProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Checkout]:
    """A server of the shipped configuration whose reader has exported a provider's key."""
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    environ = {"ANTHROPIC_API_KEY": "sk-ant-a-reader", "ANTHROPIC_API_BASE": provider.url}
    # With one worker, a question that is asked again is always asked of the one that knows it.
    command = the_command("sanic app.main").replace("--workers 8", "--workers 1")
    with checkout.serving(command, **environ):
        yield checkout


def test_every_block_is_of_a_kind_that_is_run_here() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python", "typescript"}
    assert README.count("```") == 2 * len(BLOCKS)
    for line in (line for block in of("sh") for line in commands(block)):
        assert line.startswith(
            (*SERVING, "make test", "curl ", ". .venv/bin/activate", "python -m app ", "echo ")
        ), f"nothing here runs: {line}"


def test_make_runs_what_the_curl_block_asks(checkout: Checkout) -> None:
    for tool in ("make", "curl"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is missing")
    if subprocess.run(["make", "--question", "install"], cwd=ROOT, check=False).returncode:
        pytest.skip("`make install` has not run here since requirements.lock changed")
    (curl,) = (block for block in of("sh") if block.startswith("curl"))
    with checkout.serving(the_command("make run")):
        answer = json.loads(checkout.run(curl.replace("curl", "curl --fail --silent", 1)))
        assert answer.keys() == {"input_tokens"}
        assert answer["input_tokens"] > 0
        source = "x-tallygate-source: estimate"
        assert source in README
        assert source in checkout.run(curl.replace("curl", "curl --silent --include", 1))


def test_make_test_runs_the_tests() -> None:
    if not shutil.which("make"):
        pytest.skip("make is missing")
    # It is not run: this is one of the tests that it would run.
    told = subprocess.run(
        [*the_command("make test").split(), "--dry-run"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "pytest" in told.stdout


def run_python(block: str, port: int) -> list[str]:
    script = block.replace(PORT, str(port))
    ran = subprocess.run(
        [sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True, timeout=30
    )
    return ran.stdout.splitlines()


def test_the_httpx_block(with_a_key: Checkout, provider: SimulatedProvider) -> None:
    (block,) = (block for block in of("python") if "import httpx" in block)
    said = dict(re.findall(r"^print\((.*)\)  # (.*)$", block, re.MULTILINE))
    number, first, again = "{'input_tokens': 14}", "live", "cache"
    assert list(said.values()) == [number, f"{first}; asked again: {again}"]
    provider.clear()
    assert run_python(block, with_a_key.port) == [number, first]
    assert run_python(block, with_a_key.port) == [number, again]
    assert provider.calls == 1
    assert provider.requests[0].headers["x-api-key"] == "sk-ant-a-reader"


def test_the_python_sdk_block(with_a_key: Checkout) -> None:
    (block,) = (block for block in of("python") if "from anthropic" in block)
    assert run_python(block, with_a_key.port) == ["14"]


def test_every_python_block_has_a_test() -> None:
    assert len(of("python")) == 2


def test_the_typescript_block(with_a_key: Checkout, tmp_path: Path) -> None:
    if not shutil.which("node") or not NODE_MODULES.exists():
        pytest.skip("node or its packages are missing; `make clients` installs them where npm is")
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    (block,) = of("typescript")  # it has no type in it, so node takes it as it is
    (tmp_path / "block.mjs").write_text(block.replace(PORT, str(with_a_key.port)))
    ran = subprocess.run(
        ["node", "block.mjs"],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=30,
    )
    assert ran.stdout == "14\n"


def expected(command: str) -> Callable[[str], bool]:
    """Say what a command must print."""
    if command.startswith("python -m app check"):
        return lambda out: out.endswith("config.yaml: valid\n")
    if command.startswith("python -m app usage"):
        return lambda out: out.startswith("key ") and "\ntotal " in out
    if command == "python -m app cache stats":
        return lambda out: out.startswith("host ")
    return lambda out: bool(re.fullmatch(r"[1-9]\d*\testimate\t[\d.]+ ms\n", out))


def test_the_serving_block(checkout: Checkout) -> None:
    (block,) = (block for block in of("sh") if "activate" in block)
    if not (ROOT / ".venv").exists():
        pytest.skip("`make install` has not made .venv here")
    activate, *rest = commands(block)
    serving = [command for command in rest if command.startswith(SERVING)]
    others = [command for command in rest if not command.startswith(SERVING)]
    assert [len(serving), len(others)] == [2, 5]
    for command in serving:
        with checkout.serving(f"{activate}\n{command}"):
            for other in others:
                out = checkout.run(f"{activate}\n{other}")
                assert expected(other)(out), out
