"""AWS keys: where they come from, who waits for them, what is signed with them."""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import parse_qs

import botocore.session
import msgspec
import pytest
from botocore.config import Config

from adapters.base import (
    AwsCredential,
    CredentialsError,
    HeaderCredential,
    Secret,
    UpstreamRequest,
)
from adapters.credentials import Credentials, _aws_chain
from adapters.credentials.aws import AwsSigner
from app.upstream import Upstream
from tests.fake_aws import REPLY_SECRET, SECRET, FakeAws, expected_signature, signature_fields

STATIC = {"access_key_id": Secret("AKIDEXAMPLE"), "secret_access_key": Secret(SECRET)}


@pytest.fixture(scope="module")
def server() -> Iterator[FakeAws]:
    with FakeAws() as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def aws(server: FakeAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeAws:
    """Shut this machine's own AWS settings out."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("BOTO_CONFIG", str(tmp_path / "boto"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
    server.clear()
    return server


@pytest.fixture
def container(aws: FakeAws, monkeypatch: pytest.MonkeyPatch) -> FakeAws:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{aws.url}/container")
    return aws


def aws_credential(**given: Any) -> AwsCredential:
    return AwsCredential(**{"region": "us-east-1", "service": "bedrock"} | given)


def request_to(url: str, body: bytes = b"{}") -> UpstreamRequest:
    headers = (("content-type", "application/json"), ("accept", "application/json"))
    return UpstreamRequest("POST", url, headers, body)


ASKED = request_to("https://bedrock-runtime.us-east-1.amazonaws.com/model/m/count-tokens")


def access_key(signed: UpstreamRequest) -> str:
    authorization = dict(signed.headers)["authorization"]
    return authorization.partition("Credential=")[2].partition("/")[0]


async def keys_used(signer: AwsSigner, credential: AwsCredential) -> tuple[str, str]:
    signed = await signer.sign(ASKED, credential)
    return access_key(signed), dict(signed.headers).get("x-amz-security-token", "")


def keys_of(credential: AwsCredential) -> tuple[str, str]:
    async def once() -> tuple[str, str]:
        signer = AwsSigner()
        try:
            return await keys_used(signer, credential)
        finally:
            await signer.close()

    return asyncio.run(once())


@pytest.mark.parametrize("service", ["bedrock", "bedrock-mantle"])
@pytest.mark.parametrize("size", [2, 400_000])
@pytest.mark.parametrize("token", [None, "FwoGZXIvYXdzE//session+token=="])
def test_a_signature_holds_for_what_arrives(
    aws: FakeAws, service: str, size: int, token: str | None
) -> None:
    credential = aws_credential(
        **STATIC, service=service, session_token=Secret(token) if token else None
    )
    request = UpstreamRequest(
        "POST",
        f"{aws.url}/model/anthropic.claude-sonnet-4-5%3A0%2Fx~y/count-tokens",
        (
            ("content-type", "application/json"),
            ("accept", "application/json"),
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", "a-1,b-2"),
        ),
        b"x" * size,
    )

    async def send() -> None:
        signer, upstream = Credentials(), Upstream({})
        signed = await signer.sign(request, credential)
        assert (await upstream.send(signed, aws.url, 10)).status == 200
        await upstream.close()
        await signer.close()

    asyncio.run(send())
    received = aws.seen[-1]
    fields = signature_fields(received.headers["authorization"])
    assert fields["Signature"] == expected_signature(received)
    assert fields["Credential"].endswith(f"/us-east-1/{service}/aws4_request")
    names = set(fields["SignedHeaders"].split(";"))
    assert {"host", "content-type", "x-amz-date", "anthropic-version"} <= names
    assert received.headers["x-amz-security-token"] == token
    assert len(received.body) == size


def test_the_same_request_is_signed_as_botocores_own_client_signs_it(
    aws: FakeAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = botocore.session.Session()
    session.set_credentials("AKIDEXAMPLE", SECRET, "session-token")
    client = session.create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=aws.url,
        config=Config(retries={"total_max_attempts": 1}),
    )
    body = b'{"anthropic_version":"bedrock-2023-05-31","max_tokens":1,"messages":[]}'
    reply = client.count_tokens(
        modelId="anthropic.claude-sonnet-4-5-20250929-v1:0", input={"invokeModel": {"body": body}}
    )
    assert reply["inputTokens"] == 14
    theirs = aws.seen[-1]
    authorization = theirs.headers["authorization"]
    assert signature_fields(authorization)["Signature"] == expected_signature(theirs)

    signed_at = datetime.strptime(theirs.headers["x-amz-date"], "%Y%m%dT%H%M%SZ")  # noqa: DTZ007
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: signed_at)
    headers = (("content-type", theirs.headers["content-type"]),)
    request = UpstreamRequest("POST", aws.url + theirs.path, headers, theirs.body)
    credential = aws_credential(**STATIC, session_token=Secret("session-token"))
    ours = asyncio.run(Credentials().sign(request, credential))
    assert dict(ours.headers)["authorization"] == authorization


def test_keys_of_the_configuration_sign_without_looking_anywhere(container: FakeAws) -> None:
    assert keys_of(aws_credential(**STATIC)) == ("AKIDEXAMPLE", "")
    assert container.seen == []


def test_keys_come_from_the_environment(aws: FakeAws, monkeypatch: pytest.MonkeyPatch) -> None:
    del aws
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "env-token")
    assert keys_of(aws_credential()) == ("AKIDENV", "env-token")


def test_keys_come_from_a_profile(aws: FakeAws, tmp_path: Path) -> None:
    del aws
    (tmp_path / "credentials").write_text(
        f"[team]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = {SECRET}\n"
    )
    assert keys_of(aws_credential(profile="team")) == ("AKIDPROFILE", "")


def test_keys_come_from_a_process(aws: FakeAws, tmp_path: Path) -> None:
    del aws
    script = tmp_path / "keys.py"
    keys = {"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": SECRET}
    script.write_text(f"print({msgspec.json.encode(keys).decode()!r})")
    (tmp_path / "config").write_text(
        f"[profile team]\ncredential_process = {sys.executable} {script}\n"
    )
    assert keys_of(aws_credential(profile="team")) == ("AKIDPROCESS", "")


def test_a_role_is_assumed_with_the_configured_keys(aws: FakeAws) -> None:
    role = aws_credential(
        **STATIC, role="arn:aws:iam::123456789012:role/counter", external_id="ext-1"
    )
    assert keys_of(role) == ("ASIA1", "session-of-AssumeRole")
    asked = parse_qs(aws.seen[0].body.decode())
    assert asked["RoleArn"] == ["arn:aws:iam::123456789012:role/counter"]
    assert asked["RoleSessionName"] == ["tallygate"]
    assert asked["ExternalId"] == ["ext-1"]
    assert "Credential=AKIDEXAMPLE/" in aws.seen[0].headers["authorization"]


def test_a_role_is_assumed_in_each_region_for_itself(aws: FakeAws) -> None:
    async def both() -> None:
        signer = AwsSigner()
        for region in ("us-east-1", "eu-west-1", "us-east-1"):
            role = "arn:aws:iam::123456789012:role/count"
            await signer.sign(ASKED, aws_credential(**STATIC, role=role, region=region))
        await signer.close()

    asyncio.run(both())
    scopes = [signature_fields(one.headers["authorization"])["Credential"] for one in aws.seen]
    assert [scope.split("/")[2] for scope in scopes] == ["us-east-1", "eu-west-1"]


def test_a_look_up_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: AwsCredential) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(_aws_chain, "LOOKUP_S", 0.05)
    monkeypatch.setattr(_aws_chain, "_source", never)
    began = time.monotonic()
    with pytest.raises(CredentialsError, match="AWS gave no keys within 0 s"):
        _aws_chain.Lookup(aws_credential())()
    assert time.monotonic() - began < 5


def test_a_web_identity_is_exchanged_and_its_file_read_anew(aws: FakeAws, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("jwt-1\n")
    role = aws_credential(
        role="arn:aws:iam::123456789012:role/counter",
        session_name="mine",
        web_identity_token=Secret(str(file)),
    )
    assert keys_of(role) == ("ASIA1", "session-of-AssumeRoleWithWebIdentity")
    file.write_text("jwt-2\n")
    keys_of(role)
    sent = [parse_qs(handler.body.decode()) for handler in aws.seen]
    assert [one["WebIdentityToken"] for one in sent] == [["jwt-1"], ["jwt-2"]]
    assert sent[0]["RoleSessionName"] == ["mine"]
    assert aws.seen[0].headers["authorization"] is None


def test_keys_come_from_a_container(container: FakeAws) -> None:
    assert keys_of(aws_credential()) == ("ASIA1", "token-1")
    assert container.paths() == ["/container"]


def test_keys_come_from_an_instance(aws: FakeAws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.url)
    assert keys_of(aws_credential()) == ("ASIA3", "token-3")
    assert aws.paths()[0] == "/latest/api/token"


def test_one_look_up_serves_all_requests_services_and_regions(container: FakeAws) -> None:
    container.delay_s = 0.1

    async def many() -> set[tuple[str, str]]:
        signer = AwsSigner()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(keys_used(signer, aws_credential(service=service, region=region)))
                for service in ("bedrock", "bedrock-mantle")
                for region in ("us-east-1", "eu-west-1")
                for _ in range(25)
            ]
        found = {task.result() for task in tasks} | {await keys_used(signer, aws_credential())}
        await signer.close()
        return found

    assert asyncio.run(many()) == {("ASIA1", "token-1")}
    assert len(container.seen) == 1


def test_a_waiter_that_leaves_harms_no_other(container: FakeAws) -> None:
    container.delay_s = 0.2

    async def leave() -> tuple[str, str]:
        signer = AwsSigner()
        first = asyncio.create_task(keys_used(signer, aws_credential()))
        second = asyncio.create_task(keys_used(signer, aws_credential()))
        await asyncio.sleep(0.05)
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        found = await second
        await signer.close()
        return found

    assert asyncio.run(leave()) == ("ASIA1", "token-1")
    assert len(container.seen) == 1


class Clock:
    """The wall clock, some seconds ahead."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return datetime.now(UTC).timestamp() + self.ahead_s


def test_old_keys_sign_while_new_ones_are_fetched(container: FakeAws) -> None:
    container.life_s = 400.0  # short enough for botocore, whose clock is not ours, to fetch anew
    clock = Clock()

    async def refresh() -> None:
        signer = AwsSigner(clock)
        old = await keys_used(signer, aws_credential())
        asked = len(container.seen)
        clock.ahead_s = 150.0
        assert await keys_used(signer, aws_credential()) == old
        await asyncio.sleep(0.05)
        assert len(container.seen) == asked, "less than half of the life is over"
        clock.ahead_s = 250.0
        container.delay_s = 0.2
        found = old
        served_old = 0
        while found == old and served_old < 500:
            found = await keys_used(signer, aws_credential())
            served_old += found == old
            await asyncio.sleep(0.01)
        assert found != old
        assert served_old > 1
        assert len(container.seen) == asked + 1
        await signer.close()

    asyncio.run(refresh())


def signer_is_busy(signer: AwsSigner) -> bool:
    return any(chain.keys._flight is not None for chain in signer._chains.values())


def test_a_failed_refresh_keeps_the_keys_until_they_expire(container: FakeAws) -> None:
    container.life_s = 400.0
    clock = Clock()

    async def fail() -> None:
        signer = AwsSigner(clock)
        old = await keys_used(signer, aws_credential())
        asked = len(container.seen)
        container.fails = True
        clock.ahead_s = 250.0
        while len(container.seen) == asked or signer_is_busy(signer):
            assert await keys_used(signer, aws_credential()) == old
            await asyncio.sleep(0.01)
        clock.ahead_s = 450.0
        with pytest.raises(CredentialsError):
            await keys_used(signer, aws_credential())
        asked = len(container.seen)
        with pytest.raises(CredentialsError):
            await keys_used(signer, aws_credential())
        assert len(container.seen) == asked, "the next attempt is 5 s away"
        container.fails = False
        container.life_s = 3600.0
        clock.ahead_s += 6.0
        assert await keys_used(signer, aws_credential()) != old
        await signer.close()

    asyncio.run(fail())


def test_expired_keys_are_forgotten_once_for_all_who_were_refused(container: FakeAws) -> None:
    clock = Clock()

    async def renew() -> None:
        signer = AwsSigner(clock)
        assert await keys_used(signer, aws_credential()) == ("ASIA1", "token-1")
        clock.ahead_s = 60.0
        for _ in range(3):
            assert signer.renew(aws_credential())
            assert await keys_used(signer, aws_credential()) == ("ASIA2", "token-2")
        await signer.close()

    asyncio.run(renew())
    assert len(container.seen) == 2


def test_fixed_keys_cannot_be_renewed() -> None:
    signer = Credentials()
    assert not signer.renew(aws_credential(**STATIC))
    assert not signer.renew(HeaderCredential("authorization", "Bearer ", Secret("k")))
    asyncio.run(signer.close())


def test_a_refresh_does_not_hold_the_event_loop(container: FakeAws, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile other]\nregion = eu-west-1\n")
    container.delay_s = 0.3

    async def lags_ms() -> list[float]:
        signer = AwsSigner()
        # The first look-up also imports the chain; the loop's lag is judged over another.
        await keys_used(signer, aws_credential())
        flight = asyncio.create_task(keys_used(signer, aws_credential(profile="other")))
        found: list[float] = []
        while not flight.done():
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            found.append((time.perf_counter() - before) * 1000 - 1)
        await flight
        await signer.close()
        return found

    lags = asyncio.run(lags_ms())
    assert len(lags) > 30, "the loop stood still"
    assert median(lags) < 5


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "no AWS keys in the configuration"),
        ({"profile": "nobody"}, "stands in none of AWS's files"),
        ({**STATIC, "role": "arn:aws:iam::123456789012:role/x"}, "AWS refused AssumeRole"),
        (
            {"role": "arn:aws:iam::1:role/x", "web_identity_token": Secret("/no/such/file")},
            "No such file",
        ),
    ],
)
def test_what_is_missing_is_said_in_our_own_words(
    aws: FakeAws, given: dict[str, Any], reason: str
) -> None:
    aws.fails = True
    with pytest.raises(CredentialsError, match=reason) as caught:
        keys_of(aws_credential(**given))
    assert caught.value.__cause__ is None


def test_no_secret_shows_itself_at_any_level(
    container: FakeAws, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    found = keys_of(aws_credential())
    static = aws_credential(**STATIC, session_token=Secret("session-token"))
    keys_of(static)
    container.fails = True
    with pytest.raises(CredentialsError) as caught:
        keys_of(aws_credential())
    shown = caplog.text + repr(static) + repr(caught.value) + str(caught.value)
    assert "trying again" in shown
    for secret in (SECRET, "session-token", found[1], REPLY_SECRET):
        assert secret not in shown


def test_a_key_of_bedrock_goes_as_bearer() -> None:
    signed = asyncio.run(
        Credentials().sign(ASKED, HeaderCredential("authorization", "Bearer ", Secret("abc")))
    )
    assert signed.headers == (*ASKED.headers, ("authorization", "Bearer abc"))
