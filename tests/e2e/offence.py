"""A request that must be refused: what holds of every refusal, whatever the request."""

import httpx
import msgspec

from bench.provider import SimulatedProvider
from tests.e2e.exchange import Connection, counted, question, refused, request
from tests.server import Tallygate

CANARY = "kumquat"
"""Stands in every bad body, and in nothing that the server says or writes."""
MAX_BODY_BYTES = 12 * 2**20


class Offender:
    """Sends what is wrong over a connection of its own, and looks at what comes of it."""

    def __init__(self, server: Tallygate, provider: SimulatedProvider) -> None:
        self._server = server
        self._provider = provider

    def refused(self, wire: bytes, status: int, type_: str = "invalid_request_error") -> str:
        """Check the refusal, and return its message.

        Nobody was asked, nothing is repeated, and the connection serves the next request, or is
        closed after having said so.
        """
        asked_before = self._provider.calls
        with Connection(self._server.port) as connection:
            connection.send(wire)
            response = connection.read()
            message = refused(response, status, type_)
            assert CANARY not in response.text + str(response.headers)
            assert self._provider.calls == asked_before
            self._check_what_is_left(connection, response)
        return message

    def _check_what_is_left(self, connection: Connection, response: httpx.Response) -> None:
        if response.headers["connection"] == "close":
            assert connection.ends()
            return
        connection.send(request(msgspec.json.encode(question())))
        assert counted(connection.read())
