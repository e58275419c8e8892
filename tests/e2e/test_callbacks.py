"""An operator's own Python object is told of every count, and can harm none."""

import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.telemetry.callback import MAX_WAITING
from bench.provider import SimulatedProvider
from tests.e2e.exchange import BEARER, COUNT, MODEL, anthropic, model_list, question
from tests.e2e.launch import Launch
from tests.e2e.receiver import until
from tests.server import KEY, Tallygate

PROMPT = "the-prompt-that-nobody-may-be-told"
WRITER = """
import json, os, threading

class Logger:
    def __init__(self):
        self.path = os.environ["TOLD"]

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.write("success", kwargs, response_obj, (end_time - start_time).total_seconds())

    def log_failure_event(self, kwargs, response_obj, start_time, end_time):
        kwargs["exception"] = [type(kwargs["exception"]).__name__, kwargs["exception"].status_code]
        self.write("failure", kwargs, response_obj, (end_time - start_time).total_seconds())

    def write(self, *said):
        with open(self.path, "a") as out:
            out.write(json.dumps([*said, threading.current_thread().name], default=repr) + "\\n")

proxy_handler_instance = Logger()
"""
RAISING = """
import asyncio, os, time

class Logger:
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        raise {error}("not-to-be-told")

class Hanging:
    def log_success_event(self, kwargs, response_obj, start_time, end_time):
        time.sleep(600)
"""


def records(server: Tallygate, result: str) -> float:
    return server.metrics()[f'tallygate_records_total{{sink="callbacks",result="{result}"}}']


@pytest.fixture
def begin(tmp_path: Path, provider: SimulatedProvider) -> Callable[..., Tallygate]:
    """Start a server with modules beside its configuration."""

    def start(modules: dict[str, str], **more: Any) -> Tallygate:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
        entries = model_list(**{MODEL: anthropic("claude-up", provider.url)})
        environ = {"TOLD": str(tmp_path / "told")}
        return Tallygate(tmp_path, {"model_list": entries, **more}, environ=environ)

    return start


def told(folder: Path) -> list[Any]:
    file = folder / "told"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize("path", ["custom_callbacks.proxy_handler_instance", "my_module.Logger"])
@pytest.mark.parametrize("litellm", [False, True], ids=["own", "litellm"])
def test_it_is_told_of_counts_and_refusals_in_litellm_s_words(
    path: str, litellm: bool, begin: Callable[..., Tallygate], tmp_path: Path
) -> None:
    """An instance or a class, by our own key or by LiteLLM's; nothing of what is asked."""
    ours: dict[str, Any] = {"telemetry": {"callbacks": [path]}}
    theirs: dict[str, Any] = {"litellm_settings": {"success_callback": ["prometheus", path]}}
    with begin({path.split(".", maxsplit=1)[0]: WRITER}, **(theirs if litellm else ours)) as server:
        body = question(user="somebody", system=PROMPT)
        answers = [server.count(body) for _ in range(3)]
        answers.append(server.count(question(model="nobody")))
        until(lambda: len(told(tmp_path)) == len(answers))
        until(lambda: records(server, "sent") == len(answers))
        assert records(server, "dropped") == 0
    by_id = {one[1]["litellm_call_id"]: one for one in told(tmp_path)}
    for answer in answers[:3]:
        outcome, kwargs, response, took_s, thread = by_id[answer.headers["request-id"]]
        assert (outcome, response) == ("success", answer.json())
        assert took_s > 0
        assert path in thread
        assert (kwargs["model"], kwargs["call_type"]) == (MODEL, "acount_tokens")
        assert kwargs["user"] == "somebody"
        metadata = kwargs["litellm_params"]["metadata"]
        assert metadata["user_api_key_alias"] == "master"
        assert metadata["user_api_key_end_user_id"] == "somebody"
        assert metadata["tallygate"]["request_id"] == answer.headers["request-id"]
        standard = kwargs["standard_logging_object"]
        assert (standard["status"], standard["model"]) == ("success", "claude-up")
        assert standard["cache_hit"] is (answer.headers["x-tallygate-source"] == "cache")
        assert standard["total_tokens"] == 0
    outcome, kwargs, response, *_ = by_id[answers[3].headers["request-id"]]
    assert (outcome, response) == ("failure", None)
    assert kwargs["exception"] == ["CountError", 404]
    assert PROMPT not in (tmp_path / "told").read_text()
    assert KEY not in (tmp_path / "told").read_text()


