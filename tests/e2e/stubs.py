"""What stands around a provider: who grants its credentials, and the way out to its host."""

import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from tests.threaded import Threaded


class Login(Threaded):
    """Grants Google's tokens and AWS's container credentials, and none while ``gate`` is shut.

    The n-th grant is ``token-n``, good for ``lifetime_s`` seconds.
    """

    def __init__(self) -> None:
        self.granted = 0
        self.asked = 0
        self.lifetime_s = 3600
        self.gate = threading.Event()
        self.gate.set()
        login = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                token = f"token-{login.grant()}"
                life = login.lifetime_s
                self._send(
                    {"access_token": token, "expires_in": life, "token_type": "Bearer"},
                )

            def do_GET(self) -> None:
                grant = login.grant()
                self._send(
                    {
                        "AccessKeyId": f"AKIACONTAINER{grant}",
                        "SecretAccessKey": "container-secret",
                        "Token": f"token-{grant}",
                        "Expiration": "2099-01-01T00:00:00Z",
                    }
                )

            def _send(self, granted: dict[str, Any]) -> None:
                body = msgspec.json.encode(granted)
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(Handler)

    def grant(self) -> int:
        """Wait for the gate, and count."""
        self.asked += 1
        self.gate.wait(20)
        self.granted += 1
        return self.granted

    def service_account(self) -> dict[str, str]:
        """Make a key file whose tokens are granted here."""
        return service_account(f"{self.url}/token")


def service_account(token_uri: str) -> dict[str, str]:
    """Make a key file, with a private key of its own."""
    key = generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "type": "service_account",
        "project_id": "project-of-the-credential",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "tallygate@project-of-the-credential.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }


class WayOut(Threaded):
    """An HTTPS proxy that notes where a CONNECT wanted to go, and lets nothing through."""

    def __init__(self) -> None:
        self.hosts: list[str] = []
        way_out = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                way_out.hosts.append(self.path)
                self.send_error(502)

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(Handler)
