"""No recorded request and no recorded error lies about unused: each is some test's, by name."""

from pathlib import Path

from tests.contract import (
    test_anthropic,
    test_bedrock,
    test_bedrock_errors,
    test_gemini,
    test_gemini_replies,
    test_vertex_claude,
)

WIRE = Path(__file__).parents[1] / "fixtures" / "wire"

COMPARED = [
    test_anthropic.CAPTURES,
    test_vertex_claude.CAPTURES,
    [one.id for one in test_bedrock.captures("boto3_bedrock_invoke")],
    [one.id for one in test_bedrock.captures("boto3_bedrock_converse")],
    [one.id for one in test_bedrock.captures("aiobotocore_bedrock_invoke")],
    [one.id for one in test_bedrock.captures("anthropic_bedrock_mantle")],
    list(test_gemini.SENT),
]
ANSWERED = [
    test_anthropic.ERRORS,
    test_vertex_claude.ERRORS,
    [one.id for one in test_bedrock_errors.errors()],
    test_gemini_replies.RECORDED,
]
"""What the contract tests compare with, and what they answer as ``client_response`` says."""


def test_every_recorded_request_is_compared_or_left_out_for_a_reason() -> None:
    left_out = test_gemini.NOT_SENT  # each with its reason
    assert all(left_out.values())
    used = sorted(name for names in COMPARED for name in names)
    assert sorted([*used, *left_out]) == stems("captures")


def test_every_recorded_error_is_answered_as_it_says() -> None:
    assert sorted(name for names in ANSWERED for name in names) == stems("errors")


def stems(kind: str) -> list[str]:
    found = sorted(path.stem for path in (WIRE / kind).iterdir())
    assert found
    return found
