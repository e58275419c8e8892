"""Who is no provider by its certificate, and handshakes that go wrong. Row U11."""

import ssl
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.certificates import Authority
from tests.e2e.exchange import anthropic, model_list, question
from tests.faults.scripted_provider import End, ScriptedProvider, reply, truly
from tests.faults.upstream_checks import Asker
from tests.server import Tallygate

HOST = "127.0.0.1"
DEADLINE_S = 1.0
TRUSTED = Authority()
DAY = timedelta(days=1)


def context(
    authority: Authority = TRUSTED, host: str = HOST, expires: datetime | None = None
) -> ssl.SSLContext:
    return authority.context(host, expires=expires)


def old_version(made: ssl.SSLContext) -> ssl.SSLContext:
    """Speak TLS 1.0 and nothing newer, which OpenSSL still does where it is told not to mind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made.minimum_version = made.maximum_version = ssl.TLSVersion.TLSv1
    made.set_ciphers("ALL:@SECLEVEL=0")
    return made


UNTRUSTED = {
    "unknown-authority": context(Authority()),
    "wrong-host": context(host="counter.example"),
    "expired": context(expires=datetime.now(UTC) - DAY),
    "tls-1.0": old_version(context()),
}


@pytest.fixture(scope="module")
def providers() -> Iterator[dict[str, ScriptedProvider]]:
    contexts = {"right": context(), **UNTRUSTED, "plain": None}
    with ExitStack() as stack:
        yield {name: stack.enter_context(ScriptedProvider(tls)) for name, tls in contexts.items()}


@pytest.fixture(scope="module")
def asker(
    start: Callable[..., Tallygate],
    providers: dict[str, ScriptedProvider],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Asker]:
    """One worker that trusts one authority; each entry's provider is another case."""
    bundle = tmp_path_factory.mktemp("tls") / "ca.pem"
    bundle.write_bytes(TRUSTED.pem)
    models = {
        name: anthropic(name, f"https://{HOST}:{provider.port}", timeout=DEADLINE_S)
        for name, provider in providers.items()
    }
    config = {"model_list": model_list(**models)}
    with Asker(start(config, environ={"SSL_CERT_FILE": str(bundle)})) as one:
        yield one


def test_u11_a_trusted_provider_is_asked(asker: Asker) -> None:
    asker.answers(question("right"))


@pytest.mark.parametrize("name", UNTRUSTED)
def test_u11_nothing_is_sent_to_a_provider_that_is_not_trusted(
    asker: Asker, providers: dict[str, ScriptedProvider], name: str
) -> None:
    for _ in range(3):
        asker.is_refused(502, "api_error", name)
    assert providers[name].requests == []


def test_u11_the_provider_of_tls_1_0_does_speak_it(
    providers: dict[str, ScriptedProvider], tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(TRUSTED.pem)
    lax = ssl.create_default_context(cafile=bundle)
    lax.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        lax.minimum_version = ssl.TLSVersion.TLSv1
    provider = providers["tls-1.0"]
    answer = httpx.post(provider.url, json=question(), verify=lax)
    provider.requests.clear()
    assert answer.json()["input_tokens"] > 0


def test_u11_a_handshake_that_hangs_ends_at_the_deadline(asker: Asker) -> None:
    """A provider without TLS waits for the end of a head that never comes."""
    response = asker.is_refused(504, "timeout_error", "plain")
    assert response.elapsed.total_seconds() > DEADLINE_S - 0.1


@pytest.mark.parametrize("said", [reply(b'{"input_tokens":12}'), b"\x15\x03\x01\0\x02\x02\x28"])
def test_u11_no_handshake_is_a_bad_gateway(
    asker: Asker, providers: dict[str, ScriptedProvider], said: bytes
) -> None:
    plain = providers["plain"]
    plain.greeting = said, End.FIN
    try:
        asker.is_refused(502, "api_error", "plain")
    finally:
        plain.greeting, plain.script = (), truly
