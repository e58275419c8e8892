"""What process life knows of Sanic's inside still stands where it stood in 25.12."""

import asyncio
import inspect
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import sanic
import uvloop
from sanic.http import Http
from sanic.http.constants import Stage
from sanic.mixins import startup
from sanic.server import runners
from sanic.server.protocols.http_protocol import HttpProtocol
from sanic.types.shared_ctx import SharedContext
from sanic.worker.constants import ProcessState
from sanic.worker.manager import WorkerManager
from sanic.worker.process import WorkerProcess
from sanic.worker.serve import worker_serve

from app.process_life.listening import LoopPolicy, ServingLoop


def _source(thing: object) -> str:
    return inspect.getsource(thing)  # type: ignore[arg-type]


def test_release() -> None:
    assert sanic.__version__.startswith("25.12.")


def test_the_manager_is_run_by_one_call_that_we_replace() -> None:
    serve = _source(startup.StartupMixin.serve)
    assert serve.index("trigger_events(ready, loop, primary)") < serve.index("manager.run()")
    assert "except ServerKilled:\n            exit_code = 1" in serve
    run = _source(WorkerManager.run)
    parts = ("self.start()", "self.monitor()", "self.join()", "self.terminate()", "self.cleanup()")
    assert [run.index(part) for part in parts] == sorted(run.index(part) for part in parts)
    assert "_shutting_down" in _source(WorkerManager.shutdown_signal)
    for name in ("_handle_message", "transient_processes", "cleanup", "start"):
        assert hasattr(WorkerManager, name)
    assert "monitor_subscriber" in _source(WorkerManager.__init__)


def test_a_handle_starts_one_process_after_the_other() -> None:
    for name in ("set_state", "spawn", "start", "is_alive", "pid", "exitcode"):
        assert hasattr(WorkerProcess, name)
    assert "ProcessState.RESTARTING" in _source(WorkerProcess.spawn)
    assert "daemon=True" in _source(WorkerProcess.spawn)
    assert {"sentinel", "kill", "is_alive"} <= set(dir(BaseProcess))
    assert ProcessState.RESTARTING < ProcessState.STARTING


def test_shared_context_travels_as_it_is_when_a_worker_starts() -> None:
    assert '"shared_ctx": app.shared_ctx.__dict__' in _source(startup.StartupMixin.serve)
    assert not SharedContext().is_locked


def test_a_worker_makes_its_loop_by_the_policy_after_setup_loop() -> None:
    serve = _source(worker_serve)
    assert serve.index("app.setup_loop()") < serve.index("asyncio.new_event_loop()")
    assert isinstance(LoopPolicy().new_event_loop(), ServingLoop)
    assert issubclass(LoopPolicy, uvloop.EventLoopPolicy)
    assert issubclass(LoopPolicy, asyncio.AbstractEventLoopPolicy)


def test_a_worker_creates_its_server_from_a_partial_with_its_connections() -> None:
    serve = _source(runners._serve_http_1)
    assert "server = partial(\n        protocol," in serve
    for given in ("connections=connections,", "app=app,", "loop.create_server(\n        server,"):
        assert given in serve
    order = ("http_server = loop.run", "_setup_system_signals(", '"init", "after"')
    assert [serve.rindex(one) for one in order] == sorted(serve.rindex(one) for one in order)
    assert "GRACEFUL_SHUTDOWN_TIMEOUT" in serve
    assert isinstance(partial(HttpProtocol), partial)
    setup = _source(runners._setup_system_signals)
    assert 'os.environ["SANIC_WORKER_PROCESS"] = "true"' in setup


def test_connections_know_their_stage_and_their_last_byte() -> None:
    assert "_time" in HttpProtocol.__mro__[2].__dict__["__slots__"]
    assert "if self.http is None or self.http.stage is Stage.IDLE" in _source(
        HttpProtocol.close_if_idle
    )
    assert {"IDLE", "HANDLER"} <= set(Stage.__members__)


def test_answers_say_close_when_keep_alive_is_switched_off() -> None:
    text = Path(inspect.getfile(Http)).read_text(encoding="utf-8")
    assert (
        "if not self.protocol.app.config.KEEP_ALIVE:\n            self.keep_alive = False" in text
    )
    assert 'headers["connection"] = "keep-alive" if self.keep_alive else "close"' in text
