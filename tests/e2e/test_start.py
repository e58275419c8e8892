"""The start: two commands, one clear line for each thing that is wrong, and no secret in any."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from bench.provider import SimulatedProvider
from tests.e2e.exchange import (
    COUNT,
    FAILURES_STAND_ALONE,
    JSON,
    MODEL,
    NATIVE,
    anthropic,
    counted,
    event,
    model_list,
    question,
)
from tests.e2e.launch import Launch
from tests.server import KEY, Tallygate, free_port

SANIC = str(Path(sys.executable).with_name("sanic"))
ESTIMATE = model_list(**{MODEL: {"model": "estimate/claude"}})
STRONG = {"master_key": KEY}
WEAK = {"master_key": "sk-1234"}


@pytest.mark.parametrize(
    ("command", "workers"),
    [((sys.executable, "-m", "sanic", "app.main"), 1), ((SANIC, "app.main"), 2)],
    ids=["module", "script"],
)
def test_commands(start: Callable[..., Tallygate], command: tuple[str, ...], workers: int) -> None:
    """Both ways to call Sanic serve, with any number of workers."""
    server = start({"model_list": ESTIMATE}, command=command, workers=workers)
    assert counted(server.count(question()))
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    if children.exists():
        assert len(children.read_text().split()) >= workers


def test_configuration_of_the_checkout(launch: Callable[..., Launch]) -> None:
    """Without TALLYGATE_CONFIG it is ./config.yaml, which works as it is shipped."""
    port = free_port()
    server = launch(None, "--port", str(port), environ={"TALLYGATE_CONFIG": ""})
    server.answers(port)
    headers = {"authorization": "Bearer sk-1234"}
    url = f"http://127.0.0.1:{port}{COUNT}"
    response = httpx.post(url, json=question("local-estimate"), headers=headers)
    assert counted(response)
    assert response.headers["x-tallygate-source"] == "estimate"
    assert server.out.read_text().count("\n") <= 1


def _text(**sections: Any) -> str:
    return yaml.safe_dump({"model_list": ESTIMATE, **sections}, sort_keys=False)


def _entry(**params: Any) -> str:
    return yaml.safe_dump({"model_list": model_list(**{MODEL: params})}, sort_keys=False)


WRONG: dict[str, tuple[str, str, str]] = {
    "bad-yaml": ("model_list: [\n", "config.yaml:2: ", "not YAML"),
    "tab": ("model_list:\n\t- a\n", "config.yaml:2: ", "not YAML"),
    "a-list": ("- model_name: a\n", "config.yaml: ", "mapping"),
    "empty": ("", "config.yaml: ", "model_list"),
    "unknown-section-key": (
        _text(server={"prot": 4000}),
        "config.yaml:6: server.prot: ",
        "did you mean port?",
    ),
    "unknown-inner-key": (
        _text(cache={"local": {"max_entry": 5}}),
        "config.yaml:7: cache.local.max_entry: ",
        "did you mean max_entries?",
    ),
    "unknown-key-of-keys": (
        _text(keys=[{"name": "a", "kee": "b"}]),
        "config.yaml:7: keys[0].kee: ",
        "did you mean key?",
    ),
    "wrong-type": (_text(server={"port": "many"}), "config.yaml:6: server.port: ", "int"),
    "wrong-section": (_text(server=[1]), "config.yaml:5: server: ", "object"),
    "wrong-choice": (
        _text(telemetry={"log_level": "loud"}),
        "config.yaml:6: telemetry.log_level: ",
        "loud",
    ),
    "empty-model-list": ("model_list: []\n", "config.yaml:1: model_list: ", "at least one"),
    "no-model-list": ("server: {}\n", "config.yaml: model_list: ", "at least one"),
    "unknown-provider": (
        _entry(model="carrier-pigeon/claude"),
        "config.yaml:4: model_list[0].litellm_params.model: ",
        "anthropic",
    ),
    "unknown-fallback": (
        _entry(model="anthropic/claude-x", fallback="guess"),
        "config.yaml:5: model_list[0].litellm_params.fallback: ",
        "estimate",
    ),
    "bad-timeout": (
        _entry(model="anthropic/claude-x", timeout=0),
        "config.yaml:5: model_list[0].litellm_params.timeout: ",
        "above 0",
    ),
    "written-twice": (
        "server:\n  port: 1\n  port: 2\nmodel_list: []\n",
        "config.yaml:3: server.port: ",
        "written twice",
    ),
    "section-written-twice": (
        "model_list: []\nserver: {}\nmodel_list: []\n",
        "config.yaml:3: model_list: ",
        "written twice",
    ),
    "unset-master-key": (
        _text(general_settings={"master_key": "os.environ/NOBODY_SETS_THIS"}),
        "config.yaml:6: general_settings.master_key: ",
        "NOBODY_SETS_THIS is not set; set it",
    ),
    "empty-master-key": (
        _text(general_settings={"master_key": ""}),
        "config.yaml:6: general_settings.master_key: ",
        "non-empty",
    ),
    "alias-of-nothing": (
        _text(router_settings={"model_group_alias": {"a": "b"}}),
        "config.yaml:7: router_settings.model_group_alias.a: ",
        "model_name",
    ),
    "same-key-twice": (
        _text(keys=[{"name": "a", "key": "sk-k"}, {"name": "b", "key": "sk-k"}]),
        "config.yaml:8: keys[1]: ",
        "each its own",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_configuration(launch: Callable[..., Launch], kind: str) -> None:
    """Exit code 1, and one line that names file, line, key and remedy."""
    text, place, remedy = WRONG[kind]
    launched = launch(text)
    line = launched.refusal()
    assert line.startswith(str(launched.config.parent / place))
    assert remedy in line.removeprefix(str(launched.config))


@pytest.mark.parametrize("command", [(SANIC, "app.main"), (SANIC, "app.main:app")])
def test_missing_file(launch: Callable[..., Launch], command: tuple[str, ...]) -> None:
    """No file: the line names it, and how to give another."""
    launched = launch(None, command=command)
    line = launched.refusal()
    assert line.startswith(f"{launched.config}: ")
    assert "TALLYGATE_CONFIG" in line


def test_a_unix_socket_whose_path_is_too_long(launch: Callable[..., Launch]) -> None:
    config = {"model_list": ESTIMATE, "general_settings": {"master_key": KEY}}
    line = launch(config, "--unix", f"/tmp/{'x' * 59}.sock").refusal()
    assert line.startswith("--unix: the path may be 63 bytes long at most")


@pytest.mark.parametrize("general", [WEAK, {}], ids=["weak-key", "no-key"])
@pytest.mark.parametrize(
    ("host", "arguments"),
    [("0.0.0.0", ()), ("127.0.0.1", ("-H", "0.0.0.0")), ("127.0.0.1", ("-H", "::"))],
    ids=["configured", "given", "given-v6"],
)
def test_open_door(
    launch: Callable[..., Launch], general: dict[str, str], host: str, arguments: tuple[str, ...]
) -> None:
    """With a key that everybody knows, or none, other machines are not served: one line says so."""
    config = {
        "server": {"host": host},
        "model_list": ESTIMATE,
        "general_settings": general,
    }
    launched = launch(config, *arguments, "--port", str(free_port()))
    line = launched.refusal()
    assert line.startswith(f"{launched.config}: ")
    assert "general_settings.master_key" in line
    assert "server.allow_weak_key: true" in line


def test_one_weak_key_among_strong_ones(launch: Callable[..., Launch]) -> None:
    """Every key is looked at, and the one that is known is named by its name."""
    keys = [{"name": "documented", "key": "sk-1234"}]
    config = {"model_list": ESTIMATE, "general_settings": STRONG, "keys": keys}
    assert "documented" in launch(config, "-H", "0.0.0.0").refusal()


@pytest.mark.parametrize(
    ("server", "general", "arguments"),
    [
        ({"host": "0.0.0.0"}, STRONG, ()),
        ({"allow_weak_key": True}, WEAK, ("-H", "0.0.0.0")),
        ({"allow_weak_key": True, "host": "::"}, {}, ()),
        ({}, {}, ()),
    ],
    ids=["strong-key", "allowed-weak-key", "allowed-no-key", "no-key-on-loopback"],
)
def test_door_that_may_be_open(
    launch: Callable[..., Launch],
    server: dict[str, Any],
    general: dict[str, str],
    arguments: tuple[str, ...],
) -> None:
    """A strong key, the operator's word, or this machine alone: it starts."""
    port = free_port()
    config = {"server": server, "model_list": ESTIMATE, "general_settings": general}
    launch(config, *arguments, "--port", str(port)).answers(port)


