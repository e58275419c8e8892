"""A3: nothing that is made of a configuration or a question shows a secret by its ``repr``."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
import yaml
from msgspec import Struct

from adapters.base import AwsCredential, GoogleCredential
from adapters.credentials import Credentials
from adapters.credentials._aws_chain import Lookup
from adapters.credentials._google_auth import GoogleAuth
from adapters.registry import ADAPTERS
from app.config import Settings, load
from app.question import Question, decode
from app.upstream import UpstreamReply
from tests.faults.canary_config import COUNTING, Secrets
from tests.faults.canary_tour import Prompts
from tests.faults.quoting import QuotingLogin, QuotingProxy


def test_a3_nothing_shows_a_secret_by_its_repr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secrets: Secrets, login: QuotingLogin
) -> None:
    """The settings, every question, signed request, refusal, token and key that is made of them."""
    with QuotingProxy() as way_out:
        environ = secrets.environ(login, way_out)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    redis = {"url": f"redis://:{quote(secrets.redis, safe='')}@h"}
    config = secrets.config("http://h", login, tmp_path, redis)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    settings = load(str(tmp_path / "config.yaml"), environ)
    prompts = Prompts(secrets.canaries)
    body, headers = prompts.compose("anthropic")
    question = decode(headers, msgspec.json.encode(body))
    shown = [*_structs(settings), *_structs(question)]
    for made in asyncio.run(_made(settings, question)):
        shown += _structs(made)
    text = "\n".join(f"{one!r} {one}" for one in shown)
    assert len(shown) > 9 * len(COUNTING)
    assert not secrets.canaries.found(text.encode())
    with pytest.raises(TypeError):
        msgspec.json.encode(settings)
    with pytest.raises(TypeError):
        msgspec.to_builtins(settings)


async def _made(settings: Settings, question: Question) -> list[object]:
    """Make what a worker makes of them: signed requests, tokens, keys, and what is answered."""
    made: list[object] = []
    credentials = Credentials()
    for one in settings.models.deployments:
        credential, adapter = one.endpoint.credential, ADAPTERS[one.provider]
        if one.alias not in COUNTING or credential is None:
            continue
        request = adapter.request(question.request, one.endpoint)
        signed = await credentials.sign(request, credential)
        refusal = msgspec.json.encode({"type": "error", "error": {"type": "x", "message": "x"}})
        quoted = refusal.replace(b'"x"', msgspec.json.encode(str(signed.headers)))
        headers = {name: value for name, value in signed.headers if "date" not in name}
        made += [request, signed, UpstreamReply(400, headers, quoted)]
        made.append(adapter.error(400, headers, quoted))
        if isinstance(credential, GoogleCredential):
            made.append(await asyncio.to_thread(GoogleAuth(credential.source).grant))
        if isinstance(credential, AwsCredential):
            made.append(await asyncio.to_thread(Lookup(credential)))
    await credentials.close()
    return made


def _structs(value: object) -> Iterator[Struct]:
    """Give every type of ours that a value is or holds."""
    if isinstance(value, Struct):
        yield value
        value = msgspec.structs.astuple(value)
    if isinstance(value, tuple):
        for one in value:
            yield from _structs(one)
