"""A client that puts canaries into every place of a question, and one that has none to tell."""

import base64
from typing import Any, Self
from uuid import uuid4

import httpx

from tests.e2e.exchange import COUNT, NATIVE, question
from tests.faults.canaries import Canaries
from tests.faults.canary_config import Secrets
from tests.server import Tallygate

END_USERS = ("x-tallygate-end-user", "user", "litellm_metadata", "metadata", "safety_identifier")


class Prompts:
    """What a question holds: its texts may come back to who asked it, and to nobody else."""

    def __init__(self, canaries: Canaries) -> None:
        of, before = canaries.of, canaries.slots()
        self._system = of("system prompt")
        self._text = of("message")
        self._tool = of("name of a tool", after="")
        self._schema = of("schema of a tool")
        self._document = base64.b64encode(f"%PDF-{of('document')}".encode()).decode()
        self._end_users = {place: of(f"end user in {place}") for place in END_USERS}
        self._asked = 0
        self.slots = canaries.slots() - before

    def compose(self, model: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Make a body and headers; the end user is named in another place each time."""
        self._asked += 1
        place = END_USERS[self._asked % len(END_USERS)]
        end_user = self._end_users[place]
        named: dict[str, Any] = {
            "metadata": {"metadata": {"user_id": end_user}},
            "litellm_metadata": {"litellm_metadata": {"user": end_user}},
        }.get(place, {place: end_user})
        headers = named if place.startswith("x-") else {}
        text = {"type": "text", "text": f"{self._text} {uuid4().hex}"}
        source = {"type": "base64", "media_type": "application/pdf", "data": self._document}
        schema = {"type": "object", "properties": {"q": {"description": self._schema}}}
        body = {
            "model": model,
            "system": self._system,
            "messages": [{"role": "user", "content": [text, _document(source)]}],
            "tools": [{"name": self._tool, "description": self._schema, "input_schema": schema}],
            **({} if headers else named),
        }
        return body, headers


def _document(source: dict[str, str]) -> dict[str, Any]:
    return {"type": "document", "source": source}


class Tour:
    """Asks one server, and keeps what was answered by whose it is."""

    def __init__(self, server: Tallygate, secrets: Secrets, prompts: Prompts) -> None:
        self.own: list[httpx.Response] = []
        """Answers to questions that hold canaries: a provider's text may quote those."""
        self.others: list[httpx.Response] = []
        """Answers to all who have asked nothing of the kind, and of refused credentials."""
        self._secrets = secrets
        self._prompts = prompts
        self._client = httpx.Client(base_url=server.url, timeout=30)

    def ask(
        self, model: str, key: str | None = None, *, neutral: bool = False, at_length: bool = False
    ) -> int:
        """Ask a question full of canaries, and return the answer's status.

        ``neutral``: the answer must hold none of them all the same.
        """
        body, headers = self._prompts.compose(model)
        if at_length:
            body["messages"].append({"role": "assistant", "content": "at length"})
        headers = {**headers, "x-api-key": key or self._secrets.master}
        return self._keep(self.others if neutral else self.own, COUNT, body, headers)

    def ask_as_oneself(self, model: str) -> int:
        """Ask on the pass-through with the caller's own credential."""
        body, headers = self._prompts.compose(model)
        keys = {"x-litellm-api-key": self._secrets.team, "x-api-key": self._secrets.own}
        return self._keep(self.own, NATIVE, body, {**headers, **keys})

    def _keep(
        self, kept: list[httpx.Response], path: str, body: dict[str, Any], headers: dict[str, str]
    ) -> int:
        response = self._client.post(path, json=body, headers=headers)
        kept.append(response)
        return response.status_code

    def ask_plainly(self, model: str, times: int = 1) -> int:
        """Ask what holds no canary, as another caller: no answer may hold one either."""
        body, headers = question(model), {"x-api-key": self._secrets.team}
        statuses = [self._keep(self.others, COUNT, body, headers) for _ in range(times)]
        return statuses[-1]

    def look_around(self) -> None:
        """Ask for everything that is no count, and send what is no request."""
        key = {"x-api-key": self._secrets.master}
        for path in (
            "/metrics",
            "/cache/stats",
            "/usage?group_by=key,end_user,model,upstream_model",
            f"/usage?end_user={self._secrets.team}",
            f"/usage?{self._secrets.team}=1",
            "/status",
            "/",
            "/docs",
            "/openapi.json",
            "/v1/models",
            "/health/readiness",
            "/health/liveliness",
            f"/{self._secrets.team}?key={self._secrets.team}",
        ):
            self.others.append(self._client.get(path, headers=key))
        secret = self._secrets.wrong
        for content in (secret, f'{{"model":"{secret}', f'{{"model":["{secret}"]}}'):
            self.send(content.encode())

    def send(self, body: bytes) -> int:
        """Send what is no question."""
        key = {"x-api-key": self._secrets.master}
        response = self._client.post(COUNT, content=body, headers=key)
        self.others.append(response)
        return response.status_code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
