"""config.yaml as an operator writes it: what is read, what is refused, and in which words."""

from pathlib import Path

import pytest

from adapters.base import AwsCredential
from app.config import ConfigError, Settings, load

MINIMAL = """\
model_list:
  - model_name: claude
    litellm_params:
      model: anthropic/claude-x
      api_key: os.environ/ANTHROPIC_API_KEY
"""


def read(folder: Path, text: str, **environ: str) -> Settings:
    path = folder / "config.yaml"
    path.write_text(text)
    return load(str(path), environ)


def test_a_variable_that_is_not_set_is_named_and_stops_nothing(tmp_path: Path) -> None:
    (one,) = read(tmp_path, MINIMAL).models.deployments
    assert one.endpoint.missing == ("ANTHROPIC_API_KEY",)
    assert one.endpoint.credential is None


def test_a_variable_that_is_set_is_used(tmp_path: Path) -> None:
    (one,) = read(tmp_path, MINIMAL, ANTHROPIC_API_KEY="sk-ant-secret").models.deployments
    assert one.endpoint.missing == ()
    assert "sk-ant-secret" not in repr(one)


@pytest.mark.parametrize(
    "base",
    ["http://h/p", "http://h/p/", "http://h/p/v1", "http://h/p/v1/", "http://h/p/v1/messages"],
)
def test_an_api_base_is_taken_with_or_without_its_tail(tmp_path: Path, base: str) -> None:
    (one,) = read(tmp_path, f"{MINIMAL}      api_base: {base}\n").models.deployments
    assert one.endpoint.base_url == "http://h/p"
    assert one.endpoint.scope == ("http://h/p",)


def test_the_provider_s_own_address_is_no_part_of_the_key(tmp_path: Path) -> None:
    text = f"{MINIMAL}      api_base: https://api.anthropic.com/v1\n"
    (one,) = read(tmp_path, text).models.deployments
    assert one.endpoint.scope == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model_list: []", "model_list: must be a list with at least one model"),
        ("a: [", "not YAML"),
        ("a: 2026-99-99", "not YAML"),
        (MINIMAL + "server: {port: 99999}\n", "server.port: expected `int` <= 65535"),
        (MINIMAL + "cache: {local: {max_entries: -1}}\n", "expected `int` >= 1"),
        (
            MINIMAL + "telemetry: {usage: {retention: 7}}\n",
            "telemetry.usage.retention: unknown key; did you mean retention_days?",
        ),
        (MINIMAL + "telemetry: {usage: {path: /}}\n", "usage.path: must name a file"),
        (MINIMAL + "telemetry: {jsonl: {path: ''}}\n", "jsonl.path: must name a file"),
        (MINIMAL + 'telemetry: {jsonl: {path: "a\\0b"}}\n', "jsonl.path: must name a file"),
        (
            MINIMAL + "telemetry: {webhook: {headers: {Content-Length: '5'}}}\n",
            "webhook.headers.Content-Length: must be left to this server",
        ),
        (MINIMAL + "telemetry: {usage: {max_end_users: 0}}\n", "expected `int` >= 1"),
        (MINIMAL + "telemetry: {webhook: {url: 'ftp://h/'}}\n", "webhook.url: must be an http or"),
        (MINIMAL + "telemetry: {webhook: {secret: whsec_c2hvcnQ=}}\n", "24 to 64 bytes in base64"),
        (MINIMAL + "telemetry: {webhook: {secret: plain-text}}\n", "secret: must be whsec_"),
        (MINIMAL + "telemetry: {webhook: {url: 'http://h:99999/'}}\n", "must be an http or https"),
        (MINIMAL + "telemetry: {webhook: {url: 'http://[bad]/'}}\n", "must be an http or https"),
        (MINIMAL + "telemetry: {otlp: {endpoint: 'http://h/?k=v'}}\n", "must have no query"),
        (MINIMAL + 'telemetry: {otlp: {headers: {k: "v\\n"}}}\n', "headers.k: must be a header's"),
        (MINIMAL + "telemetry: {otlp: {headers: {k k: v}}}\n", "must be a header's name"),
        (MINIMAL + "router_settings: {model_group_alias: [a]}\n", "must be a mapping"),
        (MINIMAL.replace("os.environ/ANTHROPIC_API_KEY", "sk-\u00e9"), "visible ASCII"),
        ("- a", "must be a mapping"),
        ("model_list:\n  - 7", ":2: model_list[0]: must be a mapping"),
        (
            "model_list:\n  - model_name: a\n    litellm_params: {model: nobody/x}",
            "litellm_params.model: no provider counts for nobody/x; known: anthropic",
        ),
        (MINIMAL + "server:\n  prot: 1\n", ":7: server.prot: unknown key; did you mean port?"),
        (
            MINIMAL + "cache:\n  local:\n    max_entires: 1\n",
            ":8: cache.local.max_entires: unknown key; did you mean max_entries?",
        ),
        (MINIMAL + "server:\n  port: x\n", ":7: server.port: expected `int`, got `str`"),
        (MINIMAL + "server:\n  port: 1\n  port: 2\n", ":8: server.port: written twice"),
        (MINIMAL + "      timeout: -1\n", ":6: model_list[0].litellm_params.timeout: must be"),
        (MINIMAL + "      api_base: ftp://x\n", "api_base: must begin with http:// or https://"),
        *(
            (f"{MINIMAL}      api_base: '{base}'\n", "api_base: must hold no credentials")
            for base in ("http://u:p@x", "https://:p@x", "https://@x", "https://x?", "https://x/#")
        ),
        (MINIMAL + "      fallback: guess\n", "fallback: the only fallback is estimate"),
        (
            MINIMAL + "general_settings:\n  master_key: os.environ/MASTER\n",
            ":7: general_settings.master_key: environment variable MASTER is not set",
        ),
        (MINIMAL + "general_settings:\n  master_key: ''\n", "master_key: must be a non-empty"),
        (MINIMAL + "keys:\n  - {name: a}\n", ":7: keys[0]: needs either key or key_sha256"),
        (MINIMAL + "keys:\n  - {name: a, key: x, key_sha256: y}\n", "needs either"),
        (MINIMAL + "keys:\n  - {name: a, key_sha256: zz}\n", "must be 64 hexadecimal digits"),
        (MINIMAL + "keys: [{name: a, key: x, rpm: 0}]\n", "keys[0].rpm: expected `int` >= 1"),
        (MINIMAL + "keys: [{name: a, key: x, rpn: 1}]\n", "unknown key; did you mean rpm?"),
        (
            MINIMAL + "keys: [{name: a, key: x, max_paralel_misses: 1}]\n",
            "did you mean max_parallel_misses?",
        ),
        (MINIMAL + "keys:\n  - {name: a, key: x}\n  - {name: b, key: x}\n", "same key as a"),
        (MINIMAL + "keys:\n  - {name: a, key: x}\n  - {name: a, key: y}\n", "name used twice"),
        (MINIMAL + "keys: [{name: '', key: x}]\n", "keys[0].name: must be 1 to 96 bytes"),
        (MINIMAL + f"keys: [{{name: {97 * 'a'}, key: x}}]\n", "name: must be 1 to 96 bytes"),
        (MINIMAL + 'keys: [{name: "a\\u202eb", key: x}]\n', "bytes of printable text"),
        (
            MINIMAL + "router_settings:\n  model_group_alias: {x: nope}\n",
            "model_group_alias.x: must name a model_name",
        ),
    ],
)
def test_an_error_names_the_file_the_line_the_key_and_the_remedy(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "config.yaml"))
    assert expected in message
    assert "\n" not in message


