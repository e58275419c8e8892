"""Processes that die, hang, change and end under load: rows P1 to P8.

Each promise stands beside the slack that a test allows it: two busy cores start a worker several
times more slowly than an idle machine does.
"""

import contextlib
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import yaml

from bench.provider import SimulatedProvider
from tests.e2e.exchange import (
    JSON,
    MODEL,
    PATIENCE_S,
    Connection,
    anthropic,
    counted,
    model_list,
    question,
    refused,
    request,
    until,
)
from tests.e2e.launch import Launch
from tests.faults.crowd import Crowd, workers
from tests.server import KEY, Tallygate, free_port

BACK_S, BACK_SLACK = 2.0, 7.5
STUCK_S, STUCK_SLACK = 15.0, 2.0
LOOP_S, LOOP_SLACK = 30.0, 1.5
FEW, CROWD = 1024, 440
"""Descriptors of a process, and connections for which they are enough."""
CLIENTS = 8

ESTIMATE = model_list(**{MODEL: {"model": "estimate/claude"}})
WIRE = request(msgspec.json.encode(question()))
READY = request(method="GET", target="/health/readiness")
FIRST = "Sanic-Server-0-0"
BOTH_SOCKETS = pytest.mark.parametrize("reuse_port", [True, False], ids=["own", "shared"])
BREAKS = """
import os
if os.environ.get("SANIC_WORKER_NAME") and os.path.exists({flag!r}):
    os._exit(3)
"""

Start = Callable[..., Tallygate]


