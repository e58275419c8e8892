"""Where the cluster's cache is: from a URL of our own configuration, or LiteLLM's parameters."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from msgspec import Struct

DEFAULT_PORT = 6379
DEFAULT_NAMESPACE = "tallygate"
# Braces would move the hash tag, a star or a bracket would widen a scan to other people's keys.
_NAMESPACE = re.compile(r"[A-Za-z0-9._:@/-]{1,64}")
_YES, _NO = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")


class Server(Struct, frozen=True):
    """A Redis or Valkey server. Its ``repr`` names neither user nor password."""

    host: str
    port: int = DEFAULT_PORT
    db: int = 0
    tls: bool = False
    username: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}/{self.db}"

    def __repr__(self) -> str:
        return f"<Server {self}>"


def parse(url: str) -> Server:
    """Read ``redis[s]://[[user]:password@]host[:port][/db]``; escapes are percent-encoded.

    Raises ValueError naming the part that is wrong, and nothing of what stands there: a badly
    escaped password can turn up in any part.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("cluster url: the host is not readable") from None
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError("cluster url: the scheme must be redis:// or rediss://")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("cluster url: no query or fragment; percent-encode ? and # in a password")
    if not parts.hostname:
        raise ValueError("cluster url: the host is missing")
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if username and not password:
        raise ValueError("cluster url: a user without a password; for a password alone, :password@")
    return Server(
        host=unquote(parts.hostname),
        port=_port(parts),
        db=_db(parts.path),
        tls=parts.scheme == "rediss",
        username=username or None,
        password=password or None,
    )


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port is None:
        return DEFAULT_PORT
    if port == 0:
        raise ValueError("cluster url: the port must be a number from 1 to 65535")
    return port


def _db(path: str) -> int:
    number = path.removeprefix("/")
    if number and not (number.isascii() and number.isdigit() and len(number) <= 5):  # noqa: PLR2004
        raise ValueError("cluster url: the database must be a number, as in /0")
    return int(number or 0)


def check_namespace(namespace: str) -> str:
    """Return the namespace. Raises ValueError where it could touch other people's keys."""
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError("cluster namespace: 1 to 64 letters, digits and . _ : @ / -")
    return namespace


def url_from(params: Mapping[str, Any]) -> tuple[str, str, float | None] | None:
    """Translate LiteLLM's ``cache_params``: URL, namespace, seconds to live (None: not said).

    None for ``type: local``, which means no cluster. Raises ValueError with a remedy for what is
    not spoken here; keys that say nothing about a server are left alone.
    """
    kind = str(params.get("type", "redis"))
    if kind == "local":
        return None
    if kind != "redis":
        raise ValueError(
            f"cache_params.type: {kind} is not supported; use redis (Redis or Valkey) or local"
        )
    for name in ("startup_nodes", "redis_startup_nodes", "sentinel_nodes", "service_name"):
        if params.get(name):
            raise ValueError(
                f"cache_params.{name}: Redis Cluster and Sentinel are not supported yet;"
                " name one server with host and port, or url"
            )
    namespace = check_namespace(str(params.get("namespace") or DEFAULT_NAMESPACE))
    url = str(params["url"]) if params.get("url") else _compose(params)
    parse(url)
    return url, namespace, _ttl_s(params.get("ttl"))


def _compose(params: Mapping[str, Any]) -> str:
    host = str(params.get("host") or "")
    if not host:
        raise ValueError("cache_params.host: missing; give host and port, or url")
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    username, password = (str(params.get(name) or "") for name in ("username", "password"))
    login = (
        f"{quote(username, safe='')}:{quote(password, safe='')}@" if username or password else ""
    )
    scheme = "rediss" if _flag(params.get("ssl", False)) else "redis"
    return f"{scheme}://{login}{host}:{params.get('port') or DEFAULT_PORT}/{params.get('db') or 0}"


def _flag(value: object) -> bool:
    text = str(value).lower()
    if text not in _YES + _NO:
        raise ValueError("cache_params.ssl: true or false")
    return text in _YES


def _ttl_s(value: object) -> float | None:
    if value is None:
        return None
    try:
        ttl_s = float(str(value))
    except ValueError:
        ttl_s = 0.0
    if not 0 < ttl_s < float("inf"):
        raise ValueError("cache_params.ttl: a number of seconds greater than 0")
    return ttl_s
