"""A3: a configuration that is refused, or half used, does not say what stands in it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import ConfigError, load
from app.server import start_table
from tests.faults.canaries import Canaries

CANARIES = Canaries()
SECRET = CANARIES.of("secret", "sk-", "/+")
BARE = SECRET.removeprefix("sk-")
PLAIN = CANARIES.of("password", after="")


def _entry(model: str, **params: Any) -> str:
    entry = {"model_name": "a", "litellm_params": {"model": model, **params}}
    return yaml.safe_dump({"model_list": [entry]})


def _text(**sections: Any) -> str:
    return _entry("estimate/x") + yaml.safe_dump(sections)


def _key(**entry: Any) -> str:
    return _text(keys=[{"name": "a", **entry}])


def _litellm(**params: Any) -> str:
    return _text(litellm_settings={"cache": True, "cache_params": {"type": "redis", **params}})


REFUSED = {
    **{
        f"user in {name} of {model}": _entry(model, **{name: f"https://user:{PLAIN}@host"})
        for model, name in (
            ("anthropic/x", "api_base"),
            ("gemini/gemini-2.5-flash", "api_base"),
            ("vertex_ai/gemini-2.5-flash", "api_base"),
            ("vertex_ai/claude-x", "api_base"),
            ("bedrock/anthropic.claude-x", "aws_bedrock_runtime_endpoint"),
            ("bedrock/anthropic.claude-x", "aws_bedrock_mantle_endpoint"),
        )
    },
    "key as api_base": _entry("anthropic/x", api_base=SECRET),
    "list as api_key": _entry("anthropic/x", api_key=[SECRET]),
    "two lines as api_key": _entry("anthropic/x", api_key=f"{SECRET}\nx"),
    "one AWS key of two": _entry("bedrock/anthropic.claude-x", aws_secret_access_key=SECRET),
    "token without a role": _entry("bedrock/anthropic.claude-x", aws_web_identity_token=SECRET),
    "list as master_key": _text(general_settings={"master_key": [SECRET]}),
    "list as key": _key(key=[SECRET]),
    "key and its hash": _key(key=SECRET, key_sha256="00"),
    "key as its hash": _key(key_sha256=SECRET),
    "one key twice": _text(keys=[{"name": one, "key": SECRET} for one in "ab"]),
    "key as rpm": _key(key=SECRET, rpm=SECRET),
    "list as key_secret": _text(cache={"key_secret": [SECRET]}),
    "key as a variable's name": _text(cache={"key_secret": f"os.environ/{SECRET}"}),
    "user of Redis without a password": _text(cache={"cluster": {"url": f"redis://{BARE}@h"}}),
    "unquoted password of Redis": _text(cache={"cluster": {"url": f"redis://:a#{SECRET}@h"}}),
    "password as a port": _text(cache={"cluster": {"url": f"redis://:a/{BARE}@h:{BARE}/0"}}),
    "password as a scheme": _text(cache={"cluster": {"url": f"{BARE}://h"}}),
    "password without a host": _litellm(password=SECRET),
    "password as ssl": _litellm(host="h", password=SECRET, ssl=SECRET),
    "password as ttl": _litellm(host="h", password=SECRET, ttl=SECRET),
    "password as port": _litellm(host="h", password=SECRET, port=SECRET),
    **{
        f"YAML: {begin}": f"general_settings:\n  master_key: {begin}{SECRET}{end}\n"
        for begin, end in (
            ("!", ""),
            ("!!", ""),
            ("!!timestamp ", ""),
            ("!!int ", ""),
            ("*", ""),
            ("%", ""),
            ("@", ""),
            ('"', ""),
            ('"\\q', '"'),
            ("{", ""),
            ("x: ", ""),
        )
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_a3_a_refusal_does_not_quote(tmp_path: Path, case: str) -> None:
    """The one line says where, and nothing of what stands there."""
    (tmp_path / "config.yaml").write_text(REFUSED[case])
    with pytest.raises(ConfigError) as refusal:
        load(str(tmp_path / "config.yaml"), {})
    assert str(refusal.value).startswith(str(tmp_path))
    assert not CANARIES.found(str(refusal.value).encode())


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("ANTHROPIC_API_BASE", "anthropic/x"),
        ("BEDROCK_MANTLE_API_BASE", "bedrock_mantle/anthropic.claude-x"),
    ],
)
def test_a3_a_variables_value_is_not_quoted(tmp_path: Path, name: str, model: str) -> None:
    """An address of the environment is refused like one of the file."""
    (tmp_path / "config.yaml").write_text(_entry(model))
    with pytest.raises(ConfigError, match="must hold no credentials") as refusal:
        load(str(tmp_path / "config.yaml"), {name: f"https://user:{PLAIN}@host"})
    assert not CANARIES.found(str(refusal.value).encode())


def test_a3_a_pasted_key_is_not_told_as_missing(tmp_path: Path) -> None:
    """A key behind ``os.environ/`` is no variable's name."""
    (tmp_path / "config.yaml").write_text(_entry("anthropic/x", api_key=f"os.environ/{SECRET}"))
    settings = load(str(tmp_path / "config.yaml"), {})
    assert "missing: after os.environ/" in start_table(settings)
    assert not CANARIES.found((start_table(settings) + repr(settings)).encode())
