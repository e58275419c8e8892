"""A loopback stand-in for everything of AWS that gives keys, and a judge of signatures.

The judge follows AWS's own description, not botocore's code:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html (2026-11)
"""

import hashlib
import hmac
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote

import msgspec

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
REPLY_SECRET = "a-secret-that-stands-in-a-reply"


class FakeAws(ThreadingHTTPServer):
    """Container and instance metadata, STS, and a Bedrock that accepts whatever comes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.clear()

    def clear(self) -> None:
        self.seen: list[_Handler] = []
        self.delay_s = 0.0
        self.life_s = 3600.0
        self.fails = False

    def paths(self) -> list[str]:
        return [handler.path.partition("?")[0] for handler in self.seen]

    def keys(self) -> dict[str, str]:
        """Give keys that carry the number of the request which they answer."""
        end = datetime.now(UTC) + timedelta(seconds=self.life_s)
        return {
            "AccessKeyId": f"ASIA{len(self.seen)}",
            "SecretAccessKey": SECRET,
            "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


class _Handler(BaseHTTPRequestHandler):
    server: FakeAws
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append(self)
        time.sleep(self.server.delay_s)
        status, reply = self.reply()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def reply(self) -> tuple[int, bytes]:
        if self.path.endswith("/count-tokens"):
            return 200, b'{"inputTokens":14}'
        if self.server.fails and self.command == "POST":
            return 403, (
                b"<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>"
                b"<Message>%b</Message></Error></ErrorResponse>" % REPLY_SECRET.encode()
            )
        if self.server.fails:
            return 400, msgspec.json.encode({"message": REPLY_SECRET})
        if self.path == "/latest/api/token":
            return 200, b"imds-token"
        if self.path == "/latest/meta-data/iam/security-credentials/":
            return 200, b"instance-role"
        keys = self.server.keys()
        if self.command == "POST":
            return 200, self.session(keys)
        token = f"token-{len(self.server.seen)}"
        return 200, msgspec.json.encode({"Code": "Success", "Token": token, **keys})

    def session(self, keys: dict[str, str]) -> bytes:
        action = parse_qs(self.body.decode())["Action"][0]
        fields = "".join(f"<{name}>{value}</{name}>" for name, value in keys.items())
        return (
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            f"<{action}Result><Credentials><SessionToken>session-of-{action}</SessionToken>{fields}"
            f"</Credentials></{action}Result></{action}Response>"
        ).encode()


def expected_signature(received: _Handler) -> str:
    """Compute what a request as it arrived must carry."""
    fields = signature_fields(received.headers["authorization"])
    _, day, region, service, _ = fields["Credential"].split("/")
    names = fields["SignedHeaders"].split(";")
    path, _, query = received.path.partition("?")
    canonical = [received.command, quote(path, safe="/-_.~"), query]
    canonical += [f"{name}:{received.headers[name].strip()}" for name in names]
    canonical += ["", ";".join(names), hashlib.sha256(received.body).hexdigest()]
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    scope = f"{day}/{region}/{service}/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", received.headers["x-amz-date"], scope, digest])
    key = f"AWS4{SECRET}".encode()
    for part in (day, region, service, "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def signature_fields(authorization: str) -> dict[str, str]:
    algorithm, _, rest = authorization.partition(" ")
    assert algorithm == "AWS4-HMAC-SHA256"
    return dict(part.strip().split("=", 1) for part in rest.split(","))
