"""The model of a fleet: what share of the questions its tiers answer, and what is left to ask.

Questions come independently of each other, the n-th most frequent n^-s as often as the first; a
load balancer deals them evenly over hosts, and a host over its workers. All figures are of the
steady state.

* A count is fresh for ``ttl_s`` from when it was asked, whichever tier holds it.
* A worker's tier drops what was used least recently (Che's approximation: it keeps a record for the
  same time after each use), the host's file what was written first.
* The shared tier keeps everything until it is no longer fresh.
* Equal questions at the same moment are one call.
* What only a worker's memory still knows, when its host's file has forgotten it, is left out: there
  the model promises less than there is.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

from msgspec import Struct

LOCAL_ENTRIES = 75_000
"""What two thirds of 64 MiB hold, at 580 bytes each."""
HOST_ENTRIES = 5_000_000
"""What 1 GiB holds, at 183 bytes each; a little less, since rows come and go."""
OWN_US, TIER_US, CALL_US = 30, 250, 800
"""Processor time of a worker for an answer from its own memory, from another tier, from a provider:
`zipf`, `host-file` and `miss` of docs/scale.md, a little more than was measured."""
SINGLE_RANKS, BIN = 1_000, 1.02
"""So many ranks one by one; behind them ranks that differ by at most 2 % are one bin."""
_STEPS = 200


class Fleet(Struct, frozen=True, kw_only=True):
    """Hosts behind a load balancer, and what is asked of all of them together."""

    hosts: int
    rate: float
    """Questions per second in all."""
    catalogue: int
    """How many different questions there are."""
    s: float
    ttl_s: float
    is_shared: bool
    """With a Redis for all hosts."""
    workers: int = 8
    """Of each host."""
    local_entries: int = LOCAL_ENTRIES
    host_entries: int = HOST_ENTRIES


class Flow(Struct, frozen=True):
    """What becomes of the questions, per second in all."""

    hit_share: float
    """Of all questions, those for which nobody is asked."""
    local_share: float
    """Of all questions, those that the worker's own memory answers."""
    upstream_per_s: float
    redis_per_s: float
    """Look-ups and landings, one script each."""
    fresh: float
    """Different questions whose count is fresh somewhere: what Redis holds."""
    cores_of_host: float
    """How many workers of each host all this keeps busy."""


def flow(fleet: Fleet) -> Flow:
    """Work out a fleet."""
    asked = [(many, share * fleet.rate) for many, share in popularity(fleet.catalogue, fleet.s)]
    kept_s = _host_kept_s(fleet, asked)
    local_s = _local_kept_s(fleet, asked)
    upstream = redis = local = fresh = 0.0
    for many, rate in asked:
        calls = _calls(rate, fleet, kept_s)
        upstream += many * calls
        of_worker = rate / (fleet.hosts * fleet.workers)
        local += many * rate * _lru_hit_share(of_worker, local_s, fleet.ttl_s)
        fresh += many * rate * fleet.ttl_s / (1 + rate * fleet.ttl_s)
        if fleet.is_shared:
            redis += many * (_look_ups(rate, fleet, kept_s) + calls)
    local = min(local, fleet.rate - upstream)
    busy_us = local * OWN_US + (fleet.rate - upstream - local) * TIER_US + upstream * CALL_US
    return Flow(
        hit_share=1 - upstream / fleet.rate,
        local_share=local / fleet.rate,
        upstream_per_s=upstream,
        redis_per_s=redis,
        fresh=fresh,
        cores_of_host=busy_us / 1e6 / fleet.hosts,
    )


@lru_cache(maxsize=32)
def popularity(catalogue: int, s: float) -> tuple[tuple[int, float], ...]:
    """The share of each question of a bin, and how many the bin has; all shares add up to one."""
    weights = [(last - first + 1, _mean(first, last, s)) for first, last in _bins(catalogue)]
    whole = sum(many * weight for many, weight in weights)
    return tuple((many, weight / whole) for many, weight in weights)


def _bins(catalogue: int) -> Iterator[tuple[int, int]]:
    first = 1
    while first <= catalogue:
        last = first if first <= SINGLE_RANKS else min(catalogue, int(first * BIN))
        yield first, last
        first = last + 1


def _mean(first: int, last: int, s: float) -> float:
    """Of n^-s from the first to the last rank: the middle of each step is its sum's best guess."""
    if first == last:
        return float(first**-s)
    low, high = first - 0.5, last + 0.5
    if s == 1:
        return math.log(high / low) / (last - first + 1)
    return float((high ** (1 - s) - low ** (1 - s)) / (1 - s) / (last - first + 1))


def _calls(rate: float, fleet: Fleet, kept_s: float) -> float:
    """To the provider, about one question: one, then none while anybody has a fresh count."""
    if fleet.is_shared:
        return rate / (1 + rate * fleet.ttl_s)
    return rate / (1 + rate / fleet.hosts * min(kept_s, fleet.ttl_s))


def _look_ups(rate: float, fleet: Fleet, kept_s: float) -> float:
    """In Redis: by who is first, and once by each other host that is asked while it is fresh."""
    of_host = rate / fleet.hosts
    in_a_lifetime = 1 - (fleet.hosts - 1) * math.expm1(-of_host * fleet.ttl_s)
    if kept_s < fleet.ttl_s:  # a host forgets meanwhile, and looks again
        again = fleet.hosts * of_host * fleet.ttl_s / (1 + of_host * kept_s)
        in_a_lifetime = max(in_a_lifetime, again)
    return in_a_lifetime * rate / (1 + rate * fleet.ttl_s)


def _host_kept_s(fleet: Fleet, asked: list[tuple[int, float]]) -> float:
    """How long a host's file keeps what was written: until as much as it holds was written."""

    def held(kept_s: float) -> float:
        found = 0.0
        for many, rate in asked:
            of_host = rate / fleet.hosts
            fresh_s = min(kept_s, fleet.ttl_s)
            late_s = -math.expm1(-of_host * (kept_s - fresh_s)) / of_host
            found += many * (fresh_s + late_s) / (fresh_s + 1 / of_host)
        return found

    return _time_to_hold(fleet.host_entries, fleet.catalogue, held)


def _local_kept_s(fleet: Fleet, asked: list[tuple[int, float]]) -> float:
    """How long after its last use a worker's memory keeps a record: Che's characteristic time."""
    whole = fleet.hosts * fleet.workers

    def held(kept_s: float) -> float:
        return sum(-many * math.expm1(-rate / whole * kept_s) for many, rate in asked)

    return _time_to_hold(fleet.local_entries, fleet.catalogue, held)


def _time_to_hold(entries: int, catalogue: int, held: Callable[[float], float]) -> float:
    if catalogue <= entries:
        return math.inf
    low, high = 1e-9, 1e15
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if held(middle) < entries else (low, middle)
        if high / low < 1.0001:
            break
    return low


def _lru_hit_share(rate: float, kept_s: float, ttl_s: float) -> float:
    """Of questions that find their record, used at most ``kept_s`` ago and still fresh.

    Exact where only one of the two ends a record. Where both do, the time until a pause of
    ``kept_s`` comes is taken for exponential.
    """
    hits = rate * min(kept_s, ttl_s)
    if kept_s < ttl_s and (expected := rate * kept_s) < 500:
        mean_s = math.expm1(expected) / rate - kept_s
        if mean_s > 0:
            hits += rate * mean_s * -math.expm1(-(ttl_s - kept_s) / mean_s)
    elif kept_s < ttl_s:
        hits = rate * ttl_s
    return hits / (1 + hits)
