"""Credentials that cannot be had, or not in time. Row U16.

How long the loop waits meanwhile is measured in tests/unit/test_refresh.py and
tests/unit/test_aws_credentials.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import counted, model_list, question, until
from tests.e2e.stubs import Login
from tests.faults.scripted_provider import End, Script, ScriptedProvider, reply
from tests.faults.upstream_checks import PAIRS, Asker, hanging, hit_rates
from tests.server import Tallygate

LEAST_RATE = 0.8
CANARY = b"canary-of-the-token-endpoint"
SLOW = [f"slow-{turn}" for turn in range(PAIRS)]
AMAZON = "amazon"
GRANTED = b'{"access_token":"token-1","expires_in":%d,"token_type":"Bearer"}'
KEYS = (
    b'{"AccessKeyId":"AKIA1","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}'
)
FAULTS: dict[str, Script] = {
    "refused": (
        reply(
            b'{"error":"invalid_grant","error_description":"%b"}' % CANARY, status="400 Bad Request"
        ),
    ),
    "refused in HTML": (reply(b"<html>" + CANARY, status="403 Forbidden"),),
    "failing": (reply(CANARY, status="500 Internal Server Error"),),
    "garbage": (reply(CANARY),),
    "empty": (reply(b""),),
    "another object": (reply(b'{"canary":"%b"}' % CANARY),),
    "a list": (reply(b'["%b"]' % CANARY),),
    "a token that is none": (reply(b'{"access_token":7,"expires_in":3600}'),),
    "a token with a line end": (reply(b'{"access_token":"a\\r\\nx-evil: 1","expires_in":3600}'),),
    "expired, as if the clock were wrong": (reply(GRANTED % -60),),
    "no life": (reply(b'{"access_token":"token-1","expires_in":"soon"}'),),
    "reset": (End.RESET,),
    "closed": (End.FIN,),
}


@pytest.fixture(scope="module")
def tokens() -> Iterator[ScriptedProvider]:
    """Google's token endpoint, and the one that gives a container its keys."""
    with ScriptedProvider() as running:
        yield running


@pytest.fixture(scope="module")
def asker(
    start: Callable[..., Tallygate], provider: SimulatedProvider, tokens: ScriptedProvider
) -> Iterator[Asker]:
    """One worker; each entry has an account of its own, so that no failure is another's."""
    with Login() as login:
        account = login.service_account() | {"token_uri": f"{tokens.url}/token"}

    def vertex(name: str, timeout_s: float) -> dict[str, object]:
        own = msgspec.json.encode(account | {"private_key_id": name}).decode()
        return {
            "model": "vertex_ai/claude-sonnet-4-6",
            "api_base": provider.url,
            "vertex_credentials": own,
            "timeout": timeout_s,
        }

    models = {name: vertex(name, 20) for name in FAULTS} | {name: vertex(name, 3) for name in SLOW}
    models[AMAZON] = {
        "model": "bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0",
        "aws_bedrock_runtime_endpoint": provider.url,
        "aws_region_name": "us-west-2",
    }
    environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{tokens.url}/credentials"}
    with Asker(start({"model_list": model_list(**models)}, environ=environ)) as one:
        yield one


def fails_without_a_word(asker: Asker, provider: SimulatedProvider, model: str) -> None:
    """It is the operator's fault, of which the caller and the log read our own words only."""
    calls = provider.calls
    response = asker.is_refused(502, "api_error", model)
    assert response.headers["x-should-retry"] == "false"
    assert CANARY.decode() not in response.text
    assert CANARY not in asker.server.err.read_bytes()
    assert provider.calls == calls


@pytest.mark.parametrize("name", FAULTS)
def test_u16_a_token_that_cannot_be_had_is_the_operators_fault(
    asker: Asker, provider: SimulatedProvider, tokens: ScriptedProvider, name: str
) -> None:
    tokens.always(*FAULTS[name])
    fails_without_a_word(asker, provider, name)
    tokens.always(reply(GRANTED % 3600))
    asked = question(name)
    until(lambda: asker.ask(asked).status_code == 200)
    assert counted(asker.ask(asked)) > 0


@pytest.mark.parametrize("answer", [CANARY, KEYS.replace(b'"t"', b'"t\\r\\nx: 1"'), KEYS[:-2]])
def test_u16_keys_that_cannot_be_had_are_the_operators_fault(
    asker: Asker, provider: SimulatedProvider, tokens: ScriptedProvider, answer: bytes
) -> None:
    tokens.always(reply(answer))
    before = len(tokens.requests)
    while len(tokens.requests) == before:  # not asked again at once after a failure
        fails_without_a_word(asker, provider, AMAZON)


def test_u16_keys_are_asked_for_again(asker: Asker, tokens: ScriptedProvider) -> None:
    tokens.always(reply(KEYS))
    asked = question(AMAZON)
    until(lambda: asker.ask(asked).status_code == 200)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_u16_a_token_that_does_not_come_holds_nobody_else_up(
    asker: Asker, tokens: ScriptedProvider
) -> None:
    tokens.always(reply(GRANTED % 3600))
    known = question("closed")
    until(lambda: asker.ask(known).status_code == 200)
    tokens.always(End.SILENCE)
    slow = iter(SLOW)

    @contextmanager
    def hung() -> Iterator[None]:
        with hanging(asker.server, next(slow), 50, (504, "timeout_error")):
            yield

    rate = hit_rates(asker, known, hung)
    print(f"u16: 50 requests wait for a token: hits at {rate:.1%} of the rate without")
    assert rate >= LEAST_RATE
