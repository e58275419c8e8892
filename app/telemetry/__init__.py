"""What is told about a count: one event, handed to every sink after the answer is formed."""

from app.telemetry.event import CountEvent, plain_text
from app.telemetry.sinks import Sampling, Sink, Telemetry
from app.telemetry.trace import trace_of

__all__ = ["CountEvent", "Sampling", "Sink", "Telemetry", "plain_text", "trace_of"]
