"""What a provider's refusal becomes for a caller: whose fault it is, how long to wait."""

import pytest

from adapters.base import UpstreamError
from adapters.registry import ADAPTERS
from app.errors import ProxyError, from_upstream


def heard(error: UpstreamError) -> ProxyError:
    return from_upstream(error, caller_credential=False)


def error(status: int, upstream_status: int = 0, **headers: str) -> UpstreamError:
    given = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return UpstreamError(status, "t", "m", "r", upstream_status, headers=given)


@pytest.mark.parametrize(
    ("status", "upstream_status", "is_outage"),
    [
        (429, 429, True),
        (429, 400, True),
        (500, 500, True),
        (502, 502, True),
        (502, 599, True),
        (504, 504, True),
        (529, 503, True),
        (502, 0, True),
        (504, 0, True),
        (400, 400, False),
        (404, 404, False),
        (502, 400, False),
        (502, 404, False),
        (502, 499, False),
        (504, 408, False),
        (413, 0, False),
    ],
)
def test_only_a_provider_that_fails_is_out(
    status: int, upstream_status: int, *, is_outage: bool
) -> None:
    assert heard(error(status, upstream_status)).is_outage == is_outage


@pytest.mark.parametrize(
    ("name", "code", "body"),
    [
        ("bedrock", "SerializationException", b'{"message":"x"}'),
        ("bedrock", "", b"<html>"),
        ("bedrock_mantle", "", b"{}"),
        ("anthropic", "", b"<html>"),
        ("gemini", "", b'{"error":{"message":"Unknown name \\"x\\": Cannot find field."}}'),
        ("vertex_gemini", "", b"[]"),
        ("vertex_claude", "", b""),
    ],
)
def test_a_400_that_we_answer_for_is_no_outage(name: str, code: str, body: bytes) -> None:
    found = heard(ADAPTERS[name].error(400, {"x-amzn-errortype": code} if code else {}, body))
    assert (found.status, found.type) == (502, "api_error")
    assert not found.is_outage


@pytest.mark.parametrize("wait", ["0", "7", "0.5", "3600", "3600.0"])
def test_a_wait_of_up_to_an_hour_is_passed_on(wait: str) -> None:
    assert heard(error(429, 429, retry_after=wait)).headers == {"retry-after": wait}


ODD = ("-1", "+1", "1e3", " 7", "7 ", "1_0", "nan", "inf", "\u0667", "", ".5", "7.", "0x7")


@pytest.mark.parametrize("wait", [*ODD, "3600.1", "3601", "9" * 400, "Wed, 21 Oct 2026 07:28:00"])
def test_any_other_wait_is_not(wait: str) -> None:
    assert heard(error(429, 429, retry_after=wait)).headers == {}


@pytest.mark.parametrize("wait", [*ODD, "3600000.1", "3600001"])
def test_nor_is_one_in_milliseconds(wait: str) -> None:
    assert heard(error(429, 429, retry_after_ms=wait)).headers == {}


def test_a_wait_in_milliseconds_is_bound_by_the_same_hour() -> None:
    kept = heard(error(429, 429, retry_after="7", retry_after_ms="3600000")).headers
    assert kept == {"retry-after": "7", "retry-after-ms": "3600000"}
    kept = heard(error(429, 429, retry_after="7", retry_after_ms="3600001")).headers
    assert kept == {"retry-after": "7"}
    body = b'{"type":"error","error":{"type":"rate_limit_error","message":"m"}}'
    headers = {"retry-after": "1", "retry-after-ms": "86400000"}
    found = heard(ADAPTERS["anthropic"].error(429, headers, body))
    assert found.headers == {"retry-after": "1"}
