"""What was left out is told in the words of docs/providers.md, the same of every provider."""

import re
from pathlib import Path
from typing import Any

import pytest

from adapters._betas import ANYWHERE, AT_BEDROCK, FIELDS_AT_BEDROCK
from adapters._betas import FIELDS as BETA_FIELDS
from adapters._gemini_blocks import DROPPED, FIELDS
from adapters._gemini_tools import TOOL, TOOL_CHOICE
from adapters._gemini_wire import MESSAGE, REQUEST
from adapters.base import CountRequest, Params, Secret
from adapters.registry import ADAPTERS

DOCS = Path(__file__).parents[2] / "docs"
MODELS = {
    "anthropic": "claude-x",
    "bedrock": "anthropic.claude-x",
    "bedrock_mantle": "anthropic.claude-x",
    "gemini": "gemini-x",
    "vertex_claude": "claude-x@20250929",
    "vertex_gemini": "gemini-x",
}
# Everything that a client can send beside a body, and a body that every provider takes.
COUNT = CountRequest(
    b'{"cache_control":{},"messages":[{"content":"a","role":"user"}],"thinking":{},'
    b'"tool_choice":{"type":"any"},"tools":[{"name":"f","input_schema":{}}]}',
    "2026-10-21",
    ("a-1", "token-counting-2024-11-01"),
    (("anthropic-user-profile-id", "prof_1"), ("anthropic-workspace-id", "ws_1")),
)
HEADERS = {"anthropic-user-profile-id", "anthropic-workspace-id"}
BETAS = {"anthropic-beta:a-1", "anthropic-beta:token-counting-2024-11-01"}
BODY = {"cache_control", "thinking"}


def documented() -> set[str]:
    """Read the first column of the table."""
    text = (DOCS / "providers.md").read_text().partition("## `x-tallygate-dropped`")[2]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


def dropped(name: str) -> list[str]:
    params: dict[str, Any] = {"vertex_project": "p1", "count_without_date": True}
    if name in {"anthropic", "gemini"}:
        params["api_key"] = Secret("k")
    endpoint = ADAPTERS[name].endpoint(Params(model=MODELS[name], **params), {})
    return list(ADAPTERS[name].request(COUNT, endpoint).dropped)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("anthropic", set()),
        ("bedrock", HEADERS | BETAS | {"anthropic-version"}),
        ("bedrock_mantle", set()),
        ("gemini", HEADERS | BETAS | BODY),
        ("vertex_claude", HEADERS | BETAS | {"model_date"}),
        ("vertex_gemini", HEADERS | BETAS | BODY | {"tool_choice"}),
    ],
)
def test_every_provider_names_what_it_leaves_out(name: str, words: set[str]) -> None:
    assert sorted(dropped(name)) == sorted(words)


def test_the_documentation_explains_every_word_and_no_other() -> None:
    fields = (REQUEST, MESSAGE, TOOL, TOOL_CHOICE, *FIELDS.values())
    words = set(DROPPED).union(*(one.dropped for one in fields))
    words |= {"$schema", "system_position"}
    for name in MODELS:
        words |= {
            re.sub(r"^anthropic-beta:.*", "anthropic-beta:NAME", one) for one in dropped(name)
        }
    assert documented() == words


def test_the_documentation_lists_every_beta_that_vertex_is_sent() -> None:
    text = (DOCS / "providers" / "vertex-claude.md").read_text().partition("| Beta | Beside |")[2]
    named = set(re.findall(r"`([a-z0-9-]+-20\d\d-\d\d-\d\d)`", text))
    assert named == ANYWHERE.keys() | BETA_FIELDS.keys()


def test_the_documentation_lists_every_beta_that_bedrock_is_sent_besides() -> None:
    text = (DOCS / "providers" / "bedrock.md").read_text().partition("| Beta | Sent |")[2]
    named = set(re.findall(r"`([a-z0-9-]+-20\d\d-?\d\d-?\d\d)`", text.partition("\n\n")[0]))
    assert named == AT_BEDROCK | (FIELDS_AT_BEDROCK.keys() - BETA_FIELDS.keys())
