"""Where the server listens, what it refuses to begin with, and what it says of itself then."""

import asyncio
import contextlib
import ipaddress
import os
import socket
import sys
from typing import Any

from sanic import Sanic

from adapters.registry import ESTIMATE
from app.config import ConfigError, Settings
from app.dial import ca_bundle, way_to
from app.log import logger
from app.process_life.listening import LoopPolicy, Sockets, listen
from app.upstream import Upstream

MAX_UNIX_PATH_BYTES = 63
"""The system takes 107, and Sanic binds to a name that is 44 longer first (25.12.1)."""


class Server(Sanic[Any, Any]):
    """Sanic with the configured address, and without an open door for a key everybody knows."""

    def prepare(self, host: str | None = None, port: int | None = None, **options: Any) -> None:
        """Fill in the configured address, and refuse one that a weak key must not stand on.

        Runs once, in the main process, before anything listens. Raises SystemExit(1).
        """
        settings: Settings = self.ctx.settings
        host, port = host or settings.server.host, port or settings.server.port
        sock: socket.socket | None = options.get("sock")
        unix = options.get("unix")
        if unix and len(os.fsencode(unix)) > MAX_UNIX_PATH_BYTES:
            sys.exit(f"--unix: the path may be {MAX_UNIX_PATH_BYTES} bytes long at most: {unix}")
        bound = str(sock.getsockname()[0]) if sock else host
        if not unix and not is_loopback(bound):
            _refuse_weak_key(settings, bound)
        _check_surroundings()
        _check_callbacks(settings)
        self.ctx.bound = None if unix else bound
        if not unix and not sock:
            self.ctx.listening = _listen(host, port, options, share=settings.server.reuse_port)
            options["sock"] = self.ctx.listening[0]
        tell(settings)
        logger.info("Tallygate on %s\n%s", unix or f"http://{bound}:{port}", start_table(settings))
        options["motd"] = False
        options["protocol"] = self.ctx.protocol
        super().prepare(host, port, **options)

    def admit(self, settings: Settings) -> None:
        """Refuse what a running server must not change to. Raises SystemExit with one line."""
        if self.ctx.bound is not None and not is_loopback(self.ctx.bound):
            _refuse_weak_key(settings, self.ctx.bound)
        _check_surroundings()
        _check_callbacks(settings)

    def setup_loop(self) -> None:
        """Let workers run on a loop that knows its listener."""
        super().setup_loop()
        asyncio.set_event_loop_policy(LoopPolicy())


def _listen(host: str, port: int, options: dict[str, Any], *, share: bool) -> Sockets:
    """Open what the workers listen on. Raises SystemExit(1) with one line."""
    workers = len(os.sched_getaffinity(0)) if options.get("fast") else options.get("workers", 1)
    try:
        return listen(host, port, workers if share else 1)
    except OSError as error:
        sys.exit(f"{host}:{port}: {error.strerror}; choose another with server.host and .port")


def tell(settings: Settings) -> None:
    """Log what the operator should know about a configuration, at the start and at a reload."""
    for notice in settings.notices:
        logger.warning("%s: %s", settings.source, notice)
    if settings.weak_key is not None:
        logger.warning("%s", settings.weak_key)


def _refuse_weak_key(settings: Settings, bound: str) -> None:
    if settings.weak_key is not None and not settings.server.allow_weak_key:
        sys.exit(
            f"{settings.source}: {settings.weak_key}, so {bound} is refused: only loopback may be "
            "served. Set general_settings.master_key, or server.allow_weak_key: true"
        )


def _check_surroundings() -> None:
    """End the start here rather than in every worker, where Sanic would kill the whole group."""
    try:
        for scheme in ("http", "https"):
            way_to(f"{scheme}://counter.invalid", os.environ)
    except ValueError as error:
        sys.exit(f"HTTP_PROXY, HTTPS_PROXY or ALL_PROXY: {error}")
    try:
        if ca_bundle(os.environ) is not None:
            Upstream()
    except OSError as error:
        sys.exit(f"SSL_CERT_FILE or REQUESTS_CA_BUNDLE: {error.filename}: {error.strerror}")
    except ValueError:
        sys.exit("SSL_CERT_FILE or REQUESTS_CA_BUNDLE: holds a certificate that cannot be read")


def _check_callbacks(settings: Settings) -> None:
    """Import what workers are to call, and call nothing: what fails ends the start here."""
    try:
        settings.callbacks()
    except ConfigError as error:
        sys.exit(str(error))


def is_loopback(host: str) -> bool:
    """Say whether an address or a name to listen on is reached from this machine only."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def start_table(settings: Settings) -> str:
    """List every deployment: alias, provider, upstream model, and whether it can be asked."""
    rows = [("alias", "provider", "upstream model", "credential")]
    for one in settings.models.deployments:
        missing = ", ".join(one.endpoint.missing)
        state = f"missing: {missing}" if missing else "found"
        if one.provider == ESTIMATE:
            state = "none needed; answers are estimates"
        rows.append((one.alias, one.provider, one.endpoint.upstream_model, state))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]))
        for row in rows
    )
