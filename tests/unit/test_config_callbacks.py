"""LiteLLM's names of callbacks: what each becomes, and what is said of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import Settings, load

MODELS = [{"model_name": "a", "litellm_params": {"model": "anthropic/a", "api_key": "sk-ant-a"}}]
COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
LANGFUSE = {"LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": "sk-lf-2"}
GENERIC = {"GENERIC_LOGGER_ENDPOINT": "https://logs.example/in"}


def read(folder: Path, litellm: dict[str, Any], environ: dict[str, str], **more: Any) -> Settings:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"model_list": MODELS, "litellm_settings": litellm, **more}))
    return load(str(path), environ)


def headers(settings: Settings) -> dict[str, str]:
    given = settings.telemetry.otlp.headers
    return {name: value.reveal() for name, value in given.items()}


def endpoint(settings: Settings) -> str:
    found = settings.telemetry.otlp.endpoint
    return found.reveal() if found else ""


@pytest.mark.parametrize("place", ["callbacks", "success_callback", "failure_callback"])
@pytest.mark.parametrize("written", ["otel", ["otel"], ["prometheus", "otel"]])
def test_otel_is_the_collector_of_the_environment(place: str, written: Any, tmp_path: Path) -> None:
    environ = {
        **COLLECTOR,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b, x-team = t=1",
        "OTEL_SERVICE_NAME": "counting",
    }
    settings = read(tmp_path, {place: written}, environ)
    assert endpoint(settings) == "http://collector:4318"
    assert headers(settings) == {"x-key": "a b", "x-team": "t=1"}
    assert settings.telemetry.otlp.service_name == "counting"
    assert settings.notices == (f"litellm_settings.{place}: otel is read as telemetry.otlp",)


def test_litellm_s_older_variables_are_read_too(tmp_path: Path) -> None:
    """With the signal's path, as LiteLLM's documentation has it."""
    environ = {
        "OTEL_EXPORTER": "otlp_http",
        "OTEL_ENDPOINT": "https://api.honeycomb.io/v1/traces",
        "OTEL_HEADERS": "x-honeycomb-team=abc",
    }
    settings = read(tmp_path, {"callbacks": ["otel"]}, environ)
    assert endpoint(settings) == "https://api.honeycomb.io"
    assert headers(settings) == {"x-honeycomb-team": "abc"}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({}, "https://us.cloud.langfuse.com/api/public/otel"),
        (
            {"LANGFUSE_HOST": "https://langfuse.example/"},
            "https://langfuse.example/api/public/otel",
        ),
        ({"LANGFUSE_OTEL_HOST": "mine.example"}, "https://mine.example/api/public/otel"),
    ],
)
def test_langfuse_takes_spans_alone(host: dict[str, str], expected: str, tmp_path: Path) -> None:
    settings = read(tmp_path, {"callbacks": ["langfuse_otel"]}, {**LANGFUSE, **host})
    assert endpoint(settings) == expected
    assert headers(settings) == {
        "authorization": "Basic cGstbGYtMTpzay1sZi0y",
        "x-langfuse-ingestion-version": "4",
    }
    assert settings.telemetry.otlp.signals == ("traces",)


@pytest.mark.parametrize("name", ["generic_api", "generic", "webhook"])
def test_a_generic_logger_is_the_webhook(name: str, tmp_path: Path) -> None:
    environ = {**GENERIC, "GENERIC_LOGGER_HEADERS": "Authorization=Bearer t=1,x-a=b"}
    webhook = read(tmp_path, {"success_callback": [name]}, environ).telemetry.webhook
    assert webhook.url is not None
    assert webhook.url.reveal() == "https://logs.example/in"
    shown = {one: value.reveal() for one, value in webhook.headers.items()}
    assert shown == {"Authorization": "Bearer t=1", "x-a": "b"}


def test_an_import_path_is_one_of_our_own(tmp_path: Path) -> None:
    path = "custom_callbacks.proxy_handler_instance"
    own = {"callbacks": ["mine.Logger"]}
    litellm = {"callbacks": path, "failure_callback": [path]}
    settings = read(tmp_path, litellm, {}, telemetry=own)
    assert settings.telemetry.callbacks == ("mine.Logger", path)


@pytest.mark.parametrize(
    ("name", "environ", "said"),
    [
        ("otel", {}, "otel is not used: set OTEL_EXPORTER_OTLP_ENDPOINT, or telemetry.otlp"),
        ("otel", {**COLLECTOR, "OTEL_EXPORTER": "otlp_grpc"}, "only OTLP over HTTP"),
        ("otel", {**COLLECTOR, "OTEL_EXPORTER": "console"}, "only OTLP over HTTP"),
        ("langfuse_otel", {}, "set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"),
        ("generic_api", {}, "generic_api is not used: set GENERIC_LOGGER_ENDPOINT"),
        ("datadog", {}, "datadog is not known here; docs/integrations.md lists what is"),
        ("a\nb", {}, "a name is not known here"),
    ],
)
def test_what_cannot_be_read_is_named_once_and_no_error(
    name: str, environ: dict[str, str], said: str, tmp_path: Path
) -> None:
    litellm = {"callbacks": [name, "prometheus"], "failure_callback": [name]}
    settings = read(tmp_path, litellm, environ)
    (notice,) = settings.notices
    assert notice.startswith("litellm_settings.callbacks: ")
    assert said in notice
    assert not endpoint(settings)


def test_our_own_sections_come_first(tmp_path: Path) -> None:
    own = {"otlp": {"endpoint": "http://own:1"}, "webhook": {"url": "http://own:2"}}
    litellm = {"callbacks": ["otel", "langfuse_otel", "generic_api"]}
    environ = {**COLLECTOR, **LANGFUSE, **GENERIC}
    settings = read(tmp_path, litellm, environ, telemetry=own)
    assert endpoint(settings) == "http://own:1"
    assert len(settings.notices) == 3
    assert all("is not used: telemetry." in notice for notice in settings.notices)


def test_of_two_collectors_the_first_is_read(tmp_path: Path) -> None:
    litellm = {"callbacks": ["otel", "langfuse_otel"]}
    settings = read(tmp_path, litellm, {**COLLECTOR, **LANGFUSE})
    assert endpoint(settings) == "http://collector:4318"
    assert "langfuse_otel is not used" in settings.notices[1]
