"""Opens connections to providers: names, addresses, proxies, certificates.

target ─ a proxy for it? ─no──► name ─ addresses ─ connect ───────────► TLS for https ──► connection
             │ yes                                                            ▲
             ├─ http ──► connect to the proxy: it is asked for the whole URL ──┼───────► connection
             └─ https ─► connect to the proxy ─ CONNECT host:port ── 200 ──────┘
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast
from urllib.parse import urlsplit

import aiohappyeyeballs
import certifi
from msgspec import Struct

from app.exchange import Exchange, UpstreamUnreachableError
from app.request_head import PORTS, basic_login
from cache.names import Names

CONNECT_TIMEOUT_S = 5.0
NEXT_ADDRESS_S = 0.25
"""A second address is tried beside the first one after this (RFC 8305, section 8: 250 ms)."""
MAX_TUNNEL_HEAD_BYTES = 16_384
SUCCESSES, LOGIN_WANTED = range(200, 300), 407
Spoken = TypeVar("Spoken", bound=asyncio.Protocol)
_CONNECTED = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


class Target(Struct, frozen=True):
    """Where a provider listens."""

    is_tls: bool
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Target":
        """Read it from an absolute http(s) URL. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise ValueError("must begin with http:// or https:// and name a host")
        port = parts.port if parts.port is not None else PORTS[parts.scheme]
        return cls(parts.scheme == "https", parts.hostname, port)

    @property
    def authority(self) -> str:
        """Write ``host:port``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Proxy(Struct, frozen=True):
    """What stands between here and a target."""

    at: Target
    authorization: str
    """Of its login, if there is one: a secret."""

    def __repr__(self) -> str:
        return f"<Proxy {self.at.authority}>"


class ProxyLoginError(Exception):
    """The proxy wants another login (407)."""


class Way(Struct, frozen=True):
    """How a target is reached."""

    target: Target
    proxy: Proxy | None

    @property
    def is_whole(self) -> bool:
        """Whether the proxy is asked for the whole URL, rather than for a way through."""
        return self.proxy is not None and not self.target.is_tls

    @property
    def login(self) -> str:
        """What a proxy that is asked for the whole URL has to be told."""
        return self.proxy.authorization if self.proxy and self.is_whole else ""


def ca_bundle(environ: Mapping[str, str]) -> bytes | None:
    """Read the operator's own certificate authorities, if any. Raises OSError with the path."""
    path = environ.get("SSL_CERT_FILE") or environ.get("REQUESTS_CA_BUNDLE")
    return Path(path).read_bytes() if path else None


def way_to(base_url: str, environ: Mapping[str, str]) -> Way:
    """Find the way to a provider. Raises ValueError for a proxy's address that is no URL."""
    target = Target.of(base_url)
    return Way(target, proxy_of(target, environ))


def proxy_of(target: Target, environ: Mapping[str, str]) -> Proxy | None:
    """Find the proxy for a target in the environment. Raises ValueError for one that is no URL."""
    name = "https_proxy" if target.is_tls else "http_proxy"
    said = _said(environ, name) or _said(environ, "all_proxy")
    if not said or _is_excepted(target, _said(environ, "no_proxy")):
        return None
    url = said if "://" in said else f"http://{said}"
    try:
        at, parts = Target.of(url), urlsplit(url)
    except ValueError:  # whose own text may quote a part of the login
        raise ValueError("must begin with http:// or https:// and name a host") from None
    return Proxy(at, basic_login(parts))


