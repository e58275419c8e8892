"""Model name → the deployments that answer for it, in the order they are asked."""

import re
from collections.abc import Iterable
from functools import lru_cache

import msgspec
from msgspec import Struct

from adapters.base import Deployment, Endpoint
from adapters.registry import provider_of
from app.config_models import Models

# What a name that only a wildcard knows may look like: it goes into upstream bodies and paths.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,255}")


class Pool(Struct, frozen=True):
    """Entries with the same counter: whoever answers, the number is the same.

    They differ in credentials, and in regions and addresses that do not decide the number.
    """

    members: tuple[Deployment, ...]
    first: Deployment
    """The entry that speaks for all where they are alike, and whose deadline holds."""
    equipped: tuple[Deployment, ...]
    """Those that nothing is missing for: they may be asked."""

    @classmethod
    def of(cls, *members: Deployment) -> "Pool":
        """Put entries together, one at least."""
        equipped = tuple(one for one in members if not one.endpoint.missing)
        return cls(members, members[0], equipped)

    @property
    def alternate(self) -> "Pool | None":
        """The same entries at their endpoints' alternates; a wildcard's model goes along."""
        members: list[Deployment] = []
        for one in self.members:
            other = one.endpoint.alternate
            if other is None:
                return None
            members.append(
                msgspec.structs.replace(
                    _ask_for(one, one.endpoint.upstream_model, other.endpoint),
                    provider=other.provider,
                )
            )
        return Pool.of(*members)

    def holds(self, deployment: Deployment) -> bool:
        """Say whether an entry is one of these; a caller's own credential makes no other entry."""
        return any(one.name == deployment.name for one in self.members)


class Route(Struct, frozen=True):
    """Where a model name leads. A caller's key must allow one of ``names``."""

    alias: str
    names: tuple[str, ...]
    pools: tuple[Pool, ...]
    """In the order in which they are asked, the next only when the one before has failed."""


def pooled(deployments: Iterable[Deployment]) -> tuple[Pool, ...]:
    """Put entries of one name with the same counter together, where the first of them stands.

    Of several names, as a native id may lead to, each stays by itself: what is allowed and limited
    for one name is not for another.
    """
    pools: dict[object, list[Deployment]] = {}
    for one in deployments:
        pools.setdefault((one.alias, one.counter), []).append(one)
    return tuple(Pool.of(*members) for members in pools.values())


class Router:
    """Exact names first, then ``model_group_alias``, then the most specific wildcard."""

    def __init__(self, models: Models) -> None:
        self._exact: dict[str, tuple[Deployment, ...]] = {}
        self._wildcards: dict[str, tuple[Deployment, ...]] = {}
        for deployment in models.deployments:
            table = self._wildcards if "*" in deployment.alias else self._exact
            table[deployment.alias] = (*table.get(deployment.alias, ()), deployment)
        self._all = tuple(d for d in models.deployments if "*" not in d.alias)
        self._group_aliases = models.aliases
        self._anthropic = tuple(d for d in models.deployments if d.provider == "anthropic")
        self.resolve = lru_cache(maxsize=4096)(self._resolve)
        self.resolve_native = lru_cache(maxsize=4096)(self._resolve_native)

    def _resolve(self, model: str) -> Route | None:
        """Find the route of a name that a client gave, or None."""
        if found := self._exact.get(model):
            return Route(model, (model,), pooled(found))
        if target := self._group_aliases.get(model):
            found = self._exact[target]
            return Route(model, (model, target), pooled(found))
        if not _PLAIN.fullmatch(model):
            return None
        # LiteLLM finds a bare id under `anthropic/*` too: it infers the provider (1.109.1).
        inferred = f"{provider_of('', model)}/{model}"
        for pattern in sorted(self._wildcards, key=len, reverse=True):
            for name in (model, inferred):
                if (part := _matched(pattern, name)) is not None:
                    found = tuple(_fill(one, part) for one in self._wildcards[pattern])
                    return Route(pattern, (model, pattern), pooled(found))
        # LiteLLM's own quick start asks by the upstream id of an entry with another name.
        if same := tuple(d for d in self._all if d.endpoint.upstream_model == model):
            alias = same[0].alias
            return Route(alias, (model, alias), pooled(self._exact[alias]))
        return None

    def _resolve_native(self, model: str) -> Route | None:
        """Find who answers for one of Anthropic's own model ids on the pass-through.

        The deployments whose upstream model it is, else the first Anthropic deployment, asked for
        this id instead of its own.
        """
        if not _PLAIN.fullmatch(model) or not self._anthropic:
            return None
        same = tuple(d for d in self._anthropic if d.endpoint.upstream_model == model)
        names = (model, f"anthropic/{model}", *(d.alias for d in same))
        found = same or (_ask_for(self._anthropic[0], model),)
        return Route(found[0].alias, names, pooled(found))

    def names(self) -> Iterable[str]:
        """List every name a client may use, wildcards as they stand in the file."""
        return dict.fromkeys((*self._exact, *self._group_aliases, *self._wildcards))


def _matched(pattern: str, name: str) -> str | None:
    """Return what ``*`` stands for when the name fits the pattern."""
    before, _, after = pattern.partition("*")
    if len(name) > len(before) + len(after) and name.startswith(before) and name.endswith(after):
        return name[len(before) : len(name) - len(after)]
    return None


def _fill(deployment: Deployment, part: str) -> Deployment:
    upstream_model = deployment.endpoint.upstream_model.replace("*", part, 1)
    return _ask_for(deployment, upstream_model)


def _ask_for(
    deployment: Deployment, upstream_model: str, endpoint: Endpoint | None = None
) -> Deployment:
    """Ask an entry for a model, at its own endpoint or at another one."""
    at = deployment.endpoint if endpoint is None else endpoint
    endpoint = msgspec.structs.replace(at, upstream_model=upstream_model)
    return msgspec.structs.replace(deployment, endpoint=endpoint)
