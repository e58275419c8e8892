"""What is told about a count: one event, handed to every sink after the answer is formed."""

from app.telemetry.event import CountEvent, Sink, Telemetry, plain_text, told_again

__all__ = ["CountEvent", "Sink", "Telemetry", "plain_text", "told_again"]
