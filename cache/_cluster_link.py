"""The line to the cluster's server: one deadline, bounded connections, a breaker, no exceptions."""

import asyncio
import contextlib
import logging
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from aiocache import RedisCache
from aiocache.serializers import NullSerializer
from msgspec import Struct
from redis.asyncio import Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from cache._cluster_batch import CONNECTIONS, BatchingRedis, LostError
from cache._cluster_faults import kind_of
from cache._cluster_scripts import ENTER, Script, enter_args
from cache.breaker import Breaker
from cache.cluster_url import Server
from cache.deadline import Deadline
from cache.names import Names

logger = logging.getLogger("tallygate.cache")

PROBE_S = 1.0
"""What a probe may take to connect, and how often it looks. No request waits for it."""
PROBE_LEASE_MS = 1000

Reply = TypeVar("Reply")


class Counters(Struct):
    """What happened on this line since the start; one process's own."""

    asked: int = 0
    errors: int = 0
    not_asked: int = 0
    """Answered at once because the breaker was open."""
    crowded: int = 0
    """Gave up before its turn came: too much at once here, which is no fault of the server."""
    bad: int = 0
    """Values of the wrong type or that were no records: removed."""


class _Connection(Connection):
    """Connects to an address: the loop's own way to a name can hang (`cache.names`)."""

    def __init__(self, *, names: Names, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._names = names
        self._address = self.host

    async def _connect(self) -> None:
        *others, last = await self._names.find(self.host, self.port)
        for self._address in others:
            with contextlib.suppress(OSError):
                await super()._connect()  # type: ignore[no-untyped-call]
                return
        self._address = last
        await super()._connect()  # type: ignore[no-untyped-call]

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = {**super()._connection_arguments(), "host": self._address}
        # The certificate is the name's.
        return arguments | {"server_hostname": self.host} if "ssl" in arguments else arguments


class _TLSConnection(_Connection, SSLConnection):
    """Shares one context: loading the CA bundle anew would hold the loop for each connection."""

    def __init__(self, *, context: ssl.SSLContext, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ssl_context.context = context


def _connection_kwargs(server: Server) -> dict[str, Any]:
    kwargs: dict[str, Any] = {
        "username": server.username,
        # One deadline stands around every batch. redis-py's own costs a task per write, and the
        # wait_for it uses can lose the outer cancellation (Python 3.11).
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        "connection_class": _Connection,
        "names": Names(),
        "protocol": 2,  # no HELLO: one round trip less to connect, and no pushed messages
        "driver_info": None,
    }
    if server.tls:
        kwargs |= {"connection_class": _TLSConnection, "context": ssl.create_default_context()}
    return kwargs


class Link:
    """Asks one server; what goes wrong is counted, said once, and never raised."""

    def __init__(self, server: Server, timeout_s: float, breaker: Breaker) -> None:
        self.server = server
        self.breaker = breaker
        self.counters = Counters()
        self._timeout_s = timeout_s
        self._said: set[str] = set()
        self.cache = RedisCache(
            serializer=NullSerializer(encoding=None),
            timeout=None,
            endpoint=server.host,
            port=server.port,
            db=server.db,
            password=server.password,
            pool_max_size=CONNECTIONS + 4,  # beyond the batches: probes, scans
            create_connection_timeout=PROBE_S,
            connection_pool_kwargs=_connection_kwargs(server),
        )
        self.alone: Redis = self.cache.client
        self.together = BatchingRedis(self.alone.connection_pool, timeout_s, breaker, self._failed)
        self.cache.client = self.together

    async def ask(self, work: Callable[[], Awaitable[Reply]]) -> Reply | None:
        """Do the work within the deadline, or return None; raises nothing but CancelledError."""
        if self.breaker.is_open:
            self.counters.not_asked += 1
            return None
        self.counters.asked += 1
        began = self.breaker.now()
        try:
            async with Deadline(self._timeout_s):
                reply = await work()
        except LostError:
            return None  # its batch has been counted
        except TimeoutError as error:
            if self.together.is_silent():
                self._failed(error, began)
            else:
                self.counters.crowded += 1
            return None
        except Exception as error:  # noqa: BLE001 -- a tier's fault, of whatever kind, is a miss
            self._failed(error, began)
            return None
        self.breaker.succeeded()
        return reply

    async def run(self, script: Script, keys: Sequence[str], *args: bytes | int | str) -> Any:
        """Run a script: one round trip, or two where the server does not know it yet."""
        return await _run(partial(self.cache.raw, "execute_command"), script, keys, *args)

    async def probe(self, lease: str) -> bool:
        """Do what a request does, and close the breaker if it works, or open it if it does not.

        Takes a lease under a name of its own: a PING is answered by servers that take no write.
        """
        args = enter_args(secrets.token_bytes(8), PROBE_LEASE_MS, 0, waited=False)
        names = [f"{lease}:record", lease]
        send = self.alone.execute_command
        try:
            async with asyncio.timeout(PROBE_S):
                if self.breaker.is_open:
                    # They may lead to a host that is gone, and each would cost a request its 50 ms.
                    with contextlib.suppress(Exception):
                        await self.alone.connection_pool.disconnect(inuse_connections=False)
                await _run(send, ENTER, names, *args)
                async with asyncio.timeout(self._timeout_s):
                    await _run(send, ENTER, names, *args)
        except Exception as error:  # noqa: BLE001 -- as above
            self._say(kind_of(error))
            if self.breaker.open():
                logger.warning("cluster cache %s: not asked until it answers", self.server)
            return False
        open_s = self.breaker.open_s
        if self.breaker.close():
            self._said.clear()
            logger.warning("cluster cache %s: asked again after %.1f s", self.server, open_s)
        return True

    async def close(self) -> None:
        """Close the connections, within the time of a probe."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(PROBE_S):
                await self.together.close_flights()
                await self.alone.aclose()

    def _failed(self, error: Exception, began: float) -> None:
        self.counters.errors += 1
        self._say(kind_of(error))
        if self.breaker.failed(began):
            logger.warning("cluster cache %s: not asked until it answers", self.server)

    def _say(self, kind: str) -> None:
        """Log a kind of fault once, until the server has recovered."""
        if kind not in self._said:
            self._said.add(kind)
            logger.warning("cluster cache %s: %s", self.server, kind)


async def _run(
    send: Callable[..., Awaitable[Any]],
    script: Script,
    keys: Sequence[str],
    *args: bytes | int | str,
) -> Any:
    rest = (len(keys), *keys, *args)
    try:
        return await send("EVALSHA", script.sha, *rest)
    except NoScriptError:
        return await send("EVAL", script.text, *rest)
