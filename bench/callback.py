"""What the proxy calls with each record, where all its sinks are measured."""

from typing import Any


class Callback:
    """Takes what it is told, as an operator's own logger would."""

    def log_success_event(self, kwargs: Any, response_obj: Any, start: Any, end: Any) -> None:
        """Hear of a count."""