def test_what_litellm_has_and_is_not_used_is_named_once(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        MINIMAL + "      temperature: 1\nlitellm_settings: {drop_params: true}\nenvironmnt: {}\n",
    )
    assert settings.notices == (
        "environmnt is not used",
        "litellm_settings.drop_params is not used",
        "model_list[0].litellm_params.temperature is not used",
    )


@pytest.mark.parametrize(
    ("text", "weak"),
    [
        ("", "no key is configured"),
        ("general_settings: {master_key: sk-1234}", "the key of master is the well-known sk-1234"),
        ("keys: [{name: a, key: sk-1234}]", "the key of a is the well-known sk-1234"),
        ("general_settings: {master_key: sk-long-enough}", None),
        ("keys: [{name: a, key: other}]", None),
    ],
)
def test_a_key_that_everybody_knows_is_weak(tmp_path: Path, text: str, weak: str | None) -> None:
    assert read(tmp_path, f"{MINIMAL}{text}\n").weak_key == weak


def test_each_purpose_has_its_own_secret_and_the_operator_s_comes_first(tmp_path: Path) -> None:
    plain = read(tmp_path, MINIMAL)
    keyed = read(tmp_path, MINIMAL + "general_settings: {master_key: sk-a}\n")
    own = read(
        tmp_path, MINIMAL + "general_settings: {master_key: sk-b}\ncache: {key_secret: sk-a}\n"
    )
    assert keyed.secret("cache-key") == own.secret("cache-key") != plain.secret("cache-key")
    assert keyed.secret("cache-key") != keyed.secret("end-user")


def test_litellm_s_own_variable_gives_the_master_key(tmp_path: Path) -> None:
    settings = read(tmp_path, MINIMAL, LITELLM_MASTER_KEY="sk-from-env")
    assert [key.name for key in settings.keys] == ["master"]


def test_an_entry_s_timeout_comes_before_the_general_one(tmp_path: Path) -> None:
    text = f"{MINIMAL}litellm_settings: {{request_timeout: 12}}\n"
    (one,) = read(tmp_path, text).models.deployments
    assert one.timeout_s == 12
    text = text.replace("litellm_settings", "      timeout: 3\nlitellm_settings", 1)
    (one,) = read(tmp_path, text).models.deployments
    assert one.timeout_s == 3
    assert read(tmp_path, MINIMAL).models.deployments[0].timeout_s == 30


def test_an_empty_api_key_takes_none_from_the_environment(tmp_path: Path) -> None:
    text = (
        "model_list: [{model_name: a, litellm_params: {model: bedrock/anthropic.claude-x, "
        "api_key: '', aws_access_key_id: A, aws_secret_access_key: S}}]\n"
    )
    (one,) = read(tmp_path, text, AWS_BEARER_TOKEN_BEDROCK="b").models.deployments
    assert isinstance(one.endpoint.credential, AwsCredential)
