"""What an adapter sends is part of every key, through its WIRE_VERSION: other bytes, another one.

``tests/fixtures/golden.json`` holds the digest of what each version sends for every input. When
this fails on purpose, raise the adapter's WIRE_VERSION and add the digest that the failure names
under the new version: counts remembered for other bytes must not answer for these.
"""

import hashlib
from pathlib import Path

import msgspec
import pytest

from adapters.base import Params, Secret
from adapters.registry import ADAPTERS
from app.question import decode

FIXTURES = Path(__file__).parents[1] / "fixtures"
INPUTS = sorted((FIXTURES / "wire" / "inputs").glob("*.json"))
GOLDEN = msgspec.json.decode(
    (FIXTURES / "golden.json").read_bytes(), type=dict[str, dict[int, str]]
)
HEADERS = (
    {"anthropic-version": "2023-06-01"},
    {
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "context-1m-2025-08-07,compact-2026-01-12",
        "anthropic-user-profile-id": "profile",
        "anthropic-workspace-id": "workspace",
    },
)


def digest(name: str) -> str:
    adapter, found = ADAPTERS[name], hashlib.sha256()
    params = Params(
        "claude-sonnet-4-5-20250929",
        api_key=Secret("k"),
        vertex_project="my-project",
        vertex_location="us-east5",
        aws_region_name="us-west-2",
    )
    endpoint = adapter.endpoint(params, {})
    for path in INPUTS:
        for headers in HEADERS:
            sent = adapter.request(decode(headers, path.read_bytes()).request, endpoint)
            whole = (sent.method, sent.url, sent.headers, sent.body, sent.dropped)
            found.update(repr(whole).encode())
    return found.hexdigest()[:16]


def test_every_adapter_is_held_to_it() -> None:
    assert GOLDEN.keys() == ADAPTERS.keys()
    assert len(INPUTS) == 8


@pytest.mark.parametrize("name", ADAPTERS)
def test_other_bytes_need_another_wire_version(name: str) -> None:
    assert digest(name) == GOLDEN.get(name, {}).get(ADAPTERS[name].WIRE_VERSION)
