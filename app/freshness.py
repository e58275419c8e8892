"""How old a count may be: what the client's cache-control asks, what the configuration allows."""

import re

from msgspec import Struct

from adapters.base import Deployment
from app.config_sections import Cache

MOVING = tuple(f"{mark}{name}" for mark in "-@" for name in ("latest", "default", "preview"))
_MAX_AGE = re.compile(r'max-age="?(\d{1,10})"?')


class Freshness(Struct, frozen=True):
    """The client's ``cache-control``: how old an answer may be, and whether to remember it."""

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age_s: float | None = None

    @property
    def takes_stale(self) -> bool:
        """Say whether the last known count may stand in when the provider fails."""
        return not self.no_cache and self.max_age_s is None


class Lifetime(Struct, frozen=True):
    """How long a deployment's count is fresh, and until when it may still stand in as stale."""

    fresh_s: float
    keep_s: float


ANY = Freshness()


def freshness(cache_control: str | None) -> Freshness:
    """Read the four directives of RFC 9111 that a count can obey; others are no error."""
    if not cache_control:
        return ANY
    given = {directive.strip().lower() for directive in cache_control.split(",")}
    ages = [float(found[1]) for one in given if (found := _MAX_AGE.fullmatch(one))]
    return Freshness(
        # A maximum of no seconds asks for what no-cache asks for.
        no_cache="no-cache" in given or 0.0 in ages,
        no_store="no-store" in given,
        only_if_cached="only-if-cached" in given,
        max_age_s=min(ages, default=None),
    )


def lifetime(cache: Cache, deployment: Deployment) -> Lifetime:
    """A name that moves from model to model is remembered for a short time only."""
    moves = deployment.endpoint.upstream_model.endswith(MOVING)
    fresh_s = cache.alias_ttl_s if moves else cache.ttl_s
    if deployment.cache_ttl_s is not None:
        fresh_s = deployment.cache_ttl_s
    stale_s = min(cache.stale_if_error_s, cache.alias_stale_if_error_s if moves else float("inf"))
    return Lifetime(fresh_s, fresh_s + stale_s if fresh_s > 0 else 0.0)
