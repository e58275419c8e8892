"""OpenTelemetry: spans, log records and metrics, over OTLP/HTTP in JSON."""

from app.telemetry.otlp.rounds import logs, traces

__all__ = ["logs", "traces"]
