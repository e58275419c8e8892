"""The peers are asked the same as the proxy; what is not installed is named with its remedy."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest
import yaml

from bench import gates, machine, peers
from bench.peers import installed
from bench.peers.conduct import observe
from bench.peers.scenarios import PEERS, chosen
from bench.peers.stage import PEERS as STARTED
from bench.play import Always, Place
from bench.questions import Message
from bench.scenarios import SCENARIOS, Server, Traffic
from bench.servers import count
from bench.slice import Address
from bench.traffic import message

ROOT = Path(__file__).parents[2]
KEY = "sk-test-0123456789"


def test_each_is_compared_with_what_was_asked_the_same_way_before_it() -> None:
    scenarios = chosen(list(PEERS))
    names = list(scenarios)
    for name, scenario in scenarios.items():
        for other in scenario.compared_with:
            assert names.index(other) < names.index(name)
            assert scenarios[other].traffic is scenario.traffic
            assert scenarios[other].body_bytes == scenario.body_bytes == 300
    assert {*scenarios["repeat"].compared_with, *scenarios["miss"].compared_with} == {*names} - {
        "repeat",
        "miss",
    }


def test_a_single_peer_brings_the_proxy_and_nobody_else() -> None:
    scenarios = chosen(["litellm"])
    assert list(scenarios) == ["litellm", "litellm-miss", "repeat", "miss"]
    assert scenarios["repeat"].compared_with == ("litellm",)
    assert scenarios["miss"].compared_with == ("litellm-miss",)


def test_the_standard_scenarios_stay_without_peers() -> None:
    assert not {scenario.server for scenario in SCENARIOS.values()} & STARTED


def test_the_committed_bars_are_about_what_is_measured() -> None:
    scenarios = chosen(list(PEERS))
    for bar in gates.read_bars(ROOT / "bench/peers/bars.json").bars:
        assert bar.compared_with in scenarios[bar.scenario].compared_with


def test_what_is_not_installed_is_named_with_how_to_install_it(tmp_path: Path) -> None:
    absent = installed.missing(tmp_path)
    assert absent["litellm"] == "LiteLLM is not installed: make peers"
    assert set(absent) == {"litellm", "portkey"}
    assert peers.missing(["litellm", "bare"], absent) == dict.fromkeys(
        ["litellm", "litellm-miss"], absent["litellm"]
    )


def test_what_is_installed_says_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "litellm/lib/python3.11/site-packages"
    (packages / "litellm-1.108.7.dist-info").mkdir(parents=True)
    (packages / "litellm_proxy_extras-0.4.110.dist-info").mkdir()
    gateway = tmp_path / "portkey/node_modules/@portkey-ai/gateway"
    gateway.mkdir(parents=True)
    (gateway / "package.json").write_text('{"version": "1.15.2"}')
    assert installed.versions(tmp_path) == {"litellm": "1.108.7", "portkey": "1.15.2"}
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert installed.missing(tmp_path) == {"portkey": "node is not on PATH"}


def test_the_locks_name_what_the_documents_say() -> None:
    """And no address: where packages come from is for the reader's machine to say."""
    lock = (ROOT / "bench/peers/litellm.lock").read_text()
    gateway = (ROOT / "bench/peers/package-lock.json").read_text()
    page = (ROOT / "docs/performance.md").read_text()
    (version,) = (line.split()[0] for line in lock.splitlines() if line.startswith("litellm=="))
    assert f"LiteLLM {version.removeprefix('litellm==')}" in page
    packages = msgspec.json.decode(gateway)["packages"]
    portkey = packages["node_modules/@portkey-ai/gateway"]["version"]
    assert f"Portkey's gateway {portkey}" in page
    assert "://" not in lock
    assert not any("resolved" in package for package in packages.values())


