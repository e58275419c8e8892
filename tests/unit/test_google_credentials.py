"""Google's tokens: the real google-auth against token endpoints on loopback."""

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from adapters.base import CredentialsError, GoogleCredential, Secret, UpstreamRequest
from adapters.credentials import Credentials
from adapters.credentials.google import GoogleTokens
from tests.certificates import Authority
from tests.token_endpoint import PROVIDER_TEXT, ConnectProxy, TokenEndpoint

HOST = "https://aiplatform.googleapis.com"
REQUEST = UpstreamRequest("POST", f"{HOST}/v1/projects/p1/locations/global", (), b"{}")
NO_PROJECT = UpstreamRequest("POST", f"{HOST}/v1/projects/-/locations/global", (), b"{}")
CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"


class Clock:
    """The real time, which google-auth goes by, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "GOOGLE_CLOUD_QUOTA_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    with TokenEndpoint() as running:
        yield running


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenEndpoint]:
    """Google's own hosts, reached through HTTPS_PROXY and trusted through an own CA."""
    authority = Authority()
    tls = authority.context("oauth2.googleapis.com", "iamcredentials.googleapis.com")
    (tmp_path / "authority.pem").write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with TokenEndpoint(tls) as running, ConnectProxy(running.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        yield running


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@pytest.fixture
def account(private_key: str, endpoint: TokenEndpoint) -> dict[str, Any]:
    return {
        "type": "service_account",
        "project_id": "project-of-the-account",
        "private_key_id": "1",
        "private_key": private_key,
        "client_email": "counter@project-of-the-account.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": endpoint.url,
    }


USER = {
    "type": "authorized_user",
    "client_id": "client",
    "client_secret": "client-secret",
    "refresh_token": "refresh-me",
    "quota_project_id": "paying-project",
}


def inline(info: dict[str, Any]) -> GoogleCredential:
    return GoogleCredential(Secret(msgspec.json.encode(info).decode()))


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


@asynccontextmanager
async def opened(clock: Clock | None = None) -> AsyncIterator[GoogleTokens]:
    tokens = GoogleTokens(clock or Clock())
    try:
        yield tokens
    finally:
        await tokens.close()


async def bearer(tokens: GoogleTokens, credential: GoogleCredential) -> str:
    return dict((await tokens.sign(REQUEST, credential)).headers)["authorization"]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 -- what happens happens in a thread
        await asyncio.sleep(0.005)


def test_fifty_requests_at_once_share_one_refresh(
    account: dict[str, Any], endpoint: TokenEndpoint
) -> None:
    endpoint.delay_s = 0.1
    request = UpstreamRequest("POST", REQUEST.url, (("accept", "*/*"),), b"{}")

    async def scenario() -> None:
        credentials = Credentials()
        async with asyncio.TaskGroup() as group:
            # Each deployment holds a credential of its own with the same text.
            signed = [
                group.create_task(credentials.sign(request, inline(account))) for _ in range(50)
            ]
        await credentials.close()
        expected = (("accept", "*/*"), ("authorization", "Bearer token-1"))
        assert [one.result().headers for one in signed] == [expected] * 50
        assert {(one.result().url, one.result().body) for one in signed} == {(REQUEST.url, b"{}")}

    run(scenario)
    assert len(endpoint.asked) == 1


def test_a_service_account_asks_for_the_platform_scope(
    account: dict[str, Any], endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    path = tmp_path / "account.json"
    path.write_bytes(msgspec.json.encode(account))

    async def scenario() -> None:
        async with opened() as tokens:
            assert await bearer(tokens, GoogleCredential(Secret(str(path)))) == "Bearer token-1"

    run(scenario)
    claims = endpoint.asked[0][1]["assertion"].split(".")[1]
    said = msgspec.json.decode(base64.urlsafe_b64decode(claims + "=="))
    assert said["iss"] == account["client_email"]
    assert said["scope"] == CLOUD_PLATFORM


def test_without_a_source_the_default_credentials_sign(
    account: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "account.json"
    path.write_bytes(msgspec.json.encode(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))

    async def scenario() -> None:
        async with opened() as tokens:
            assert await bearer(tokens, GoogleCredential()) == "Bearer token-1"

    run(scenario)


def test_a_user_signs_and_names_who_pays_through_the_proxy_and_the_own_authority(
    google: TokenEndpoint,
) -> None:
    async def scenario() -> None:
        async with opened() as tokens:
            signed = await tokens.sign(NO_PROJECT, inline(USER))
            assert dict(signed.headers) == {
                "authorization": "Bearer token-1",
                "x-goog-user-project": "paying-project",
            }
            assert "/projects/paying-project/" in signed.url

    run(scenario)
    assert google.asked[0][1]["refresh_token"] == "refresh-me"


def test_an_unknown_authority_is_never_trusted(
    google: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")

    async def scenario() -> None:
        async with opened() as tokens:
            with pytest.raises(CredentialsError, match="could not be reached"):
                await bearer(tokens, inline(USER))

    run(scenario)
    assert google.asked == []


def test_a_user_may_stand_in_for_a_service_account(google: TokenEndpoint) -> None:
    target = "counter@p1.iam.gserviceaccount.com"
    impersonated = {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects"
        f"/-/serviceAccounts/{target}:generateAccessToken",
        "source_credentials": USER,
    }

    async def scenario() -> None:
        async with opened() as tokens:
            assert await bearer(tokens, inline(impersonated)) == "Bearer token-2"

    run(scenario)
    path, said = google.asked[1]
    assert target in path
    assert CLOUD_PLATFORM in said["json"]


def test_a_workload_exchanges_its_own_token_anew_for_each_refresh(
    endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    subject = tmp_path / "subject"
    workload = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": endpoint.url,
        "credential_source": {"file": str(subject)},
    }
    clock = Clock()

    async def scenario() -> None:
        async with opened(clock) as tokens:
            subject.write_text("subject-1")
            assert await bearer(tokens, inline(workload)) == "Bearer token-1"
            subject.write_text("subject-2")
            clock.ahead_s, endpoint.lifetime_s = 4000, 8000
            assert await bearer(tokens, inline(workload)) == "Bearer token-2"
            with pytest.raises(CredentialsError, match="set vertex_project"):
                await tokens.sign(NO_PROJECT, inline(workload))

    run(scenario)
    assert [form["subject_token"] for _, form in endpoint.asked] == ["subject-1", "subject-2"]


def test_the_project_of_the_credential_fills_the_address(account: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with opened() as tokens:
            signed = await tokens.sign(NO_PROJECT, inline(account))
            assert signed.url == NO_PROJECT.url.replace("-", "project-of-the-account", 1)
            assert (await tokens.sign(REQUEST, inline(account))).url == REQUEST.url

    run(scenario)


def test_a_token_is_refreshed_ahead_of_its_end_while_the_old_one_serves(
    account: dict[str, Any], endpoint: TokenEndpoint
) -> None:
    clock = Clock()

    async def scenario() -> None:
        async with opened(clock) as tokens:
            assert await bearer(tokens, inline(account)) == "Bearer token-1"
            clock.ahead_s = 3600 - 240
            assert await bearer(tokens, inline(account)) == "Bearer token-1"
            assert len(endpoint.asked) == 1
            clock.ahead_s, endpoint.lifetime_s = 3600 - 200, 7200
            endpoint.gate.clear()
            for _ in range(20):
                assert await bearer(tokens, inline(account)) == "Bearer token-1"
            await until(lambda: len(endpoint.asked) == 2)
            endpoint.gate.set()
            await until(lambda: endpoint.granted == 2)
            while await bearer(tokens, inline(account)) != "Bearer token-2":  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            assert len(endpoint.asked) == 2

    run(scenario)


def test_a_short_life_is_renewed_at_half_of_it(
    account: dict[str, Any], endpoint: TokenEndpoint
) -> None:
    clock = Clock()
    endpoint.lifetime_s = 100

    async def scenario() -> None:
        async with opened(clock) as tokens:
            for ahead_s, asked in ((0.0, 1), (40.0, 1), (60.0, 2)):
                clock.ahead_s = ahead_s
                assert await bearer(tokens, inline(account)) == "Bearer token-1"
                await until(lambda: len(endpoint.asked) >= asked)  # noqa: B023
                await asyncio.sleep(0.05)
                assert len(endpoint.asked) == asked

    run(scenario)


def test_a_token_that_arrives_expired_is_never_sent(
    account: dict[str, Any], endpoint: TokenEndpoint
) -> None:
    endpoint.lifetime_s = -60

    async def scenario() -> None:
        async with opened() as tokens:
            for _ in range(3):
                with pytest.raises(CredentialsError, match="clock"):
                    await bearer(tokens, inline(account))

    run(scenario)
    assert len(endpoint.asked) == 1


def test_an_old_token_serves_while_refreshing_fails_until_it_truly_ends(
    account: dict[str, Any], endpoint: TokenEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    caplog.set_level(logging.DEBUG)

    def failures_logged() -> int:
        return sum(record.name.startswith("tallygate") for record in caplog.records)

    async def scenario() -> None:
        async with opened(clock) as tokens:
            await bearer(tokens, inline(account))
            endpoint.refuses = True
            # One second after the first failure, then two: nobody tries again before.
            times = ((3400, 1), (3400.5, 1), (3401.5, 2), (3402.8, 2), (3595, 3))
            for ahead_s, failures in times:
                clock.ahead_s = ahead_s
                for _ in range(5):
                    assert await bearer(tokens, inline(account)) == "Bearer token-1"
                    await asyncio.sleep(0.01)
                await until(lambda: failures_logged() == failures)  # noqa: B023
            clock.ahead_s = 3605
            for _ in range(3):
                with pytest.raises(CredentialsError) as raised:
                    await bearer(tokens, inline(account))
                assert (
                    raised.value.reason == "Google gave no token for the credential: invalid_grant"
                )
            assert len(endpoint.asked) == 5
            endpoint.refuses, endpoint.lifetime_s, clock.ahead_s = False, 9000, 3700
            assert await bearer(tokens, inline(account)) == "Bearer token-2"

    run(scenario)
    assert PROVIDER_TEXT not in caplog.text
    assert "PRIVATE KEY" not in caplog.text
    assert "token-1" not in caplog.text


def test_who_needs_a_token_gets_a_reason_without_secrets(
    account: dict[str, Any], endpoint: TokenEndpoint
) -> None:
    endpoint.refuses = True
    wrong = {
        "/does/not/exist-key-material": "vertex_credentials: no JSON, and no readable file",
        '{"type": "service_account", ': "vertex_credentials: not a JSON object",
        '{"type": "unheard-of-material"}': "no usable Google credential: vertex_credentials or "
        "application default credentials",
        msgspec.json.encode(account).decode(): "Google gave no token for the credential: "
        "invalid_grant",
    }

    async def scenario() -> None:
        async with opened() as tokens:
            for source, reason in wrong.items():
                with pytest.raises(CredentialsError) as raised:
                    await bearer(tokens, GoogleCredential(Secret(source)))
                assert raised.value.reason == str(raised.value) == reason
                assert raised.value.__cause__ is None

    run(scenario)


def test_what_holds_a_token_does_not_show_it(account: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with opened() as tokens:
            await bearer(tokens, inline(account))
            shown = repr(vars(tokens)) + "".join(repr(vars(one)) for one in tokens._tokens.values())
            assert "token-1" not in shown.replace(repr(tuple(tokens._tokens)), "")

    run(scenario)


def test_a_refused_token_is_renewed_once_for_all(
    account: dict[str, Any], endpoint: TokenEndpoint
) -> None:
    clock = Clock()

    async def scenario() -> None:
        async with opened(clock) as tokens:
            credential = inline(account)
            assert await bearer(tokens, credential) == "Bearer token-1"
            clock.ahead_s = 60
            for _ in range(5):
                assert tokens.renew(credential)
                assert await bearer(tokens, credential) == "Bearer token-2"

    run(scenario)
    assert len(endpoint.asked) == 2


def test_a_replaced_file_is_read_after_a_failure(
    account: dict[str, Any], endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    path = tmp_path / "account.json"
    path.write_bytes(msgspec.json.encode({**account, "client_email": "old@p1"}))
    clock = Clock()
    credential = GoogleCredential(Secret(str(path)))

    async def scenario() -> None:
        async with opened(clock) as tokens:
            endpoint.refuses = True
            with pytest.raises(CredentialsError):
                await bearer(tokens, credential)
            endpoint.refuses = False
            path.write_bytes(msgspec.json.encode({**account, "client_email": "new@p1"}))
            clock.ahead_s = 5
            assert await bearer(tokens, credential) == "Bearer token-1"

    run(scenario)
    issuers = [form["assertion"].split(".")[1] for _, form in endpoint.asked]
    said = [msgspec.json.decode(base64.urlsafe_b64decode(one + "=="))["iss"] for one in issuers]
    assert said == ["old@p1", "new@p1"]


def test_a_waiter_that_leaves_harms_no_other(
    account: dict[str, Any], endpoint: TokenEndpoint
) -> None:
    endpoint.gate.clear()

    async def scenario() -> None:
        async with opened() as tokens:
            waiters = [asyncio.create_task(bearer(tokens, inline(account))) for _ in range(3)]
            await until(lambda: len(endpoint.asked) == 1)
            waiters[0].cancel()
            await asyncio.wait(waiters[:1])
            endpoint.gate.set()
            assert [await one for one in waiters[1:]] == ["Bearer token-1"] * 2
            assert waiters[0].cancelled()

    run(scenario)
    assert len(endpoint.asked) == 1


def test_closing_waits_for_no_endpoint(account: dict[str, Any], endpoint: TokenEndpoint) -> None:
    endpoint.gate.clear()

    async def scenario() -> None:
        tokens = GoogleTokens()
        waiter = asyncio.create_task(bearer(tokens, inline(account)))
        await until(lambda: len(endpoint.asked) == 1)
        await tokens.close()
        with pytest.raises(CredentialsError):
            await waiter
        assert not endpoint.gate.is_set()
        endpoint.gate.set()

    run(scenario)


def test_the_loop_turns_while_a_token_is_refreshed(
    account: dict[str, Any], endpoint: TokenEndpoint
) -> None:
    clock = Clock()
    endpoint.lifetime_s = 1_000_000

    async def longest_stall_s(tokens: GoogleTokens) -> float:
        clock.ahead_s += endpoint.lifetime_s
        endpoint.lifetime_s *= 2
        granted = endpoint.granted
        stall_s = 0.0
        asking = asyncio.create_task(bearer(tokens, inline(account)))
        while not asking.done():
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            stall_s = max(stall_s, time.perf_counter() - before - 0.001)
        assert await asking == f"Bearer token-{granted + 1}"
        return stall_s

    async def scenario() -> None:
        async with opened(clock) as tokens:
            await bearer(tokens, inline(account))
            endpoint.delay_s = 0.3
            stalls = [await longest_stall_s(tokens) for _ in range(7)]
        # A busy machine only adds to a stall, and one of our own would be in every round: all of
        # the delay, were the token fetched on the loop.
        assert min(stalls) < endpoint.delay_s / 20, stalls

    run(scenario)
