"""Names → deployments: exact, group alias, wildcard, bare ids, and the pass-through."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.auth import ANONYMOUS, Caller
from app.config import load
from app.keys import Keys
from app.question import decode
from app.routing import Router
from cache.generations import Generations

CONFIG = """\
model_list:
  - {model_name: claude, litellm_params: {model: anthropic/claude-one, api_key: a}}
  - {model_name: claude, litellm_params: {model: anthropic/claude-two, api_key: b}}
  - {model_name: "anthropic/*", litellm_params: {model: "anthropic/*", api_key: c}}
  - {model_name: "team-*", litellm_params: {model: "anthropic/claude-*-x", api_key: d}}
  - {model_name: "team-fixed-*", litellm_params: {model: anthropic/claude-fixed, api_key: e}}
  - {model_name: guess, litellm_params: {model: estimate/claude}}
router_settings:
  model_group_alias:
    other-name: claude
    hidden: {model: guess, hidden: true}
"""


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Router:
    path = tmp_path_factory.mktemp("routing") / "config.yaml"
    path.write_text(CONFIG)
    return Router(load(str(path), {}).models)


@pytest.mark.parametrize(
    ("model", "alias", "upstream"),
    [
        ("claude", "claude", ["claude-one", "claude-two"]),
        ("other-name", "other-name", ["claude-one", "claude-two"]),
        ("hidden", "hidden", ["claude"]),
        ("anthropic/claude-new", "anthropic/*", ["claude-new"]),
        ("claude-opus-4-1-20250805", "anthropic/*", ["claude-opus-4-1-20250805"]),
        ("team-a", "team-*", ["claude-a-x"]),
        ("team-fixed-b", "team-fixed-*", ["claude-fixed"]),
    ],
)
def test_a_name_leads_to_its_deployments_in_order(
    router: Router, model: str, alias: str, upstream: list[str]
) -> None:
    route = router.resolve(model)
    assert route is not None
    assert route.alias == alias
    assert [one.endpoint.upstream_model for pool in route.pools for one in pool.members] == upstream


@pytest.mark.parametrize(
    "model", ["nobody", "Claude", "gpt-4", "team-", "anthropic/", "anthropic/a b", "anthropic/a\n"]
)
def test_an_unknown_name_leads_nowhere(router: Router, model: str) -> None:
    assert router.resolve(model) is None


ONE, BEDROCK = "anthropic/claude-one", "bedrock/anthropic.claude-one"
CLAUDE, GEMINI = "vertex_ai/claude-one@20250101", "vertex_ai/gemini-x"
ANYWHERE = {"vertex_location": "global", "vertex_project": "p"}
VARIED: tuple[dict[str, Any], ...] = (
    {"model": ONE, "api_key": "a"},
    {"model": ONE, "api_key": "b", "weight": 3, "rpm": 5},
    {"model": ONE, "api_key": "a", "api_base": "http://x"},
    {"model": "anthropic/claude-two", "api_key": "a"},
    {"model": "gemini/claude-one", "api_key": "a"},
    {"model": "gemini/claude-one", "api_key": "b"},
    {"model": BEDROCK, "aws_region_name": "us-east-1"},
    {"model": BEDROCK, "aws_region_name": "us-west-2"},
    {"model": BEDROCK, "aws_region_name": "us-east-1", "count_from_too_long": True},
    {"model": CLAUDE, **ANYWHERE},
    {"model": CLAUDE, **ANYWHERE, "count_without_date": True},
    {"model": GEMINI, **ANYWHERE},
    {"model": GEMINI, **ANYWHERE, "vertex_project": "q"},
)


def test_a_pool_shares_its_key_and_different_counters_share_none(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    entries = [{"model_name": "m", "litellm_params": params} for params in VARIED]
    path.write_text(yaml.safe_dump({"model_list": entries}))
    settings = load(str(path), {})
    route = Router(settings.models).resolve("m")
    assert route is not None
    question = decode({}, b'{"model":"m","messages":[{"role":"user","content":"x"}]}')
    keys = Keys(b"secret", settings.cache, Generations(lambda: 0.0))
    found = [
        {keys.place(question, ANONYMOUS, one).key for one in pool.members} for pool in route.pools
    ]
    assert max(len(pool.members) for pool in route.pools) > 1
    assert all(len(one) == 1 for one in found)
    assert len(set.union(*found)) == len(route.pools)


def test_a_native_id_is_asked_of_those_who_serve_it(router: Router) -> None:
    route = router.resolve_native("claude-two")
    assert route is not None
    assert [one.name for pool in route.pools for one in pool.members] == ["claude[1]"]


def test_entries_of_other_names_are_no_pool(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    named = {"a": ("k1", "k2"), "b": ("k3",)}
    entries = [
        {"model_name": name, "litellm_params": {"model": ONE, "api_key": key}}
        for name, keys in named.items()
        for key in keys
    ]
    path.write_text(yaml.safe_dump({"model_list": entries}))
    route = Router(load(str(path), {}).models).resolve_native("claude-one")
    assert route is not None
    found = [[one.name for one in pool.members] for pool in route.pools]
    assert found == [["a[0]", "a[1]"], ["b[2]"]]


def test_any_other_native_id_is_asked_with_the_first_anthropic_key(router: Router) -> None:
    route = router.resolve_native("claude-brand-new")
    assert route is not None
    (one,) = [one for pool in route.pools for one in pool.members]
    assert (one.name, one.endpoint.upstream_model) == ("claude[0]", "claude-brand-new")


@pytest.mark.parametrize(
    ("allowed", "may"),
    [
        (None, True),
        (("claude",), True),
        (("claude-two",), True),
        (("anthropic/*",), True),
        (("claude-*",), True),
        (("other",), False),
        ((), False),
    ],
)
def test_a_key_s_models_hold_for_native_ids_too(
    router: Router, allowed: tuple[str, ...] | None, *, may: bool
) -> None:
    route = router.resolve_native("claude-two")
    assert route is not None
    assert Caller("a", allowed).may_count(route.names) is may


def test_the_names_to_use_are_listed_once(router: Router) -> None:
    expected = ["claude", "guess", "other-name", "hidden"]
    assert list(router.names()) == [*expected, "anthropic/*", "team-*", "team-fixed-*"]
