"""The tiers outside any worker, as the command line opens them: beside servers, or without any.

A worker goes on without a tier that fails it. A command must not: what it has not read or written
it does not pass over, it says so and fails.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self

from app.config import Settings
from app.memory import codec, host_path, open_cluster
from cache.cluster import AwayError, ClusterCache
from cache.cluster_url import parse
from cache.generations import Generations
from cache.host import HostCache, HostFileError
from cache.record import BadRecordError, Record

OPERATOR_S = 5.0
"""How long the cluster may take for one answer; no request waits for it here."""
FLUSH_S = 30.0


class TierError(Exception):
    """A tier has failed the command; the text is for the operator."""


class SharedTiers:
    """Host and cluster, each where it is configured, and not among ``without``.

    ``create``: make the host's file where there is none; else it counts as absent.
    """

    def __init__(
        self,
        settings: Settings,
        wall_clock: Callable[[], float],
        *,
        without: frozenset[str] = frozenset(),
        create: bool,
    ) -> None:
        self.codec = codec(settings)
        self.host: HostCache | None = None
        self.cluster: ClusterCache | None = None
        self._wall_clock = wall_clock
        self._path = host_path(settings)
        self.host_is = self._name_host(settings, without, create=create)
        self.cluster_is = "not configured"
        url = settings.cache.cluster.url
        if url is not None:
            name = f"{parse(url.reveal())}, namespace {settings.cache.cluster.namespace}"
            self.cluster_is = "left out" if "cluster" in without else name
            if "cluster" not in without:
                self.cluster = open_cluster(settings, OPERATOR_S)

    def _name_host(self, settings: Settings, without: frozenset[str], *, create: bool) -> str:
        if not settings.cache.host.enabled:
            return "switched off"
        if "host" in without:
            return "left out"
        if not create and not self._path.exists():
            return f"no file yet at {self._path}"
        self.host = HostCache(self._path, settings.cache.host.max_bytes)
        return str(self._path)

    @property
    def names(self) -> str:
        """Say which tiers are used, and why one is not."""
        return f"host: {self.host_is}; cluster: {self.cluster_is}"

    @property
    def is_empty(self) -> bool:
        """Say whether there is no tier to work on."""
        return self.host is None and self.cluster is None

    async def __aenter__(self) -> Self:
        """Open the host's file. Raises TierError."""
        if self.host is not None:
            try:
                self.host.open()
            except HostFileError as error:
                self.host.shut()
                raise TierError(f"host: {error}") from error
            if self.host.repairs:
                self.host.shut()
                raise TierError(f"host: {self._path} was damaged; put aside beside it, begun anew")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.cluster is not None:
            await self.cluster.close()
        if self.host is not None:
            self.host.shut()

    async def generations(self) -> Generations:
        """Read what holds: of each model the greatest in any tier. Raises TierError."""
        known = Generations(self._wall_clock)
        if self.host is not None:
            try:
                known.merge(self.host.generations())
            except sqlite3.Error as error:
                raise TierError(f"host: {error}") from error
            self._check_host()
        if self.cluster is not None:
            heard = await self.cluster.generations()
            if heard is None:
                raise self._away()
            known.merge(heard)
        return known

    async def raise_generations(self, generations: Mapping[str, int]) -> None:
        """Write what is greater than what stands there, and wait for it. Raises TierError."""
        if self.host is not None:
            for model, generation in generations.items():
                self.host.raise_generation(model, generation)
            self.flush_host()
        if self.cluster is not None:
            for model, generation in generations.items():
                if not await self.cluster.raise_generation(model, generation):
                    raise self._away()

    def flush_host(self) -> None:
        """Wait until what was queued is committed. Raises TierError."""
        if self.host is not None and not self.host.flush(FLUSH_S):
            raise TierError(f"host: {self.host.trouble or 'not written in time'}")

    def host_items(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Walk through key, value and expiry (seconds since 1970) of the host's file.

        Raises TierError rather than end early as if complete.
        """
        if self.host is None:
            return
        begun = self._inode()
        try:
            yield from self.host.items()
        except sqlite3.Error as error:
            raise TierError(f"host: {error}") from error
        self._check_host()
        # The store follows its path to another file, and would go on there from the same row.
        if self._inode() != begun:
            raise TierError("host: the file was replaced while it was read; run this again")

    async def cluster_items(self) -> AsyncIterator[tuple[bytes, bytes, float]]:
        """Walk through key, value and seconds to live of the cluster's records.

        A record may come twice. Raises TierError rather than end early as if complete.
        """
        if self.cluster is None:
            return
        items = self.cluster.scan()
        while True:
            try:
                item = await anext(items)
            except StopAsyncIteration:
                return
            except AwayError as error:
                raise self._away() from error
            yield item

    def delete_from_host(self, keys: Iterable[bytes]) -> int:
        """Delete counts, and return how many there were. Raises TierError."""
        try:
            return self.host.delete_many(keys) if self.host is not None else 0
        except sqlite3.Error as error:
            raise TierError(f"host: {error}") from error

    async def delete_from_cluster(self, keys: Iterable[bytes]) -> int:
        """Delete counts, and return how many there were. Raises TierError."""
        deleted = await self.cluster.delete(keys) if self.cluster is not None else 0
        if deleted is None:
            raise self._away()
        return deleted

    def on_host(self, key: bytes) -> bytes | None:
        """Look into the host's file for one key. Raises TierError."""
        try:
            return self.host.look_up(key) if self.host is not None else None
        except sqlite3.Error as error:
            raise TierError(f"host: {error}") from error

    def read(self, key: bytes, data: bytes) -> Record | None:
        """Read a record; None for what this installation has not written under this key."""
        try:
            return self.codec.decode(key, data)
        except BadRecordError:
            return None

    def _check_host(self) -> None:
        if self.host is not None and (trouble := self.host.trouble):
            raise TierError(f"host: {trouble}")

    def _inode(self) -> tuple[int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise TierError(f"host: {self._path}: {error.strerror}") from error
        return status.st_dev, status.st_ino

    def _away(self) -> TierError:
        return TierError(
            f"cluster: {self.cluster_is}: does not answer as it should; "
            "--without cluster does the rest"
        )
