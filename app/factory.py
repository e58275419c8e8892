"""The one place that wires: settings, framework, routes, error handler, listeners."""

import asyncio
import sys
from typing import Any

from sanic import Sanic
from sanic.config import Config

from app.config import ConfigError, Settings, load
from app.descriptors import room_for_connections
from app.errors import AnthropicErrorHandler
from app.hitlane import LaneProtocol
from app.lane import HitLane
from app.log import configure_logging, describe
from app.main_process import LIMITS, METRICS, TOLD, hand_over_all, supervise
from app.process_life.board import own_name
from app.process_life.leaving import BOARD, WorkerLife, hear_no_more, outlive_hangup
from app.process_life.sanic_inside import handed_over
from app.routes import add_routes
from app.server import Server
from app.status_stream import Streams
from app.strict_http import StrictProtocol
from app.workers import Worker

READ_HEAD_S = 10
KEEP_ALIVE_S = 120
BEYOND_DEADLINE_S = 5


def create_app(config_path: str | None = None) -> Server:
    """Build the server from config.yaml. Raises SystemExit(1) with one line when it is bad.

    Runs in the main process and again in every worker; opens nothing.
    """
    try:
        settings = load(config_path)
    except ConfigError as error:
        sys.exit(str(error))
    except Exception as error:  # noqa: BLE001 -- Sanic would end with 0 for a ValueError
        sys.exit(f"the configuration cannot be used: {describe(error)}")
    configure_logging(settings.telemetry.log_level)
    app = Server(
        "Tallygate",
        config=_framework_config(settings),
        error_handler=AnthropicErrorHandler(),
        configure_logging=False,
        strict_slashes=False,
    )
    app.ctx.settings = settings
    app.ctx.protocol = LaneProtocol if settings.server.hit_lane else StrictProtocol
    app.ctx.shutting_down = False
    app.ctx.listening = ()
    app.ctx.leaving = asyncio.Event()
    app.ctx.streams = Streams(app.ctx.leaving)
    add_routes(app)
    _add_listeners(app)
    return app


def _add_listeners(app: Server) -> None:
    """Say what happens when: in the main process, and in each worker."""

    @app.main_process_start
    async def share(app: Sanic[Any, Any]) -> None:
        # Travels to the workers; a server without them (--single-process) never comes here.
        hand_over_all(app)

    @app.main_process_ready
    async def ready(app: Sanic[Any, Any]) -> None:
        supervise(app)

    @app.before_server_start
    async def open_worker(app: Sanic[Any, Any]) -> None:
        outlive_hangup()
        wanted = app.ctx.settings.server.max_connections
        room = room_for_connections(wanted)
        app.ctx.max_connections, app.ctx.spare_connections = room.clients, room.spare
        board = handed_over(app, BOARD)
        row = board.row(own_name()) if board else None
        shared, limits = handed_over(app, METRICS), handed_over(app, LIMITS)
        told = handed_over(app, TOLD)
        app.ctx.worker = Worker(
            app.ctx.settings, shared, row, limits, room.providers, shared_told=told
        )
        app.ctx.lane = HitLane(app.ctx.worker)
        await app.ctx.worker.open()

    @app.after_server_start
    async def begin_life(app: Sanic[Any, Any]) -> None:
        WorkerLife(app).begin()

    @app.before_server_stop
    async def end_undisturbed(app: Sanic[Any, Any]) -> None:
        del app
        hear_no_more()

    @app.after_server_stop
    async def close_worker(app: Sanic[Any, Any]) -> None:
        await app.ctx.worker.close()


def _framework_config(settings: Settings) -> Config:
    """Set Sanic's own settings; its environment variables are not read, config.yaml is."""
    config = Config(env_prefix=None)
    longest_s = max(one.timeout_s for one in settings.models.deployments)
    config.update(
        {
            "REQUEST_MAX_SIZE": settings.server.max_body_bytes,
            "REQUEST_TIMEOUT": READ_HEAD_S,
            # Our own 504 must come before the framework gives up.
            "RESPONSE_TIMEOUT": longest_s + BEYOND_DEADLINE_S,
            "KEEP_ALIVE_TIMEOUT": KEEP_ALIVE_S,
            "GRACEFUL_SHUTDOWN_TIMEOUT": settings.server.drain_s,
            "ACCESS_LOG": False,
            "AUTO_EXTEND": False,
            "MOTD": False,
        }
    )
    return config
