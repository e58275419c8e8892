"""What the main process hands to its workers, and how it changes that while they serve."""

import contextlib
import time
from typing import Any

from sanic import Sanic

from app.config import ConfigError, Settings, load
from app.config_source import Accepted
from app.log import configure_logging, describe, logger
from app.process_life.board import ROWS_PER_WORKER, Board
from app.process_life.leaving import BOARD
from app.process_life.listening import SOCKETS
from app.process_life.sanic_inside import MainProcess, hand_over, handed_over
from app.process_life.supervisor import Supervisor
from app.server import Server, tell
from app.shared_limits import share_limits
from app.shared_metrics import metrics_layout, shared_metrics
from app.telemetry.layout import carry
from app.telemetry.otlp.pusher import Counting, Pusher
from app.workers import Told

METRICS, LIMITS, TOLD = "metrics", "limits", "told"
_CONFIG = "config"


def hand_over_all(app: Sanic[Any, Any]) -> None:
    """Before the workers start: the configuration as it was read, sockets, shared memory."""
    settings: Settings = app.ctx.settings
    hand_over(app, _CONFIG, Accepted(settings.source))
    hand_over(app, SOCKETS, app.ctx.listening)
    hand_over(app, BOARD, Board(app.state.workers))
    rows = app.state.workers * ROWS_PER_WORKER
    hand_over(app, METRICS, shared_metrics(settings, rows))
    hand_over(app, LIMITS, share_limits(settings, rows))
    hand_over(app, TOLD, Told.begin(app.state.workers, rows))
    _count_anew(app)


def _count_anew(app: Any) -> None:
    """Say what is pushed to a collector from now on: in one step, as another thread reads it."""
    settings: Settings = app.ctx.settings
    layout = metrics_layout(settings)
    app.ctx.counting = Counting(settings.telemetry.otlp, layout, handed_over(app, METRICS))


def supervise(app: Sanic[Any, Any]) -> None:
    """Let our own watch take the place of Sanic's."""

    def close_listening() -> None:
        for sock in app.ctx.listening:
            with contextlib.suppress(OSError):
                sock.close()

    def drain_s() -> float:
        settings: Settings = app.ctx.settings
        return settings.server.drain_notice_s + settings.server.drain_s

    main = MainProcess(app)
    supervisor = Supervisor(main, handed_over(app, BOARD), lambda: _reload(app), drain_s)
    supervisor.install(close_listening)
    pusher = Pusher(lambda: app.ctx.counting, time.time_ns)

    def watch() -> int:
        try:
            return supervisor.watch()
        finally:
            pusher.end()

    main.watch_with(watch)


class _Change:
    """A new configuration for the workers that start from now on."""

    def __init__(self, app: Any, new: Settings) -> None:
        self._app, self._old, self._new = app, app.ctx.settings, new
        self._kept = {name: handed_over(app, name) for name in (_CONFIG, METRICS, LIMITS)}
        app.ctx.settings = new
        hand_over(app, _CONFIG, Accepted(new.source))
        rows = app.state.workers * ROWS_PER_WORKER
        hand_over(app, LIMITS, share_limits(new, rows, before=self._kept[LIMITS]))
        if metrics_layout(new).slots != metrics_layout(self._old).slots:
            hand_over(app, METRICS, shared_metrics(new, rows))
            self._carry()
        _count_anew(app)

    def take_back(self) -> None:
        self._app.ctx.settings = self._old
        for name, value in self._kept.items():
            hand_over(self._app, name, value)
        _count_anew(self._app)

    def finish(self) -> None:
        self._carry()

    def _carry(self) -> None:
        """Take over what was counted; again at the end, when the old have counted their last."""
        old, new = self._kept[METRICS], handed_over(self._app, METRICS)
        if old is not new:
            carry(metrics_layout(self._old), old, metrics_layout(self._new), new)


def _reload(app: Any) -> _Change | None:
    """Read the file as it is now; what cannot be used is one line in the log, and no change."""
    old: Settings = app.ctx.settings
    server: Server = app
    try:
        new = load(old.source)
        server.admit(new)
    except (ConfigError, SystemExit) as error:
        logger.error("%s; the running configuration is kept", error)
        return None
    except Exception as error:  # noqa: BLE001 -- whatever it is, the server goes on
        logger.error("the new configuration is not used: %s", describe(error))
        return None
    for name in ("host", "port", "reuse_port"):
        if getattr(new.server, name) != getattr(old.server, name):
            logger.warning("server.%s is changed by a restart only", name)
    configure_logging(new.telemetry.log_level)
    tell(new)
    logger.info("%s is read again: worker after worker changes to it", new.source)
    return _Change(app, new)