def test_litellm_is_told_the_same_as_the_proxy(tmp_path: Path) -> None:
    start = installed.litellm(
        tmp_path, 1234, provider="http://127.0.0.1:9", key=KEY, model="bench-model"
    )
    (config,) = (Path(word) for word in start.command if word.endswith(".yaml"))
    said = yaml.safe_load(config.read_text())
    (entry,) = said["model_list"]
    assert entry["model_name"] == "bench-model"
    assert entry["litellm_params"]["api_base"] == "http://127.0.0.1:9"
    assert said["general_settings"] == {"master_key": KEY}
    assert " ".join(start.command).endswith("--host 127.0.0.1 --port 1234 --num_workers 1")


@pytest.mark.parametrize("name", ["repeat", "miss"])
def test_what_a_peer_must_be_told_stands_in_each_request(name: str) -> None:
    at = Address("127.0.0.1", 1, headers=installed.portkey_headers("http://127.0.0.1:9"))
    asked = message(SCENARIOS[name], at, KEY, "bench-model", len)
    assert isinstance(asked, Message)
    lines = asked.head.decode().split("\r\n")
    assert lines.count("x-portkey-provider: anthropic") == 1
    assert lines.count("x-portkey-custom-host: http://127.0.0.1:9/v1") == 1
    assert lines.index("x-portkey-provider: anthropic") < lines.index("")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_all_processes_of_a_peer_are_seen() -> None:
    script = "sleep 30 & child=$!; echo $child; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout
        child = shell.stdout.readline().strip()
        try:
            assert machine.tree(shell.pid) == (str(shell.pid), child)
        finally:
            os.kill(int(child), 15)
    assert machine.tree(shell.pid) is None


class Remembering(BaseHTTPRequestHandler):
    """Answers whoever asks, unless it is ``strict``, and counts what it had not known before.

    A request must carry a header of its own.
    """

    known: ClassVar[set[bytes]] = set()
    calls = 0
    strict = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.headers["x-told"] == "yes"
        refused = Remembering.strict and self.headers["x-api-key"] != KEY
        if not refused and body not in Remembering.known:
            Remembering.known.add(body)
            Remembering.calls += 1
        self.send_response(401 if refused else 200)
        self.send_header("content-length", "19")
        self.end_headers()
        self.wfile.write(b'{"input_tokens":14}')

    def log_message(self, *_arguments: object) -> None:
        pass


class Counting:
    """The provider behind it."""

    def restart(self, delay_s: float) -> None:
        assert delay_s == 0
        Remembering.calls = 0

    def behave(self, model: str, *, status: int | None = None, delay_s: float = 0) -> None:
        """Nothing of this is asked to fail."""

    def calls(self) -> int:
        return Remembering.calls


@pytest.fixture
def remembering() -> Iterator[Address]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Remembering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Address("127.0.0.1", server.server_port, headers=(("x-told", "yes"),))
        server.shutdown()


@pytest.mark.parametrize(
    ("strict", "said"), [(False, "answered, which"), (True, "refused (401), which")]
)
def test_whom_a_peer_answers_is_observed(remembering: Address, *, strict: bool, said: str) -> None:
    Remembering.strict = strict
    assert count(remembering, KEY, b"{}") == 14
    place = Place(
        addresses={Server.LITELLM: remembering},
        key=KEY,
        model="bench-model",
        tokens=Always(14),
        provider=Counting(),
        scratch=Path(),
    )
    seen = str(observe(Server.LITELLM, place))
    assert seen == (
        "the same question twice asked the provider once;"
        f" under a wrong key it was {said} asked the provider not at all"
    )


def test_the_command_line_says_what_it_takes() -> None:
    said = peers.parse([])
    assert (said.seconds, said.rounds, said.connections) == (4, 3, 16)
    assert said.peer == list(PEERS)
    said = peers.parse(["--peer", "nginx-cache", "--seconds", "9"])
    assert (said.peer, said.seconds) == (["nginx-cache"], 9)
    assert {one.traffic for one in PEERS["nginx-cache"]} == {Traffic.CONSTANT, Traffic.UNIQUE}
