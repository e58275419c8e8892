"""The simulated provider steered over HTTP.

    POST   /_sim/behave          a Behaviour as JSON: queue it
    GET    /_sim/requests        the recorded requests, oldest first; ?last=N: the newest N
    DELETE /_sim/requests        forget requests, numbers and behaviours
    GET    /_sim/stats           calls, replies by status, queued behaviours
    POST   /_sim/token           a token, as Google's token service exchanges them
    POST   /_sim/takes/…         whatever is told: taken, and forgotten

Requests to /_sim/ are neither recorded nor touched by behaviours. Header values in the list are
latin-1; a body that is not UTF-8 stands in ``body_base64`` instead of ``body``.
"""

from typing import Any
from urllib.parse import parse_qs

import msgspec

from bench.provider.behaviour import Behaviour
from bench.provider.exchange import Reply, Request
from bench.provider.simulation import Simulation

PREFIX = "/_sim/"
TAKES = "/_sim/takes"
_TOKEN = {
    "access_token": "ya29.simulated",
    "expires_in": 3600,
    "token_type": "Bearer",
    "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
}


def control(simulation: Simulation, request: Request) -> Reply:
    """Carry out one request to ``/_sim/``."""
    match request.method, request.path:
        case "POST", "/_sim/behave":
            try:
                simulation.behave(msgspec.json.decode(request.body, type=Behaviour))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                return _json({"error": str(error)}, status=400)
            return _json({"behaviours": len(simulation.behaviours)})
        case "GET", "/_sim/requests":
            return _json([_shown(kept) for kept in _newest(simulation, request.query)])
        case "DELETE", "/_sim/requests":
            simulation.clear()
            return _json({})
        case "GET", "/_sim/stats":
            return _json(simulation.stats())
        case "POST", "/_sim/token":
            return _json(_TOKEN)
        case "POST", path if path.startswith(f"{TAKES}/"):
            return _json({})
        case method, path:
            return _json({"error": f"{method} {path} steers nothing"}, status=404)


def _newest(simulation: Simulation, query: str) -> list[Request]:
    requests = list(simulation.requests)
    last = parse_qs(query).get("last", [""])[0]
    return requests[-int(last) :] if last.isdecimal() and int(last) else requests


def _shown(request: Request) -> dict[str, Any]:
    try:
        body: dict[str, Any] = {"body": request.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": request.body}
    raw = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
    return {
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "raw_headers": raw,
        "time": request.time,
        **body,
    }


def _json(value: Any, *, status: int = 200) -> Reply:
    return Reply(status, msgspec.json.encode(value))