def test_start_table(launch: Callable[..., Launch], provider: SimulatedProvider) -> None:
    """One row for each entry: whether its credential was found, by its variable's name only."""
    base = provider.url
    config = {
        "model_list": model_list(
            written=anthropic("claude-a", base, api_key="sk-ant-canary-written"),
            found=anthropic("claude-b", base, api_key="os.environ/A_KEY"),
            missing=anthropic("claude-c", base, api_key="os.environ/NOBODY_SETS_THIS"),
            default={"model": "anthropic/claude-d", "api_base": base},
            approximate={"model": "estimate/claude"},
        ),
        "general_settings": {"master_key": "sk-canary-master", "alerting": ["slack"]},
    }
    port = free_port()
    environ = {"A_KEY": "sk-ant-canary-variable"}
    launched = launch(config, "--port", str(port), environ=environ)
    launched.answers(port)
    said = launched.err.read_text()
    rows = {line.split()[0]: line.split() for line in said.splitlines() if " claude" in line}
    assert rows["written"][1:] == ["anthropic", "claude-a", "found"]
    assert rows["found"][1:] == ["anthropic", "claude-b", "found"]
    assert rows["missing"][1:] == ["anthropic", "claude-c", "missing:", "NOBODY_SETS_THIS"]
    assert rows["default"][1:] == ["anthropic", "claude-d", "missing:", "ANTHROPIC_API_KEY"]
    assert "estimate" in rows["approximate"]
    assert "general_settings.alerting is not used" in said
    assert said.count("is not used") == 1
    assert "canary" not in said + launched.out.read_text()


