"""Counts as a user of the official Python SDK does: one JSON line in, one JSON line out.

Runs in environments that hold other releases of the SDK than the tests' own, and nothing else.

    {"url":…,"key":…,"how":"async beta","max_retries":0,"arguments":{"model":…},"betas":[…]}
    {"answer":{"input_tokens":14},"request_id":"req_…"}
    {"error":{"classes":["NotFoundError","APIStatusError",…],"status":404,"type":…,…}}
"""

import asyncio
import inspect
import json
import sys
from typing import Any

import anthropic

CLIENTS: dict[str, Any] = {}


async def ask(wanted: dict[str, Any]) -> dict[str, Any]:
    options = {name: wanted[name] for name in ("max_retries",) if name in wanted}
    is_async = "async" in wanted["how"]
    identity = json.dumps([is_async, wanted["url"], wanted["key"], options])
    if identity not in CLIENTS:
        kind = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
        CLIENTS[identity] = kind(base_url=wanted["url"], api_key=wanted["key"], **options)
    client = CLIENTS[identity]
    is_beta = "beta" in wanted["how"]
    count_tokens: Any = (client.beta if is_beta else client).messages.count_tokens
    known = inspect.signature(count_tokens).parameters
    arguments = {name: value for name, value in wanted["arguments"].items() if name in known}
    # A field that this release has no parameter for goes where its users put it.
    extra = {name: value for name, value in wanted["arguments"].items() if name not in known}
    if is_beta:
        arguments["betas"] = wanted["betas"]
    try:
        counted = count_tokens(**arguments, extra_body=extra)
        counted = await counted if is_async else counted
    except anthropic.APIStatusError as error:
        return {"error": described(error)}
    return {"answer": counted.to_dict(mode="json"), "request_id": counted._request_id}


def described(error: anthropic.APIStatusError) -> dict[str, Any]:
    body: Any = error.body
    return {
        "classes": [kind.__name__ for kind in type(error).__mro__],
        "status": error.status_code,
        "type": body["error"]["type"],
        "message": body["error"]["message"],
        "request_id": error.response.headers["request-id"],
        "retry_after": error.response.headers.get("retry-after"),
    }


async def main() -> None:
    for line in sys.stdin:
        print(json.dumps(await ask(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
