"""Where a count is remembered: the content key, and everything that decides it."""

import hashlib
from collections.abc import Callable
from functools import lru_cache

import msgspec
from msgspec import Struct

from adapters.anthropic import key_credential
from adapters.base import CountRequest, Deployment
from adapters.registry import ADAPTERS, ESTIMATE
from app.auth import Caller
from app.config_sections import Cache
from app.freshness import Lifetime, lifetime
from app.question import Question
from cache.generations import Generations
from cache.key import content_key
from cache.tiers import Record


class Answer(Struct, frozen=True, gc=False):
    """A number, and where it comes from."""

    record: Record
    source: str
    deployment: Deployment
    stored: bool = False
    tier: str = ""
    """Which tier held it: local, host or cluster."""
    place: "Place | None" = None
    """Where it is remembered; an estimate is not."""

    @property
    def provider(self) -> str:
        """Name whose number it is: an estimate is nobody's but ours."""
        return ESTIMATE if self.source == ESTIMATE else self.deployment.provider


class Place(Struct, frozen=True, gc=False):
    """Whom a caller asks, and where the answer is remembered."""

    deployment: Deployment
    own: bytes | None
    """Digest of the caller's own credential, where that is used."""
    lifetime: Lifetime
    max_age_s: float
    key: bytes
    changes: int
    """Of the generations when the key was composed: after the next change it may be another."""
    generation: int
    """Of the model, as it stands in the key."""
    rekey: Callable[[], bytes]

    def answer(
        self,
        record: Record,
        source: str,
        *,
        stored: bool = False,
        tier: str = "",
        deployment: Deployment | None = None,
    ) -> Answer:
        """Answer with a record; ``deployment`` is who gave it, where one of a pool was asked."""
        return Answer(record, source, deployment or self.deployment, stored, tier, self)


class Keys:
    """Composes keys: what is hashed is what is sent, and by whom only where that matters."""

    def __init__(self, secret: bytes, cache: Cache, generations: Generations) -> None:
        self._secret = secret
        self._cache = cache
        self._generations = generations

    def place(self, question: Question, caller: Caller, deployment: Deployment) -> Place:
        """Say whom this caller asks here, and where the answer is remembered."""
        deployment, own = _with_credential(question, deployment)
        lives = lifetime(self._cache, deployment)
        asked_s = question.freshness.max_age_s
        # Never the caller, unless configured so.
        by_caller = caller.name.encode() if self._cache.scope == "caller" else b""
        scope = b"%b\0%b" % (by_caller, own or b"")

        def compose() -> bytes:
            return self._key(question.request, deployment, scope)

        return Place(
            deployment=deployment,
            own=own,
            lifetime=lives,
            max_age_s=lives.fresh_s if asked_s is None else min(asked_s, lives.fresh_s),
            changes=self._generations.changes,
            generation=self._generations.of(deployment.endpoint.upstream_model),
            key=compose(),
            rekey=compose,
        )

    def still_holds(self, place: Place) -> bool:
        """Say whether the key would be composed in the same way now."""
        return place.changes == self._generations.changes

    def _key(self, request: CountRequest, deployment: Deployment, scope: bytes) -> bytes:
        """Compose the content key: everything that decides the number, and nothing else."""
        endpoint = deployment.endpoint
        parts = (
            *_counter(deployment.provider, endpoint.scope, endpoint.upstream_model),
            self._generations.of(endpoint.upstream_model).to_bytes(8),
            request.version.encode(),
            ",".join(request.betas).encode(),
            "\0".join(f"{name}={value}" for name, value in request.identity).encode(),
            request.query.encode(),
            b"stated" if endpoint.count_from_too_long else b"",
            scope,
            request.body,
        )
        return content_key(self._secret, parts)


@lru_cache(1024)
def _counter(provider: str, scope: tuple[str, ...], upstream_model: str) -> tuple[bytes, ...]:
    """Say who counts, in parts of a key."""
    wire = ADAPTERS[provider].WIRE_VERSION.to_bytes(4)
    return provider.encode(), wire, "\0".join(scope).encode(), upstream_model.encode()


def _with_credential(question: Question, deployment: Deployment) -> tuple[Deployment, bytes | None]:
    """Ask as the caller where its own credential may be used, and say under which digest."""
    own = question.own_credential
    if own is None or deployment.provider != "anthropic":
        return deployment, None
    if not question.native and deployment.endpoint.credential is not None:
        return deployment, None
    # Its own key is all that the caller supplies: an address that is not set stays missing.
    missing = deployment.endpoint.missing
    if deployment.endpoint.credential is None:
        missing = missing[:-1]
    endpoint = msgspec.structs.replace(
        deployment.endpoint, credential=key_credential(own), missing=missing
    )
    digest = hashlib.sha256(own.reveal().encode()).digest()
    return msgspec.structs.replace(deployment, endpoint=endpoint), digest