def test_pseudonyms_are_told_where_they_are_wanted(
    begin: Callable[..., Tallygate], tmp_path: Path
) -> None:
    telemetry = {"callbacks": ["custom.Logger"], "hash_end_users": True}
    with begin({"custom": WRITER}, telemetry=telemetry) as server:
        server.count(question(user="somebody"))
        until(lambda: bool(told(tmp_path)))
    assert "somebody" not in (tmp_path / "told").read_text()
    assert told(tmp_path)[0][1]["user"]


@pytest.mark.parametrize("error", ["ValueError", "SystemExit", "asyncio.CancelledError"])
def test_what_it_raises_costs_a_line_and_no_count(
    error: str, begin: Callable[..., Tallygate]
) -> None:
    paths = ["custom.Logger"]
    modules = {"custom": RAISING.replace("{error}", error)}
    with begin(modules, telemetry={"callbacks": paths}) as server:
        for _ in range(3):
            assert server.count(question()).status_code == 200
        until(lambda: records(server, "dropped") == 3)
        line = f"telemetry.callbacks: custom.Logger: {error.rpartition('.')[2]}"
        assert server.err.read_text().count(line) == 1
        assert "not-to-be-told" not in server.err.read_text()


def test_what_hangs_costs_no_count_and_no_long_end(begin: Callable[..., Tallygate]) -> None:
    """Its queue is full some day: what finds no room is counted. Another object is not held up."""
    paths = ["custom.Hanging", "other.Logger"]
    telemetry = {"callbacks": paths, "hit_records_per_s": 1_000_000}
    with begin({"custom": RAISING, "other": WRITER}, telemetry=telemetry) as server:
        body = json.dumps(question()).encode()
        for asked in (800, 1_600, 2_400):
            _repeat(server, body, 800)
            until(lambda asked=asked: records(server, "sent") == asked)  # type: ignore[misc]
        assert records(server, "dropped") == 2_400 - 1 - MAX_WAITING
        assert "custom.Hanging does not keep up" in server.err.read_text()
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10


def _repeat(server: Tallygate, body: bytes, times: int) -> None:
    """Ask the same over one connection, which is the quickest way."""
    head = f"POST {COUNT} HTTP/1.1\r\nhost: x\r\nauthorization: {BEARER['authorization']}\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for _ in range(times):
            connection.sendall(request)
            answer = connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 ")


WRONG = {
    "custom.Missing": "custom.Missing: cannot be imported: AttributeError: ",
    "nowhere_to_be_found.Logger": "cannot be imported: ModuleNotFoundError: No module named",
    "broken.Logger": "broken.Logger: cannot be imported: SyntaxError",
    "custom.json": "custom.json: has none of async_log_success_event, ",
    "Logger": "telemetry.callbacks[0]: must be an import path: my_module.MyLogger",
}


@pytest.mark.parametrize("path", WRONG)
@pytest.mark.parametrize("command", [("sanic", "app.main"), ("app", "check")], ids=" ".join)
def test_a_path_that_leads_nowhere_stops_the_start(
    command: tuple[str, ...], path: str, tmp_path: Path
) -> None:
    (tmp_path / "custom.py").write_text(WRITER)
    (tmp_path / "broken.py").write_text("def")
    entries = model_list(**{MODEL: anthropic("claude-up", "http://127.0.0.1:9")})
    config = {"model_list": entries, "telemetry": {"callbacks": [path]}}
    launched = Launch(
        tmp_path, config, command=(sys.executable, "-m", *command), environ={"TOLD": "x"}
    )
    line = launched.refusal()
    assert WRONG[path] in line
    assert line.startswith(f"{launched.config}:")
