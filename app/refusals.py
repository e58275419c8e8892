"""Which counters do not count which models: the only errors that are remembered."""

from collections.abc import Callable

import msgspec

from adapters.base import Deployment, UpstreamError

ALTERNATE_S = 3600.0
"""Where an alternate answers, asking the first one again is only a wasted call."""
MAX_REFUSALS = 1024


class Refusals:
    """Refusals to count a model at all, per deployment and model: a bounded number of them."""

    def __init__(self, lasts_s: float, clock: Callable[[], float]) -> None:
        self._lasts_s = lasts_s
        self._clock = clock
        self._held: dict[tuple[str, str, str], tuple[float, UpstreamError]] = {}

    def get(self, deployment: Deployment) -> UpstreamError | None:
        """Return how this counter has refused this model lately."""
        until_s, error = self._held.get(_place(deployment), (0.0, None))
        return error if until_s > self._clock() else None

    def add(self, deployment: Deployment, error: UpstreamError) -> None:
        """Remember a refusal; the oldest makes room."""
        lasts_s = ALTERNATE_S if deployment.endpoint.alternate else self._lasts_s
        place = _place(deployment)
        self._held.pop(place, None)
        if len(self._held) >= MAX_REFUSALS:
            del self._held[next(iter(self._held))]
        # Others will hear of it: nothing of the reply that only its own caller may see.
        error = msgspec.structs.replace(error, headers=(), upstream_request_id="")
        self._held[place] = (self._clock() + lasts_s, error)


def _place(deployment: Deployment) -> tuple[str, str, str]:
    endpoint = deployment.endpoint
    return deployment.name, deployment.provider, endpoint.upstream_model
