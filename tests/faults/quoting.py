"""Providers, token endpoints and proxies that quote whatever they are sent: keys and prompts."""

import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any

import msgspec

from tests.faults.scripted_provider import (
    End,
    Received,
    Script,
    ScriptedProvider,
    reply,
)
from tests.threaded import Threaded

COUNTED = "counted"
"""A count with members of the provider's own, which quote the request's headers."""
NO_COUNT = "no count"
LONG = "x" * 1977
"""Ahead of what is quoted: adapters cut a message after 2,000 characters, within a key."""
_FIELDS = {"count-tokens": "inputTokens", ":countTokens": "totalTokens"}


class QuotingProvider(ScriptedProvider):
    """Counts for every wire format; while there is a ``fault``, refuses and quotes the request."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: int | str | End | None = None
        self.script = self._answer

    def _answer(self, received: Received) -> Script:
        fault = self.fault
        if isinstance(fault, End):
            return (fault,)
        if fault is None or fault == COUNTED:
            return (reply(_count(received, quotes=fault == COUNTED)),)
        if fault == NO_COUNT:
            return (reply(json.dumps({"quoted": _quoted(received)}).encode()),)
        status = f"{fault} Refused"
        return (reply(_refusal(received), *_headers(received), status=status),)


def _count(received: Received, *, quotes: bool) -> bytes:
    path = received.head.split(b" ")[1].decode()
    field = next((name for end, name in _FIELDS.items() if path.endswith(end)), "input_tokens")
    own = {"own": _lines(received)} if quotes and field == "input_tokens" else {}
    return msgspec.json.encode({field: 7 + len(received.body) % 1000, **own})


def _lines(received: Received) -> dict[str, str]:
    lines = received.head.decode("latin-1").split("\r\n")[1:]
    return {name: value for name, _, value in (line.partition(": ") for line in lines) if name}


def _quoted(received: Received) -> str:
    return received.head.decode("latin-1") + received.body.decode()


def _credentials(received: Received) -> str:
    """Give what proves who asks, without a scheme."""
    lines = {name.lower(): value for name, value in _lines(received).items()}
    names = ("x-api-key", "x-goog-api-key", "x-amz-security-token", "authorization")
    found = " ".join(lines[name].removeprefix("Bearer ") for name in names if name in lines)
    signer = re.search(r"Credential=([^/]+)", found)
    return f"{found} {signer[1]}" if signer else found


def _refusal(received: Received) -> bytes:
    """Refuse in all three shapes at once, with JSON's other spelling of ``/``."""
    key, quoted = _credentials(received), _quoted(received)
    message = f"{LONG if b'at length' in received.body else ''}{key}: {quoted}"
    error = {
        "type": key,
        "message": message,
        "status": key,
        "code": 400,
        "details": [{"reason": key, key: [quoted, _lines(received)], "retryDelay": key}],
    }
    body = {"type": "error", "error": error, "message": error["message"], "request_id": key}
    return json.dumps(body).replace("/", "\\/").encode()


def _headers(received: Received) -> tuple[bytes, ...]:
    key = _credentials(received).encode()
    names = (b"request-id", b"x-amzn-requestid", b"anthropic-ratelimit-quoted", b"retry-after")
    return *(name + b": " + key for name in names), b"x-amzn-errortype: ValidationException"


class QuotingLogin(Threaded):
    """Grants ``token`` as Google's endpoint does and ``keys`` as a container's; or refuses."""

    def __init__(self, token: str, keys: dict[str, str]) -> None:
        self.refuses = False
        self.assertions: list[str] = []
        login = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                login.assertions.append(body)
                granted = {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}
                self._answer(granted, body)

            def do_GET(self) -> None:
                self._answer({**keys, "Expiration": "2099-01-01T00:00:00Z"}, str(self.headers))

            def _answer(self, granted: dict[str, Any], asked: str) -> None:
                quoted = {"error": f"invalid_grant {asked}", "error_description": asked}
                status, said = (400, quoted) if login.refuses else (200, granted)
                body = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(Handler)


class QuotingProxy(Threaded):
    """Refuses every way out, and quotes who wanted it: in words, and in each shape of an error."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                login = self.headers.get("proxy-authorization", "")
                proxy.asked.append(login)
                error = {"type": login, "message": login, "status": login}
                body = json.dumps({"type": "error", "error": error, "message": login}).encode()
                self.send_response(407, login)
                self.send_header("proxy-authenticate", f'Basic realm="{login}"')
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.do_CONNECT()

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(Handler)
