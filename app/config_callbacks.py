"""LiteLLM's names of callbacks → sections of our own, with LiteLLM's variables of the environment.

``litellm_settings.callbacks``, ``success_callback`` and ``failure_callback``. What each name reads:
github.com/BerriAI/litellm, ``litellm/integrations/``: ``opentelemetry.py``
(``OpenTelemetryConfig.from_env``), ``langfuse/langfuse_otel.py``,
``generic_api/generic_api_callback.py``; https://docs.litellm.ai/docs/observability/
langfuse_otel_integration (all 2026-11).
"""

import base64
import re
from collections.abc import Mapping
from urllib.parse import unquote

from msgspec.structs import replace

from adapters.base import Secret
from app.config_sections import Otlp, Telemetry
from app.config_source import Source

PLACES = ("callbacks", "success_callback", "failure_callback")
LANGFUSE_US = "https://us.cloud.langfuse.com"
"""LiteLLM's own default."""
is_import_path = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+").fullmatch
_signal_path = re.compile(r"/v1/(?:traces|metrics|logs)/?$")
_OTEL, _GENERIC = "otel", ("generic_api", "generic", "webhook")
_OVER_HTTP = {"", "otlp_http", "http/protobuf", "http/json", "http"}


def with_callbacks(source: Source, telemetry: Telemetry, notices: list[str]) -> Telemetry:
    """Read LiteLLM's names where our own sections leave it open; say what became of each, once."""
    settings = source.data.get("litellm_settings") or {}
    if not isinstance(settings, dict):
        return telemetry  # refused elsewhere
    named: dict[str, str] = {}
    for place in PLACES:
        given = settings.get(place) or ()
        for name in given if isinstance(given, list | tuple) else (given,):
            named.setdefault(str(name), f"litellm_settings.{place}: ")
    for name, place in named.items():
        telemetry, became = _read(name, telemetry, source.environ)
        if became:
            notices.append(f"{place}{became}")
    return telemetry


def _read(name: str, telemetry: Telemetry, environ: Mapping[str, str]) -> tuple[Telemetry, str]:
    """Read one name; say what became of it, empty for what is there anyway."""
    if name == "prometheus":
        return telemetry, ""
    if name in {_OTEL, "langfuse_otel"}:
        return _otlp(name, telemetry, environ)
    if name in _GENERIC:
        return _webhook(name, telemetry, environ)
    if is_import_path(name):
        paths = tuple(dict.fromkeys((*telemetry.callbacks, name)))
        became = f"{name} is read as telemetry.callbacks"
        return replace(telemetry, callbacks=paths), became
    shown = name if name.isprintable() else "a name"
    return telemetry, f"{shown[:64]} is not known here; docs/integrations.md lists what is"


def _otlp(name: str, telemetry: Telemetry, environ: Mapping[str, str]) -> tuple[Telemetry, str]:
    if telemetry.otlp.endpoint is not None:
        return telemetry, f"{name} is not used: telemetry.otlp.endpoint is set"
    read = _collector if name == _OTEL else _langfuse
    found = read(telemetry.otlp, environ)
    if isinstance(found, str):
        return telemetry, f"{name} is not used: {found}"
    return replace(telemetry, otlp=found), f"{name} is read as telemetry.otlp"


def _collector(otlp: Otlp, environ: Mapping[str, str]) -> Otlp | str:
    """Read ``otel``, or say why it cannot be."""
    protocol = _first(environ, "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER")
    if protocol not in _OVER_HTTP:
        return "only OTLP over HTTP is spoken here: set OTEL_EXPORTER_OTLP_PROTOCOL=http/json"
    endpoint = _first(environ, "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_ENDPOINT")
    if not endpoint:
        return "set OTEL_EXPORTER_OTLP_ENDPOINT, or telemetry.otlp.endpoint"
    given = _first(environ, "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_HEADERS")
    # Values are percent-encoded there: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
    headers = {one: Secret(unquote(value.reveal())) for one, value in _headers(given).items()}
    service = environ.get("OTEL_SERVICE_NAME") or otlp.service_name
    return replace(
        otlp,
        endpoint=Secret(_signal_path.sub("", endpoint)),
        headers={**headers, **otlp.headers},
        service_name=service if otlp.service_name == Otlp().service_name else otlp.service_name,
    )


def _langfuse(otlp: Otlp, environ: Mapping[str, str]) -> Otlp | str:
    """Read ``langfuse_otel``, which takes spans alone; or say why it cannot be."""
    public, secret = environ.get("LANGFUSE_PUBLIC_KEY"), environ.get("LANGFUSE_SECRET_KEY")
    if not public or not secret:
        return "set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"
    host = _first(environ, "LANGFUSE_OTEL_HOST", "LANGFUSE_HOST") or LANGFUSE_US
    if not host.startswith("http"):
        host = f"https://{host}"
    login = base64.b64encode(f"{public}:{secret}".encode()).decode()
    headers = {
        "authorization": Secret(f"Basic {login}"),
        "x-langfuse-ingestion-version": Secret("4"),
    }
    return replace(
        otlp,
        endpoint=Secret(f"{host.rstrip('/')}/api/public/otel"),
        headers={**headers, **otlp.headers},
        signals=("traces",) if otlp.signals == Otlp().signals else otlp.signals,
    )


def _webhook(name: str, telemetry: Telemetry, environ: Mapping[str, str]) -> tuple[Telemetry, str]:
    own = telemetry.webhook
    if own.url is not None:
        return telemetry, f"{name} is not used: telemetry.webhook.url is set"
    endpoint = environ.get("GENERIC_LOGGER_ENDPOINT")
    if not endpoint:
        return telemetry, f"{name} is not used: set GENERIC_LOGGER_ENDPOINT"
    headers = {**_headers(environ.get("GENERIC_LOGGER_HEADERS", "")), **own.headers}
    webhook = replace(own, url=Secret(endpoint), headers=headers)
    return replace(telemetry, webhook=webhook), f"{name} is read as telemetry.webhook"


def _first(environ: Mapping[str, str], *names: str) -> str:
    return next((value for name in names if (value := environ.get(name))), "")


def _headers(written: str) -> dict[str, Secret]:
    """Read ``name=value,name=value``."""
    pairs = (one.partition("=") for one in written.split(","))
    return {name.strip(): Secret(value.strip()) for name, _, value in pairs if value.strip()}
