"""Batches on their way: what becomes of them when the receiver does not take them."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.telemetry import CountEvent, Sampling, Telemetry
from app.telemetry import courier as module
from app.telemetry.courier import Courier, Round
from app.telemetry.layout import Layout
from app.telemetry.metrics import Metrics
from app.telemetry.post import LAST_S, Parcel
from tests.e2e.receiver import Receiver, until
from tests.server import free_port

EVENT = CountEvent(time_s=1.0, request_id="req_1", status=200, duration_ms=1.0, route="messages")


class Noted(Counter[str]):
    def note(self, result: str, events: int) -> None:
        self[result] += events


def to(url: str, **more: Any) -> Round:
    fields = {
        "name": "webhook",
        "url": url,
        "batch_events": 10,
        "flush_s": 0.01,
        "timeout_s": 5.0,
        "tells_losses": True,
        "worth_another": {503},
        "pack": lambda events, lost: Parcel(b"%d %d" % (len(list(events)), lost.dropped), dict),
    }
    return Round(**{**fields, **more})


def courier(url: str, noted: Noted, **more: Any) -> Courier:
    return Courier(to(url, **more), Sampling(0), noted.note)


@pytest.fixture
def deaf() -> Iterator[str]:
    """A receiver that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES_S", (0.01, 0.01, 0.01))


def end(*couriers: Courier) -> float:
    began = time.monotonic()
    metrics = Metrics(Layout((), ()), [0.0] * Layout((), ()).width, rows=1, row=0)
    Telemetry(metrics, couriers, Sampling(0)).close()
    return time.monotonic() - began


def test_all_that_is_left_is_posted_at_the_end() -> None:
    noted = Noted()
    with Receiver() as receiver:
        one = courier(receiver.url, noted, flush_s=60.0)
        for _ in range(35):
            one.emit(EVENT)
        end(one)
        assert [body for _, body in receiver.posts] == [b"10 0", b"10 0", b"10 0", b"5 0"]
    assert noted == {"sent": 35, "dropped": 0}


def test_receivers_that_hang_hold_the_end_up_once(deaf: str) -> None:
    noted = Noted()
    couriers = [courier(deaf, noted) for _ in range(3)]
    for one in couriers:
        for _ in range(25):
            one.emit(EVENT)
    time.sleep(0.2)
    assert end(*couriers) < LAST_S + 1.5
    assert 0 < noted["dropped"] <= 75


@pytest.mark.usefixtures("_hasty")
def test_drops_are_told_while_more_comes() -> None:
    """A steady stream to nobody: the numbers must not wait for a pause."""
    noted, stop = Noted(), threading.Event()
    one = courier(f"http://127.0.0.1:{free_port()}", noted)

    def stream() -> None:
        while not stop.wait(0.001):
            one.emit(EVENT)

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        until(lambda: noted["dropped"] >= 20)
    finally:
        stop.set()
        thread.join()
        end(one)


@pytest.mark.usefixtures("_hasty")
def test_a_batch_is_offered_four_times_and_then_told_as_lost() -> None:
    noted = Noted()
    with Receiver() as receiver:
        receiver.statuses = [503] * 4
        one = courier(receiver.url, noted)
        one.emit(EVENT)
        until(lambda: noted["dropped"] == 1)
        assert len(receiver.posts) == 4
        one.emit(EVENT)
        until(lambda: noted["sent"] == 1)
        assert receiver.posts[-1][1] == b"1 1"
        end(one)


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize(("told", "pause_s"), [("1", 1.0), ("-1", 0.0), ("soon", 0.0), ("", 0.0)])
def test_a_receiver_may_say_when_it_wants_a_batch_again(told: str, pause_s: float) -> None:
    """In seconds; what cannot be read is not waited for."""
    noted = Noted()
    with Receiver() as receiver:
        receiver.headers, receiver.statuses = {"retry-after": told}, [503]
        one = courier(receiver.url, noted)
        began = time.monotonic()
        one.emit(EVENT)
        until(lambda: noted["sent"] == 1)
        assert time.monotonic() - began >= pause_s
        assert len(receiver.posts) == 2
        end(one)


def test_a_receiver_cannot_ask_for_more_than_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does its wish hold up the end."""
    monkeypatch.setattr("app.telemetry.post.MAX_RETRY_AFTER_S", 1)
    noted = Noted()
    with Receiver() as receiver:
        receiver.headers, receiver.statuses = {"retry-after": "9" * 400}, [503, 503]
        one = courier(receiver.url, noted)
        one.emit(EVENT)
        until(lambda: len(receiver.posts) == 2)
        monkeypatch.setattr("app.telemetry.post.MAX_RETRY_AFTER_S", 3600)
        assert end(one) < LAST_S + 1.5
    assert noted["sent"] + noted["dropped"] == 1


def test_what_an_answer_says_is_rejected_counts_as_dropped() -> None:
    noted = Noted()
    with Receiver() as receiver:
        receiver.says = b"3" + b" " * 100_000
        one = courier(receiver.url, noted, rejected=int, flush_s=60.0)
        for _ in range(5):
            one.emit(EVENT)
        end(one)
        assert receiver.posts[0][1] == b"5 0"
        assert b"0 3" in {body for _, body in receiver.posts}, "told with the next batch"
    assert noted == {"sent": 2, "dropped": 3}


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize(
    "more",
    [
        {"pack": lambda _events, _lost: Parcel(b"", lambda: {"k": "not-to-be-told\n"})},
        {"pack": lambda _events, _lost: 1 // 0},
        {"url": "http://1.2.3.4.5/"},
    ],
)
def test_what_cannot_be_sent_ends_no_thread_and_is_not_quoted(
    more: dict[str, Any], caplog: Any, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.log._last_said", {})
    noted = Noted()
    one = courier(**{"url": "http://127.0.0.1:9/", "noted": noted, **more})
    for turn in (1, 2):
        one.emit(EVENT)
        until(lambda turn=turn: noted["dropped"] == turn)  # type: ignore[misc]
    end(one)
    shown = caplog.text + "".join(capfd.readouterr())
    assert "not-to-be-told" not in shown


def test_the_queue_is_bounded(deaf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.telemetry.outbox.MAX_WAITING", 50)
    noted = Noted()
    one = courier(deaf, noted, timeout_s=0.2, worth_another=())
    holds: Callable[[], bool] = lambda: noted["dropped"] >= 200 - 50 - 10  # noqa: E731
    for _ in range(200):
        one.emit(EVENT)
    until(holds)
    end(one)
