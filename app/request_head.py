"""The head of a request to a provider: each line is one line, whatever it is made of."""

from base64 import b64encode
from functools import lru_cache
from urllib.parse import SplitResult, quote, unquote, urlsplit

USER_AGENT = "tallygate/0.1"
PORTS = {"http": 80, "https": 443}
MAX_STARTS = 256
_PRINTABLE = "%/:=&?~+!$,;'@()*[]|^{}\\`"
"""What stands in an address as it was written; all else is written by its number."""


def request_head(
    method: str,
    url: str,
    headers: tuple[tuple[str, str], ...],
    proxy_authorization: str,
    *,
    whole: bool,
) -> bytes:
    """Write the head of a request but for its length.

    ``whole``: for a proxy, which is asked for the whole URL. Raises ValueError for what would be
    more than one line.
    """
    lines = [f"{name}: {value}" for name, value in headers]
    if proxy_authorization:
        lines.append(f"proxy-authorization: {proxy_authorization}")
    said = "".join(lines)
    if not (said.isascii() and said.isprintable()):
        raise ValueError("a header that cannot be sent")
    return "\r\n".join((_start(method, url, whole=whole), *lines, "")).encode("ascii")


# Without the headers, which hold secrets that are kept nowhere and signatures that come once.
@lru_cache(MAX_STARTS)
def _start(method: str, url: str, *, whole: bool) -> str:
    parts = urlsplit(url)
    host = host_of(url)
    path = quote(parts.path or "/", safe=_PRINTABLE)
    if parts.query:
        path = f"{path}?{quote(parts.query, safe=_PRINTABLE)}"
    if whole:
        path = f"{parts.scheme}://{host}{path}"
    return f"{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {USER_AGENT}"


def host_of(url: str) -> str:
    """Name the host as ``host`` does, and as AWS wants it signed: no port that goes without saying.

    Raises ValueError for what is no URL.
    """
    parts = urlsplit(url)
    name = parts.hostname or ""
    host = f"[{name}]" if ":" in name else name
    return host if parts.port in {None, PORTS[parts.scheme]} else f"{host}:{parts.port}"


def basic_login(parts: SplitResult) -> str:
    """Write an address's own login as a header's value; empty where there is none."""
    if parts.username is None and parts.password is None:
        return ""
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return f"Basic {b64encode(login.encode()).decode()}"
