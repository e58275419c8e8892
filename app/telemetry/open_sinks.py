"""Which sinks a configuration wants."""

from functools import partial
from pathlib import Path

from app.config_sections import Telemetry
from app.telemetry.callback import CallbackSink
from app.telemetry.courier import Courier, Round
from app.telemetry.jsonl import JsonlSink
from app.telemetry.line_file import LineFile
from app.telemetry.metrics import Metrics
from app.telemetry.otlp import logs, traces
from app.telemetry.sinks import Sampling, Sink
from app.telemetry.webhook import webhook


def open_sinks(
    settings: Telemetry,
    sampling: Sampling,
    metrics: Metrics,
    *,
    pseudonym_key: bytes | None,
    callbacks: tuple[tuple[str, object], ...],
) -> tuple[Sink, ...]:
    """Open them all; each has a thread of its own. ``callbacks`` have their names with them."""
    sinks: list[Sink] = []
    if settings.jsonl.enabled:
        lines = settings.jsonl
        file = LineFile(str(Path(lines.path).expanduser()), lines.max_bytes, lines.keep)
        sinks.append(JsonlSink(file, sampling, pseudonym_key))
    sinks += [
        Courier(to, sampling, partial(metrics.records, to.name))
        for to in _rounds(settings, pseudonym_key)
    ]
    note = partial(metrics.records, "callbacks")
    sinks += [CallbackSink(name, target, note, pseudonym_key) for name, target in callbacks]
    return tuple(sinks)


def _rounds(settings: Telemetry, pseudonym_key: bytes | None) -> list[Round]:
    rounds = []
    if settings.webhook.url:
        rounds.append(webhook(settings.webhook, pseudonym_key))
    if settings.otlp.has_spans:
        rounds.append(traces(settings.otlp, pseudonym_key))
    if settings.otlp.endpoint and "logs" in settings.otlp.signals:
        rounds.append(logs(settings.otlp, pseudonym_key))
    return rounds
