"""What Grafana asks and Prometheus watches, asked of a real Prometheus after a load."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from bench.provider import SimulatedProvider
from tests.e2e import workload
from tests.e2e.prometheus import SCRAPE_S, Prometheus, binary
from tests.e2e.receiver import Receiver
from tests.server import ROOT, Tallygate

REQUESTS = 1_500
RULES = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/tallygate.json").read_text())
EXPRESSIONS = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
CHOSEN = {"$instance": ".*", "$model": ".*", "$__rate_interval": "1m", "$__range": "5m"}
"""What Grafana would put in place of its variables."""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def prometheus(
    start: Callable[..., Tallygate],
    provider: SimulatedProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Prometheus]:
    provider.clear()
    workload.prepare(provider)
    with Receiver() as webhook:
        told = {"webhook": {"url": webhook.url, "flush_s": 0.2}}
        config = {**workload.configuration(provider), "telemetry": told}
        server = start(config, workers=2)
        address, folder = server.url.removeprefix("http://"), tmp_path_factory.mktemp("prometheus")
        with Prometheus(folder, address, RULES) as running:
            workload.play(server.port, REQUESTS)
            time.sleep(2 * SCRAPE_S)
            yield running


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_panel_has_something_to_show(name: str, prometheus: Prometheus) -> None:
    expression = EXPRESSIONS[name]
    for variable, value in CHOSEN.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    samples = prometheus.query(expression)
    assert samples, expression
    assert all(sample.value >= 0 for sample in samples)


@pytest.mark.parametrize(
    "title",
    ["Requests a second", "Hit ratio", "Calls saved", "p99 of repeats", "Calls to providers"],
)
def test_what_has_happened_is_not_shown_as_nothing(title: str, prometheus: Prometheus) -> None:
    expression = EXPRESSIONS[f"{title} A"]
    for variable, value in CHOSEN.items():
        expression = expression.replace(variable, value)
    assert max(sample.value for sample in prometheus.query(expression)) > 0


def test_the_choices_are_there(prometheus: Prometheus) -> None:
    for variable in DASHBOARD["templating"]["list"][1:]:
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
        assert found
        assert all(sample.labels[found[2]] for sample in prometheus.query(found[1]))


def test_prometheus_takes_the_rules_and_none_of_them_fails(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, str]]:
        groups = httpx.get(f"{prometheus.url}/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    deadline = time.monotonic() + 30
    while any(rule["health"] == "unknown" for rule in rules()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert {rule["health"] for rule in rules()} == {"ok"}
    down = next(rule for rule in rules() if rule["name"] == "TallygateDown")
    assert down["state"] == "inactive"


def test_every_alert_is_raised_when_it_should_be() -> None:
    promtool = binary("promtool")
    for command in (
        ("check", "rules", "--lint-fatal", RULES),
        ("test", "rules", ROOT / "tests/fixtures/alerts.test.yml"),
    ):
        ran = subprocess.run([promtool, *command], check=False, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    # Those of the case in which everything is wrong are all there are.
    named = re.findall(r"- alert: (\w+)", RULES.read_text())
    tried = (ROOT / "tests/fixtures/alerts.test.yml").read_text()
    assert all(tried.count(f'alertname="{name}"') >= 1 for name in named)