@pytest.mark.parametrize(
    "text",
    [
        _entry(model="anthropic/x", api_base="https://user:canary@example.com"),
        _entry(model="anthropic/x", api_base="canary"),
        _entry(model="anthropic/x", api_key=["canary"]),
        _text(general_settings={"master_key": ["canary"]}),
        _text(keys=[{"name": "a", "key": "canary", "key_sha256": "00"}]),
        _text(keys=[{"name": "a", "key_sha256": "canary"}]),
        _text(keys=[{"name": "a", "key": ["canary"]}]),
        _text(cache={"key_secret": ["canary"]}),
        "general_settings:\n  master_key: canary\n   canary: [\n",
        'general_settings: {master_key: "canary}\n',
    ],
)
def test_refusal_shows_no_secret(launch: Callable[..., Launch], text: str) -> None:
    """A line about a credential does not hold it."""
    assert "canary" not in launch(text).refusal()


def test_sigterm_ends_the_server(launch: Callable[..., Launch]) -> None:
    """Stopped as an operator does, it ends with exit code 0."""
    port = free_port()
    launched = launch({"model_list": ESTIMATE}, "--port", str(port))
    launched.answers(port)
    time.sleep(0.5)
    assert launched.terminate() == 0


def test_sigterm_during_the_start_ends_the_server(launch: Callable[..., Launch]) -> None:
    """Whoever starts it may stop it at any moment, the first one after its first answer too."""
    port = free_port()
    launched = launch({"model_list": ESTIMATE}, "--port", str(port))
    launched.answers(port)
    assert launched.terminate() == 0