def _said(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _is_excepted(target: Target, no_proxy: str) -> bool:
    """Say whether NO_PROXY names the target: by a name, the end of one, an address or a network."""
    return any(_names(one.strip(), target) for one in no_proxy.split(","))


def _names(one: str, target: Target) -> bool:
    if one == "*":
        return True
    try:
        network = ipaddress.ip_network(one.strip("[]"), strict=False)
        return ipaddress.ip_address(target.host) in network
    except ValueError:  # one of them is a name
        name = one.removesuffix(f":{target.port}").removeprefix(".").lower()
        return bool(name) and f".{target.host}".endswith(f".{name}")


class Dialer:
    """Opens connections for one worker."""

    def __init__(self, environ: Mapping[str, str], *, speaks_tls: bool = False) -> None:
        """``speaks_tls``: load the authorities now; later it would hold up the loop.

        Raises OSError and ValueError for a bundle of authorities that cannot be used.
        """
        self._names: dict[str, Names] = {}
        self._authorities = ca_bundle(environ)
        if self._authorities is not None or speaks_tls:
            _ = self._tls

    async def dial(self, way: Way) -> Exchange:
        """Open a connection, CONNECT_TIMEOUT_S at most.

        Raises UpstreamUnreachableError and ProxyLoginError.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await self._dial(way)
        except TimeoutError:
            raise UpstreamUnreachableError("no connection in time", timed_out=True) from None
        except (OSError, RuntimeError, ValueError) as error:  # the second: no thread for a name
            raise UpstreamUnreachableError(type(error).__name__, timed_out=False) from error

    async def _dial(self, way: Way) -> Exchange:
        target, proxy = way.target, way.proxy
        if proxy is None or not target.is_tls:
            return await self._open(proxy.at if proxy else target, Exchange)
        tunnel = await self._open(proxy.at, Tunnel)
        await tunnel.lead_to(target, proxy.authorization)
        return await tunnel.secured(self._tls, target.host)

    async def _open(self, at: Target, protocol: Callable[[], Spoken]) -> Spoken:
        loop = asyncio.get_running_loop()
        names = self._names.setdefault(at.host, Names())
        addresses = await names.find(at.host, at.port)
        infos = [_address_info(one, at.port) for one in addresses]
        sock = await aiohappyeyeballs.start_connection(
            infos, happy_eyeballs_delay=NEXT_ADDRESS_S, loop=loop
        )
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, made = await loop.create_connection(
                protocol,
                sock=sock,
                ssl=self._tls if at.is_tls else None,
                server_hostname=at.host if at.is_tls else None,
            )
        except BaseException:
            sock.close()
            raise
        return made

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The built-in authorities and the operator's own."""
        context = ssl.create_default_context(cafile=certifi.where())
        context.set_alpn_protocols(["http/1.1"])
        # Set by Python 3.13: authorities of companies often lack what it wants of a certificate.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self._authorities is not None:
            try:  # what is not ASCII are remarks between the certificates
                context.load_verify_locations(cadata=self._authorities.decode("ascii", "ignore"))
            except ssl.SSLError as error:
                raise ValueError("no certificate that can be read") from error
        return context


def _address_info(address: str, port: int) -> "aiohappyeyeballs.AddrInfoType":
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    at = (address, port, 0, 0) if family is socket.AF_INET6 else (address, port)
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", at


class Tunnel(asyncio.Protocol):
    """A connection to a proxy that is asked to pass on what follows."""

    def __init__(self) -> None:
        self._heard = b""
        self._transport: asyncio.Transport | None = None
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def lead_to(self, target: Target, authorization: str) -> None:
        """Ask for the way to a target. Raises ProxyLoginError and OSError."""
        transport = self._transport
        if transport is None:
            raise ConnectionResetError
        login = f"proxy-authorization: {authorization}\r\n" if authorization else ""
        where = target.authority
        transport.write(f"CONNECT {where} HTTP/1.1\r\nhost: {where}\r\n{login}\r\n".encode())
        try:
            status = await self._status
        except BaseException:
            transport.abort()
            raise
        if status not in SUCCESSES:
            transport.abort()
            raise ProxyLoginError if status == LOGIN_WANTED else ConnectionRefusedError

    async def secured(self, tls: ssl.SSLContext, host: str) -> Exchange:
        """Speak TLS with the target. Raises OSError."""
        loop, transport = asyncio.get_running_loop(), self._transport
        if transport is None:
            raise ConnectionResetError
        exchange = Exchange()
        try:
            made = await loop.start_tls(transport, exchange, tls, server_hostname=host)
        except BaseException:
            transport.abort()
            raise
        if made is None:
            raise ConnectionResetError
        exchange.connection_made(made)
        return exchange

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read the proxy's answer, which has no body where it opens the way."""
        self._heard += data
        end = self._heard.find(b"\r\n\r\n")
        if self._status.done() or (end < 0 and len(self._heard) <= MAX_TUNNEL_HEAD_BYTES):
            return
        found = _CONNECTED.match(self._heard)
        if found is None or end < 0:
            self._status.set_exception(ConnectionAbortedError("no answer of a proxy"))
        else:
            self._status.set_result(int(found[1]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._transport = None
        if not self._status.done():
            self._status.set_exception(exc or ConnectionResetError())
            self._status.exception()  # looked at: perhaps nobody waits yet