@pytest.fixture(autouse=True)
def _willing(provider: SimulatedProvider) -> None:
    """Let every test begin with a provider that answers, and has not been asked."""
    provider.clear()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers of two workers that all serve; each ends with its test."""
    running: list[Tallygate] = []

    def start_one(count: int = 2, models: Any = None, **server: Any) -> Tallygate:
        config = {"model_list": models or ESTIMATE, "server": server}
        running.append(Tallygate(tmp_path, config, workers=count))
        _all_serve(running[-1], count)
        return running[-1]

    yield start_one
    for server in running:
        server.stop()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launch]]:
    """Start processes that may end; what still runs ends with the test."""
    launched: list[Launch] = []

    def launch_one(*arguments: str, **options: Any) -> Launch:
        config = {"model_list": ESTIMATE, "server": {"drain_notice_s": 0}}
        launched.append(Launch(tmp_path, config, *arguments, **options))
        return launched[-1]

    yield launch_one
    for one in launched:
        one.kill()


def _process(server: Tallygate) -> str:
    """Say which worker takes a connection: ids tell processes apart."""
    with Connection(server.port) as connection:
        connection.send(READY)
        return connection.read().headers["request-id"][: len("req_") + 16]


def _all_serve(server: Tallygate, count: int) -> None:
    seen: set[str] = set()

    def look() -> bool:
        held = [Connection(server.port) for _connection in range(4 * count)]
        for one in held:
            one.send(READY)
            seen.add(one.read().headers["request-id"][: len("req_") + 16])
            one.close()
        return len(seen) >= count

    until(look)


def _tell(server: Tallygate, number: signal.Signals) -> None:
    os.kill(server.pid, number)


def _says(server: Tallygate, text: str, within_s: float = 60) -> None:
    until_s = time.monotonic() + within_s
    while text not in server.err.read_text():
        assert time.monotonic() < until_s, server.err.read_text()
        time.sleep(0.02)


def _exit_code(server: Tallygate) -> int:
    """Wait for the end that has been asked for."""
    return server._process.wait(timeout=PATIENCE_S)


def _counted_total(server: Tallygate) -> float:
    series = server.metrics().items()
    return sum(value for name, value in series if name.startswith("tallygate_requests_total"))


def _new_process_answers(crowd: Crowd, since_s: float, within_s: float) -> float:
    """Wait for the first answer of a worker that nobody has heard of, and say how long it took."""
    known = {one.process for one in crowd.answers if one.at_s <= since_s}
    while time.monotonic() < since_s + within_s:
        for one in crowd.answers[::-1]:
            if one.process and one.process not in known and one.status == 200:
                return one.at_s - since_s
        time.sleep(0.01)
        # Whoever lost a connection opens another; a steady crowd would never meet the new one.
        crowd.reconnect()
    raise AssertionError(f"no new worker within {within_s} s")


@BOTH_SOCKETS
def test_p1_one_worker_killed(start: Start, reuse_port: bool) -> None:
    """Only what it had in flight is lost; its successor answers, and counts on in its row."""
    server = start(reuse_port=reuse_port)
    with Crowd(server.port, WIRE, CLIENTS) as crowd:
        crowd.wait_for(200)
        killed_at = time.monotonic()
        os.kill(workers(server.pid)[FIRST], signal.SIGKILL)
        back_s = _new_process_answers(crowd, killed_at, BACK_S * BACK_SLACK)
        crowd.wait_for(200)
    lost = crowd.faults()
    print(f"back after {back_s:.1f} s; {len(lost)} of {len(crowd.answers)} requests lost")
    assert len({one.process for one in lost}) <= 1, lost
    assert len(lost) <= CLIENTS
    assert not [one for one in lost if one.fault.startswith("not connected")]
    answered = len(crowd.answers) - len(lost)
    assert _counted_total(server) >= answered


def test_p2_all_workers_killed(start: Start) -> None:
    """Connections that come while nobody serves wait, and are answered."""
    server = start()
    before = _counted_total(server)
    for pid in workers(server.pid).values():
        os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    with Crowd(server.port, WIRE, CLIENTS) as crowd:
        crowd.wait_for(200)
    assert not [one for one in crowd.faults() if one.fault.startswith("not connected")]
    assert len(crowd.faults()) <= CLIENTS
    first = next(one for one in crowd.answers if one.status == 200)
    print(f"back after {first.at_s - killed_at:.1f} s; {len(crowd.faults())} requests lost")
    assert first.at_s - killed_at < BACK_S * BACK_SLACK
    assert _counted_total(server) >= before + 200


@pytest.mark.processes
def test_p3_crash_loop(launch: Callable[..., Launch], tmp_path: Path) -> None:
    """Workers that never come up: tried again, then exit code 1 and a line that says why."""
    (tmp_path / "sitecustomize.py").write_text(BREAKS.format(flag=str(tmp_path)))
    port = str(free_port())
    began = time.monotonic()
    launched = launch("--workers", "2", "--port", port, environ={"PYTHONPATH": str(tmp_path)})
    assert launched._process.wait(timeout=LOOP_S * LOOP_SLACK) == 1
    print(f"ended after {time.monotonic() - began:.1f} s")
    lines = launched.err.read_text().splitlines()
    (last,) = [line for line in lines if "does not stay up (it last ended with 3)" in line]
    assert last.endswith("the server ends")
    assert "Traceback" not in launched.err.read_text()


def test_p4_stuck_worker(start: Start) -> None:
    """A worker whose loop stands still is replaced; the other answers as ever."""
    server = start()
    stuck = _process_of(server, FIRST)
    with Crowd(server.port, WIRE, CLIENTS) as crowd:
        crowd.wait_for(200)
        stopped_at = time.monotonic()
        os.kill(workers(server.pid)[FIRST], signal.SIGSTOP)
        back_s = _new_process_answers(crowd, stopped_at, STUCK_S * STUCK_SLACK)
        crowd.wait_for(200)
    print(f"back after {back_s:.1f} s; {len(crowd.faults())} of {len(crowd.answers)} requests lost")
    assert {one.process for one in crowd.faults()} <= {stuck, ""}, crowd.faults()
    assert not [one for one in crowd.faults() if one.fault.startswith("not connected")]
    assert server.err.read_text().count("is stuck and is killed") == 1


def test_p4_blocking_call(tmp_path: Path) -> None:
    """A worker whose loop is held by a call that does not return is replaced likewise."""
    command = (sys.executable, "-m", "sanic", "tests.faults.blocking_app")
    with Tallygate(tmp_path, {"model_list": ESTIMATE}, workers=2, command=command) as server:
        _all_serve(server, 2)
        before = workers(server.pid)
        with Crowd(server.port, WIRE, CLIENTS) as crowd, Connection(server.port) as held:
            crowd.wait_for(200)
            blocked_at = time.monotonic()
            held.send(request(target="/block"))
            back_s = _new_process_answers(crowd, blocked_at, STUCK_S * STUCK_SLACK)
            crowd.wait_for(200)
            assert held.ends()
        after = workers(server.pid)
        lost, asked = crowd.faults(), len(crowd.answers)
        print(f"back after {back_s:.1f} s; {len(lost)} of {asked} requests lost")
        assert len({one.process for one in lost} - {""}) <= 1, lost
        assert not [one for one in lost if one.fault.startswith("not connected")]
        assert len(set(before.values()) - set(after.values())) == 1
        assert server.err.read_text().count("is stuck and is killed") == 1


def _process_of(server: Tallygate, name: str) -> str:
    """Match a worker's process with its ids: the worker that holds a connection's other end."""
    pid = workers(server.pid)[name]
    stats = {"authorization": f"Bearer {KEY}"}
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        answer = httpx.get(f"{server.url}/cache/stats", headers=stats)
        if answer.json()["worker"] == pid:
            return answer.headers["request-id"][: len("req_") + 16]
    raise AssertionError(f"{name} does not answer")


@BOTH_SOCKETS
def test_p5_end_under_load(start: Start, reuse_port: bool) -> None:
    """Whoever honours ``connection: close`` loses nothing; exit code 0."""
    server = start(reuse_port=reuse_port, drain_notice_s=1)
    with Crowd(server.port, WIRE, CLIENTS) as crowd:
        crowd.wait_for(500)
        crowd.may_be_refused = True
        told_at = time.monotonic()
        _tell(server, signal.SIGTERM)
        crowd.wait_until_all_are_gone()
    print(f"{len(crowd.faults())} of {len(crowd.answers)} requests lost", end="; ")
    print(f"the last client went after {time.monotonic() - told_at:.1f} s")
    assert crowd.faults() == []
    assert _exit_code(server) == 0


def _slow(base: str) -> list[dict[str, Any]]:
    return model_list(**{MODEL: anthropic("claude-slow", base, timeout=30)})


@pytest.mark.processes
def test_p5_answers_in_flight(start: Start, provider: SimulatedProvider) -> None:
    """Readiness says 503 at once, on old and new connections; what is in flight is answered."""
    provider.behave(delay_s=2)
    server = start(models=_slow(provider.url), drain_notice_s=1)
    flights = [Connection(server.port) for _flight in range(8)]
    for one in flights:
        one.send(request(msgspec.json.encode(question())))
    kept = Connection(server.port)
    kept.send(READY)
    assert kept.read().json() == {"status": "healthy"}
    until(lambda: provider.calls == 8)
    _tell(server, signal.SIGTERM)
    until(lambda: httpx.get(f"{server.url}/health/readiness").status_code == 503)
    kept.send(READY)
    answer = kept.read()
    assert answer.status_code == 503
    assert answer.json() == {"status": "shutting_down"}
    assert answer.headers["connection"] == "close"
    assert kept.ends()
    kept.close()
    for one in flights:
        answer = one.read()
        assert counted(answer)
        assert answer.headers["connection"] == "close"
        assert one.ends()
        one.close()
    assert _exit_code(server) == 0


@pytest.mark.processes
@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_p5_second_signal(start: Start, provider: SimulatedProvider, again: signal.Signals) -> None:
    """Told twice, it waits for nobody, and still writes what it remembers."""
    provider.behave(hang=True)
    server = start(models=_slow(provider.url), drain_s=60)
    with Connection(server.port) as connection:
        connection.send(request(msgspec.json.encode(question())))
        until(lambda: provider.calls == 1)
        _tell(server, signal.SIGTERM)
        time.sleep(0.5)
        assert server._process.poll() is None
        _tell(server, again)
        assert _exit_code(server) == 0


def test_p5_drain_is_bounded(start: Start, provider: SimulatedProvider) -> None:
    """An answer that does not come holds up the end for drain_s."""
    provider.behave(hang=True)
    server = start(models=_slow(provider.url), drain_s=1)
    with Connection(server.port) as connection:
        connection.send(request(msgspec.json.encode(question())))
        until(lambda: provider.calls == 1)
        began = time.monotonic()
        _tell(server, signal.SIGTERM)
        assert _exit_code(server) == 0
        assert 1 <= time.monotonic() - began < 1 + 7


@pytest.mark.processes
def test_p5_what_is_remembered_is_written(start: Start, provider: SimulatedProvider) -> None:
    """A count that was answered in the last moment is known after the next start."""
    server = start(models=_slow(provider.url))
    body = question()
    counted(server.count(body))
    assert server.stop() == 0
    again = start(models=_slow(provider.url)).count(body)
    assert again.headers["x-tallygate-source"] == "cache"
    assert provider.calls == 1


def test_p5_idle_connections_end_soon(start: Start) -> None:
    """Whoever asks nothing does not hold up the end."""
    server = start()
    with Connection(server.port) as idle:
        idle.send(READY)
        idle.read()
        began = time.monotonic()
        _tell(server, signal.SIGTERM)
        assert idle.ends()
        assert _exit_code(server) == 0
        assert time.monotonic() - began < 8


def _reload_under_load(server: Tallygate, at_least: int) -> None:
    config = server.err.parent / "config.yaml"
    data = yaml.safe_load(config.read_text())
    data["model_list"] += model_list(added={"model": "estimate/claude"})
    before = workers(server.pid)
    with Crowd(server.port, WIRE, CLIENTS) as crowd:
        crowd.wait_for(200)
        config.write_text(yaml.safe_dump(data))
        _tell(server, signal.SIGHUP)
        _says(server, "all workers serve the new configuration")
        crowd.wait_for(max(200, at_least - len(crowd.answers)))
    print(f"{len(crowd.faults())} of {len(crowd.answers)} requests lost")
    assert crowd.faults() == []
    assert len(crowd.answers) >= at_least
    assert counted(server.count(question("added")))
    after = workers(server.pid)
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    assert _counted_total(server) >= len(crowd.answers)


@BOTH_SOCKETS
def test_p6_reload_under_load(start: Start, reuse_port: bool) -> None:
    """Every worker changes to the new file; no request of two thousand fails."""
    _reload_under_load(start(reuse_port=reuse_port), 2_000)


def test_p6_reloads_under_much_load(start: Start) -> None:
    """No request of ten thousand fails."""
    _reload_under_load(start(), 10_000)


def test_p6_one_worker_reloads(start: Start) -> None:
    """A single worker changes without a gap too, and every time."""
    server = start(1)
    for time_ in range(1, 4):
        with Crowd(server.port, WIRE, 2) as crowd:
            crowd.wait_for(50)
            _tell(server, signal.SIGHUP)
            until(lambda: server.err.read_text().count("all workers serve") == time_)  # noqa: B023
            crowd.wait_for(50)
        assert crowd.faults() == []


@pytest.mark.processes
def test_p7_bad_file(start: Start) -> None:
    """One line says what is wrong with it; the old one goes on, in replaced workers too."""
    server = start()
    config = server.err.parent / "config.yaml"
    config.write_text("model_list:\n  - a\n")
    before = workers(server.pid)
    _tell(server, signal.SIGHUP)
    _says(server, "the running configuration is kept")
    (line,) = [one for one in server.err.read_text().splitlines() if "is kept" in one]
    assert f"{config}:2: " in line
    assert workers(server.pid) == before
    os.kill(before[FIRST], signal.SIGKILL)
    until(lambda: workers(server.pid).get(FIRST, before[FIRST]) != before[FIRST])
    _all_serve(server, 2)
    assert counted(server.count(question()))


@contextlib.contextmanager
def unable_to_start(
    launch: Callable[..., Launch], tmp_path: Path
) -> Iterator[tuple[Launch, Crowd, Path]]:
    """A server under load whose new workers end at once as long as a flag stands; it reloads."""
    flag = tmp_path / "broken"
    (tmp_path / "sitecustomize.py").write_text(BREAKS.format(flag=str(flag)))
    port = free_port()
    arguments = ("--workers", "2", "--port", str(port))
    launched = launch(*arguments, environ={"PYTHONPATH": str(tmp_path)})
    launched.answers(port)
    wire = request(method="GET", target="/health/readiness")
    with Crowd(port, wire, CLIENTS, pause_s=0.01) as crowd:
        crowd.wait_for(100)
        flag.touch()
        launched._process.send_signal(signal.SIGHUP)
        yield launched, crowd, flag


@pytest.mark.processes
def test_p7_workers_that_do_not_start(launch: Callable[..., Launch], tmp_path: Path) -> None:
    """A change with which no worker comes up is taken back; the old ones have served all along."""
    with unable_to_start(launch, tmp_path) as (launched, crowd, flag):
        launched.says("the old one is kept")
        flag.unlink()
        crowd.wait_for(1000)
    assert crowd.faults() == []
    assert launched.terminate() == 0


@pytest.mark.processes
def test_p7_workers_that_do_not_start_with_the_old_one_either(
    launch: Callable[..., Launch], tmp_path: Path
) -> None:
    """It is not the file that keeps workers from starting: those that serve go on meanwhile."""
    with unable_to_start(launch, tmp_path) as (launched, crowd, flag):
        until(lambda: launched.err.read_text().count(" has ended (3)") > 5)
        flag.unlink()
        launched._process.send_signal(signal.SIGHUP)
        launched.says("all workers serve the new configuration")
        crowd.wait_for(100)
    assert crowd.faults() == []
    assert launched.terminate() == 0


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors as Linux does")
def test_p8_descriptors_exhausted(tmp_path: Path) -> None:
    """A flood of connections is more than the descriptors: those who are in are served on."""
    limited = ("sh", "-c", 'ulimit -n 128; exec "$0" "$@"')
    command = (*limited, sys.executable, "-m", "sanic", "app.main")
    with Tallygate(tmp_path, {"model_list": ESTIMATE}, command=command) as server:
        before = workers(server.pid)
        with Connection(server.port) as inside, contextlib.ExitStack() as flood:
            inside.send(WIRE)
            assert inside.read().status_code == 200
            for _connection in range(300):
                flood.enter_context(_knock(server.port))
            inside.send(WIRE)
            assert inside.read().status_code == 200
        until(lambda: _is_ready(server))
        assert counted(server.count(question()))
        assert workers(server.pid) == before


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_p8_descriptors_suffice_for_clients_and_providers(
    tmp_path: Path, provider: SimulatedProvider
) -> None:
    """As many clients as there is room for ask one provider, and then another: all are answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limited = ("sh", "-c", f'ulimit -n {FEW}; exec "$0" "$@"')
    command = (*limited, sys.executable, "-m", "sanic", "app.main")
    places = {"one": provider.url, "two": provider.url.replace("127.0.0.1", "localhost")}
    models = model_list(**{name: anthropic(name, url) for name, url in places.items()})
    provider.clear()
    provider.behave(delay_s=0.5)
    with (
        Tallygate(tmp_path, {"model_list": models}, command=command) as server,
        contextlib.ExitStack() as crowd,
    ):
        (worker,) = workers(server.pid).values()
        descriptors, most = Path(f"/proc/{worker}/fd"), 0
        clients = [crowd.enter_context(Connection(server.port)) for _ in range(CROWD)]
        for _knocks in range(FEW // 2):
            crowd.enter_context(_knock(server.port))
        for name in places:
            for one in clients:
                one.send(request(msgspec.json.encode(question(name))))
            statuses: Counter[int] = Counter()
            for one in clients:
                statuses[one.read().status_code] += 1
                most = max(most, sum(1 for _ in descriptors.iterdir()))
            assert statuses == {200: CROWD}
        print(f"p8: {CROWD} clients, two providers: {most} of {FEW} descriptors at most")
        assert "Too many open files" not in server.err.read_text()
    provider.clear()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _knock(port: int) -> socket.socket:
    one = socket.socket()
    one.settimeout(1)
    one.connect_ex(("127.0.0.1", port))
    return one


@pytest.mark.processes
def test_p8_who_is_beyond_is_told(tmp_path: Path) -> None:
    """One connection too many gets an error that says when to come back, and no silence."""
    limits = {"max_connections": 2}
    with (
        Tallygate(tmp_path, {"model_list": ESTIMATE, "server": limits}) as server,
        Connection(server.port) as first,
        Connection(server.port) as second,
    ):
        for one in (first, second):
            one.send(WIRE)
            assert one.read().status_code == 200
        beyond = server.count(question())
        refused(beyond, 529, "overloaded_error")
        assert beyond.headers["retry-after"] == "1"
        assert beyond.headers["x-should-retry"] == "true"
        with Connection(server.port) as silent:
            assert silent.ends()
        first.send(WIRE)
        assert first.read().status_code == 200
        second.close()
        until(lambda: server.count(question()).status_code == 200)


@pytest.mark.processes
def test_more_bodies_than_there_is_room_for(tmp_path: Path) -> None:
    """Large requests at a time are refused before they are read, small ones go on."""
    limits = {"max_held_bytes": 1_000_000}
    with (
        Tallygate(tmp_path, {"model_list": ESTIMATE, "server": limits}) as server,
        Connection(server.port) as slow,
    ):
        body = msgspec.json.encode(question(padding="x" * 200_000))
        slow.send(request(b"{", length=900_000))
        assert counted(server.count(body))  # what is announced takes no room
        assert counted(server.count(question()))  # and by now the one before takes none either
        slow.send(b" " * 890_000)
        # Asked for with nothing behind it: a body beside would take the slow one's room.
        until(lambda: _invited(server, 200_000) == 529)
        assert server.count(body).status_code == 529
        assert counted(server.count(question()))
        slow.send(msgspec.json.encode(question())[:1].ljust(9_999))
        assert slow.read().status_code == 400
        assert counted(server.count(body))  # what is answered neither, though its client stays


def _invited(server: Tallygate, length: int) -> int:
    """Say what comes of an announced body of so many bytes: 100, or a refusal's status."""
    with Connection(server.port) as connection:
        connection.send(request(headers=JSON | {"expect": "100-continue"}, length=length))
        return connection.read().status_code


def _is_ready(server: Tallygate) -> bool:
    try:
        return httpx.get(f"{server.url}/health/readiness").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.processes
@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("reuse_port", [True, False], ids=["own", "shared"])
def test_spread_of_connections(start: Start, reuse_port: bool, count: int) -> None:
    """With a socket each, every worker gets its part of the connections."""
    server = start(count, reuse_port=reuse_port)
    with Crowd(server.port, WIRE, 64) as crowd:
        crowd.wait_for(640)
        until(lambda: crowd.first_process.total() >= 64)
    spread = sorted(crowd.first_process.values(), reverse=True)
    print(f"{sum(spread)} connections over {count} workers: {spread}")
    assert not crowd.faults()
    assert len(spread) == count or not reuse_port


@pytest.mark.processes
def test_main_process_killed(start: Start) -> None:
    """Workers without a main process end by themselves, and free the address."""
    server = start()
    left = workers(server.pid)
    _tell(server, signal.SIGKILL)
    until(lambda: not any(_lives(pid) for pid in left.values()))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", server.port))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.processes
def test_address_in_use(launch: Callable[..., Launch]) -> None:
    """A second server on the same address does not start; one line says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = launch("--workers", "2", "--port", str(port)).refusal()
    assert line.startswith(f"127.0.0.1:{port}: ")


@pytest.mark.processes
def test_single_process(launch: Callable[..., Launch]) -> None:
    """Without a main process it serves, hears SIGHUP without dying of it, and ends with 0."""
    port = free_port()
    launched = launch("--single-process", "--port", str(port))
    launched.answers(port)

    def says_so() -> bool:
        launched._process.send_signal(signal.SIGHUP)
        assert launched._process.poll() is None
        return "does not reload" in launched.err.read_text()

    until(says_so)
    assert launched.terminate() == 0


@pytest.mark.processes
def test_unix_socket(launch: Callable[..., Launch]) -> None:
    """A path in place of an address serves, and ends with 0."""
    # Not in tmp_path: the kernel takes 107 bytes, and Sanic binds to a name that is 44 longer.
    folder = tempfile.TemporaryDirectory()
    path = f"{folder.name}/socket"
    launched = launch("--workers", "1", "--unix", path)

    def is_ready() -> bool:
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.settimeout(1)
            client.connect(path)
            client.sendall(READY)
            return client.recv(64).startswith(b"HTTP/1.1 200 ")
        return False

    with folder:
        until(is_ready)
        assert launched.terminate() == 0