def test_no_secret_is_ever_told(
    start: Callable[..., Tallygate], provider: SimulatedProvider
) -> None:
    """Nothing confidential reaches standard output, standard error or /metrics, at any level."""
    base = provider.url
    server = start(
        {
            "model_list": model_list(
                **{
                    MODEL: anthropic("claude-x", base, api_key="sk-ant-canary-upstream"),
                    "by-variable": anthropic("claude-y", base, api_key="os.environ/A_KEY"),
                    "keyless": {"model": "anthropic/claude-z", "api_base": base},
                    "hasty": anthropic("claude-h", base, api_key="sk-canary-h", timeout=0.2),
                    "nowhere": anthropic("claude-n", "http://127.0.0.1:9", api_key="sk-canary-n"),
                }
            ),
            "general_settings": {"master_key": "sk-canary-master"},
            "keys": [{"name": "team", "key": "os.environ/TEAM_KEY"}],
            "cache": {"key_secret": "canary-secret"},
            "limits": FAILURES_STAND_ALONE,
            "telemetry": {"log_level": "debug", "hash_end_users": True},
            "pass_through": {"caller_key": True},
        },
        environ={"A_KEY": "sk-ant-canary-variable", "TEAM_KEY": "sk-canary-team"},
    )
    master = {"authorization": "Bearer sk-canary-master"}
    own = {"x-litellm-api-key": "sk-canary-team", "authorization": "Bearer sk-ant-oat01-canary"}
    text = [{"role": "user", "content": "canary in a prompt"}]

    def ask(model: str, path: str = COUNT, headers: dict[str, str] = master, **more: Any) -> str:
        body = question(model, system="canary in a system prompt", **more) | {"messages": text}
        response = httpx.post(f"{server.url}{path}", json=body, headers=headers)
        return str(response.headers["request-id"])

    asked = [ask(MODEL, user="canary@example.com"), ask(MODEL), ask("by-variable")]
    asked += [ask("keyless", headers=own), ask("claude-x", NATIVE, own), ask("keyless")]
    asked += [ask(MODEL, headers={"x-api-key": "sk-canary-wrong"}), ask("nowhere")]
    asked += [ask(MODEL, headers={"cookie": "canary=1"})]
    echo = {"type": "error", "error": {"type": "api_error", "message": "canary sk-ant-canary"}}
    for status in (400, 401, 403, 404, 429, 500, 529):
        provider.clear()
        provider.behave(status=status, body=echo)
        asked.append(ask(MODEL, n=status))
    for reply in ("canary", '{"input_tokens":"canary"}', '{"canary":1}'):
        provider.clear()
        provider.behave(status=200, body=reply)
        asked.append(ask(MODEL, n=reply))
    provider.clear()
    provider.behave(hang=True)
    asked.append(ask("hasty"))
    for wire in (b'{"model":"canary', b'{"model":["canary"]}', b"canary", b'{"canary":"\xff"}'):
        headers = master | JSON
        response = httpx.post(f"{server.url}{COUNT}", content=wire, headers=headers)
        assert "canary" not in response.text
        asked.append(response.headers["request-id"])
    for request_id in asked:
        event(server, request_id)
    metrics = httpx.get(f"{server.url}/metrics", headers=master).text
    server.stop()
    for told in (server.out.read_text(), server.err.read_text(), metrics):
        assert "canary" not in told


def test_a_bundle_that_holds_no_certificate_stops_the_start(
    launch: Callable[..., Launch], tmp_path: Path
) -> None:
    """One line says so, instead of workers that do not come up."""
    bundle = tmp_path / "ca.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n")
    launched = launch({"model_list": ESTIMATE}, environ={"SSL_CERT_FILE": str(bundle)})
    assert launched.refusal().startswith("SSL_CERT_FILE or REQUESTS_CA_BUNDLE: ")
