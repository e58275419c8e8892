"""Each model's generation: part of every key, so that raising it forgets all counts of a model.

    purge, or a recount that differs ── raise ──► host file, cluster ── watched ──► every worker

A worker that has not heard yet reads and writes under the old keys for at most a second, and what
it writes there is never found again.
"""

from collections.abc import Callable, Mapping

AHEAD_S = 86_400
MAX_MODELS = 10_000


def latest_generation(now_s: float) -> int:
    """Give the greatest generation that is believed: a day ahead, for clocks that differ."""
    return int((now_s + AHEAD_S) * 1000)


def is_generation(value: object, now_s: float) -> bool:
    """Judge what stands in a shared tier, where others may have written."""
    return type(value) is int and 0 < value <= latest_generation(now_s)


class Generations:
    """Milliseconds since 1970 at which a model's counts began to hold; 0 where never raised.

    They only grow: of two that differ the greater is right, whoever says it.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._known: dict[str, int] = {}
        self.changes = 0
        """Grows with every change: what was prepared before is to be prepared anew."""

    def of(self, model: str) -> int:
        """Return the generation that counts of ``model`` belong to now."""
        return self._known.get(model, 0)

    def advance(self, model: str) -> int:
        """Begin a new generation, and return it."""
        generation = max(self.of(model) + 1, int(self._wall_clock() * 1000))
        self._known[model] = generation
        self.changes += 1
        return generation

    def merge(self, heard: Mapping[str, int]) -> None:
        """Take over what is greater than what is known here, and not further ahead than a day.

        Whoever can write into a shared tier could otherwise end the line of generations.
        """
        now_s = self._wall_clock()
        newer = {
            name: value
            for name, value in heard.items()
            if self.of(name) < value
            and is_generation(value, now_s)
            and (name in self._known or len(self._known) < MAX_MODELS)
        }
        if newer:
            self._known.update(newer)
            self.changes += 1

    def ahead_of(self, others: Mapping[str, int]) -> dict[str, int]:
        """List what is known here and not there; what nobody believes does not stand there."""
        now_s = self._wall_clock()
        return {
            name: value
            for name, value in self._known.items()
            if value > others.get(name, 0) or not is_generation(others.get(name), now_s)
        }
