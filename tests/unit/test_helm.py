"""The chart's manifests: as Helm makes them where it is installed, else as it made them last."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.__main__ import _parser
from app.config_sections import Server
from tests.helm_chart import CASES, CHART, KUBERNETES, ROOT, digest, helm, kept, render

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
ENDS_S = Server().drain_notice_s + Server().drain_s + 5
"""How long a server may take to end."""
Manifest = dict[str, Any]


@pytest.fixture(params=CASES)
def manifests(request: pytest.FixtureRequest) -> dict[str, Manifest]:
    """The manifests of one choice of values, by their kind."""
    _, text = kept(request.param)
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def workload(manifests: dict[str, Manifest]) -> Manifest:
    found: Manifest = manifests.get("Deployment") or manifests["StatefulSet"]
    return found


def pod(manifests: dict[str, Manifest]) -> Manifest:
    spec: Manifest = workload(manifests)["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("case", CASES)
def test_what_is_kept_is_of_this_chart(case: str) -> None:
    assert kept(case)[0] == digest(), "render it anew: python -m tests.helm_chart"


if helm():

    @pytest.mark.parametrize("case", CASES)
    def test_helm_makes_what_is_kept(case: str) -> None:
        assert render(*CASES[case]).stdout == kept(case)[1]

    def test_helm_finds_nothing_to_say() -> None:
        command = (helm() or "", "lint", "--strict", str(CHART), *KUBERNETES)
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            (f"terminationGracePeriodS={ENDS_S + VALUES['preStopS']:g}", "must be more than 26"),
            ("config.server.drain_s=60", "must be more than 71"),
            ("config.server.port=80", "the chart's own"),
            ("image.tag=latest", "image.tag"),
            ("replicass=3", "replicass"),
        ],
    )
    def test_a_mistake_is_refused(values: str, says: str) -> None:
        done = render("--set", values)
        assert done.returncode != 0
        assert says in done.stderr


def test_a_pod_may_do_no_more_than_it_must(manifests: dict[str, Manifest]) -> None:
    spec = pod(manifests)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "hostNetwork" not in spec
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert "Secret" not in manifests


def test_a_pod_has_time_to_drain(manifests: dict[str, Manifest]) -> None:
    spec = pod(manifests)
    (container,) = spec["containers"]
    pause_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > ENDS_S + pause_s


def test_a_pod_is_asked_where_the_server_answers(manifests: dict[str, Manifest]) -> None:
    (container,) = pod(manifests)["containers"]
    options = _parser().parse_args(container["args"])
    assert (options.host, options.port) == ("0.0.0.0", container["ports"][0]["containerPort"])
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("readiness", "liveness")}
    assert probes["readiness"] == {"path": "/health/readiness", "port": "http"}
    assert probes["liveness"] == {"path": "/health/liveliness", "port": "http"}


def test_what_a_pod_writes_has_a_place(manifests: dict[str, Manifest]) -> None:
    spec, (container,) = pod(manifests), pod(manifests)["containers"]
    claims = workload(manifests)["spec"].get("volumeClaimTemplates", [])
    volumes = {one["name"] for one in spec["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in claims}
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
    assert {one["name"] for one in mounts.values()} == volumes
    assert mounts.keys() == {"/etc/tallygate", "/var/cache/tallygate", "/tmp"}
    assert mounts["/etc/tallygate"]["readOnly"] is True


def test_everything_chosen_by_labels_is_there(manifests: dict[str, Manifest]) -> None:
    labels = workload(manifests)["spec"]["template"]["metadata"]["labels"]
    selectors = [
        workload(manifests)["spec"]["selector"]["matchLabels"],
        manifests["Service"]["spec"]["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        *(one["spec"]["podSelector"]["matchLabels"] for one in of(manifests, "NetworkPolicy")),
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    for monitor in of(manifests, "ServiceMonitor"):
        chosen = monitor["spec"]["selector"]["matchLabels"]
        assert chosen.items() <= manifests["Service"]["metadata"]["labels"].items()
        assert (
            manifests["Service"]["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "tallygate"
        )
    for scaler in of(manifests, "HorizontalPodAutoscaler"):
        assert scaler["spec"]["scaleTargetRef"]["kind"] == workload(manifests)["kind"]
        assert "replicas" not in workload(manifests)["spec"]


def of(manifests: dict[str, Manifest], kind: str) -> list[Manifest]:
    return [manifests[kind]] if kind in manifests else []


def test_every_choice_is_made_by_one_of_the_cases() -> None:
    kinds = {one["kind"] for case in CASES for one in yaml.safe_load_all(kept(case)[1])}
    assert kinds == {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
        "ServiceMonitor",
        "StatefulSet",
    }


def test_the_configuration_of_the_chart_asks_for_secrets_by_name() -> None:
    text = yaml.safe_dump(VALUES["config"])
    assert "sk-" not in text
    assert VALUES["config"]["general_settings"]["master_key"].startswith("os.environ/")
    keys = [key["key"] for key in VALUES["config"]["keys"]]
    assert f"os.environ/{VALUES['serviceMonitor']['key']}" in keys


def test_the_configuration_of_the_chart_is_valid(
    manifests: dict[str, Manifest], tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(manifests["ConfigMap"]["data"]["config.yaml"])
    names = ("TALLYGATE_MASTER_KEY", "TALLYGATE_METRICS_KEY", "ANTHROPIC_API_KEY")
    done = subprocess.run(
        (sys.executable, "-m", "app", "check", str(tmp_path / "config.yaml")),
        cwd=ROOT,
        env={name: f"sk-0123456789-{name}" for name in names},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "missing" not in done.stdout + done.stderr
