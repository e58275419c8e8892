"""``model_list`` and ``router_settings``: LiteLLM's entries → deployments in the file's order."""

import re
from typing import Any, get_type_hints

import msgspec
from msgspec import Struct

from adapters._address import base_fault
from adapters.base import Deployment, Endpoint, Params, Secret
from adapters.registry import ADAPTERS, ESTIMATE, provider_of
from app.config_callbacks import PLACES
from app.config_source import KeyPath, Source, shown_variable, variable

_SECRETS = frozenset(
    name for name, type_ in get_type_hints(Params).items() if type_ == Secret | None
)
_FLAGS = frozenset(name for name, type_ in get_type_hints(Params).items() if type_ is bool)
_PARAMS = frozenset(get_type_hints(Params)) - {"model", "unset", "emptied"}
_OWN_PARAMS = frozenset(
    {"model", "custom_llm_provider", "timeout", "rpm", "weight", "cache_ttl_s", "fallback"}
)
_SPELLINGS = {
    "vertex_ai_project": "vertex_project",
    "vertex_ai_location": "vertex_location",
    "vertex_ai_credentials": "vertex_credentials",
}

DEFAULT_TIMEOUT_S = 30.0
_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")


class Models(Struct, frozen=True):
    """Every deployment, in the order of the file, and other names for their aliases."""

    deployments: tuple[Deployment, ...]
    aliases: dict[str, str] = {}


def read_models(source: Source, notices: list[str]) -> Models:
    """Resolve ``model_list``. Raises ConfigError; appends what is not used to ``notices``."""
    entries = source.data.get("model_list")
    if not isinstance(entries, list) or not entries:
        raise source.error(("model_list",), "must be a list with at least one model")
    timeout_s = _default_timeout_s(source, notices)
    deployments = tuple(
        _deployment(source, entry, ("model_list", index), timeout_s, notices)
        for index, entry in enumerate(entries)
    )
    return Models(deployments, _aliases(source, {one.alias for one in deployments}, notices))


def _default_timeout_s(source: Source, notices: list[str]) -> float:
    """Read ``litellm_settings.request_timeout``, which holds where an entry has no timeout."""
    litellm = source.data.get("litellm_settings") or {}
    if not isinstance(litellm, dict):
        raise source.error(("litellm_settings",), "must be a mapping")
    used = {"request_timeout", "cache", "cache_params", *PLACES}
    notices += [f"litellm_settings.{name} is not used" for name in litellm if name not in used]
    path: KeyPath = ("litellm_settings",)
    return _number(source, litellm, "request_timeout", path) or DEFAULT_TIMEOUT_S


def _deployment(
    source: Source, entry: Any, path: KeyPath, timeout_s: float, notices: list[str]
) -> Deployment:
    if not isinstance(entry, dict):
        raise source.error(path, "must be a mapping with model_name and litellm_params")
    alias = _text(source, entry, "model_name", path)
    given = entry.get("litellm_params")
    inner = (*path, "litellm_params")
    if not isinstance(given, dict):
        raise source.error(inner, "must be a mapping with at least a model")
    given = {_SPELLINGS.get(name, name): value for name, value in given.items()}
    notices += [
        f"model_list[{path[1]}].litellm_params.{name} is not used"
        for name in given
        if name not in _PARAMS | _OWN_PARAMS
    ]
    prefix, model = _provider_and_model(source, given, inner)
    provider, endpoint = _endpoint(source, given, prefix, model, inner)
    return Deployment(
        name=f"{alias}[{path[1]}]",
        alias=alias,
        provider=provider,
        endpoint=endpoint,
        timeout_s=_number(source, given, "timeout", inner) or timeout_s,
        rpm=_number(source, given, "rpm", inner),
        weight=_number(source, given, "weight", inner) or 1.0,
        cache_ttl_s=_number(source, given, "cache_ttl_s", inner),
        fallback_estimate=_fallback(source, given, inner),
    )


def _endpoint(
    source: Source, given: dict[str, Any], prefix: str, model: str, path: KeyPath
) -> tuple[str, Endpoint]:
    if prefix == ESTIMATE:
        return ESTIMATE, Endpoint(upstream_model=model, base_url="")
    provider = provider_of(prefix, model)
    if provider is None:
        known = ", ".join((*ADAPTERS, ESTIMATE))
        wanted = f"{prefix}/{model}" if prefix else model
        raise source.error((*path, "model"), f"no provider counts for {wanted}; known: {known}")
    try:
        params = _params(source, given, model, path)
        return provider, ADAPTERS[provider].endpoint(params, source.environ)
    except ValueError as error:
        raise source.error(path, str(error)) from None


def _provider_and_model(source: Source, given: dict[str, Any], path: KeyPath) -> tuple[str, str]:
    """Split ``anthropic/claude-…`` as LiteLLM does: the provider stands before the first slash."""
    model = _text(source, given, "model", path)
    provider = given.get("custom_llm_provider")
    if provider is not None:
        provider = _text(source, given, "custom_llm_provider", path)
        return provider, model.removeprefix(f"{provider}/")
    prefix, slash, rest = model.partition("/")
    return (prefix, rest) if slash and rest else ("", model)


def _params(source: Source, given: dict[str, Any], model: str, path: KeyPath) -> Params:
    values: dict[str, Any] = {}
    unset: dict[str, str] = {}
    for name in _PARAMS & given.keys():
        value = given[name]
        wanted = variable(value)
        if wanted is not None:
            value = source.environ.get(wanted)
            if not value:
                unset[name] = shown_variable(wanted)
        if value in (None, ""):
            continue
        values[name] = _param(source, name, value, (*path, name))
    if (base := values.get("api_base")) and (fault := base_fault(base)):
        raise source.error((*path, "api_base"), fault)
    emptied = tuple(name for name in _PARAMS & given.keys() if given[name] == "")
    return Params(model=model, unset=unset, emptied=emptied, **values)


def _param(source: Source, name: str, value: Any, path: KeyPath) -> str | bool | Secret:
    """Check one parameter. A credential in a mounted file often ends with a line feed."""
    if name in _FLAGS:
        if str(value).lower() not in {"true", "false"}:
            raise source.error(path, "must be true or false")
        return str(value).lower() == "true"
    if isinstance(value, dict) and name == "vertex_credentials":
        value = msgspec.json.encode(value).decode()
    if not isinstance(value, str):
        raise source.error(path, "must be a string or os.environ/NAME")
    if name not in _SECRETS:
        return value
    if name != "vertex_credentials" and not _HEADER_SAFE.fullmatch(value := value.strip()):
        raise source.error(path, "must hold visible ASCII characters only")
    return Secret(value)


def _aliases(source: Source, names: set[str], notices: list[str]) -> dict[str, str]:
    router = source.data.get("router_settings") or {}
    if not isinstance(router, dict):
        raise source.error(("router_settings",), "must be a mapping")
    notices += [
        f"router_settings.{name} is not used" for name in router if name != "model_group_alias"
    ]
    given = router.get("model_group_alias") or {}
    if not isinstance(given, dict):
        raise source.error(("router_settings", "model_group_alias"), "must be a mapping")
    found: dict[str, str] = {}
    for alias, target in given.items():
        path: KeyPath = ("router_settings", "model_group_alias", alias)
        # LiteLLM takes a name, or {model: name, hidden: bool} (1.109.1).
        group = target.get("model") if isinstance(target, dict) else target
        if not isinstance(group, str) or group not in names or "*" in group:
            raise source.error(path, "must name a model_name of model_list, and no wildcard")
        found[str(alias)] = group
    return found


def _text(source: Source, mapping: dict[str, Any], name: str, path: KeyPath) -> str:
    value = source.resolve(mapping.get(name), (*path, name))
    if not isinstance(value, str) or not value.strip():
        raise source.error((*path, name), "must be a non-empty string")
    if not value.isprintable():
        raise source.error((*path, name), "must hold printable characters only")
    return value


def _number(source: Source, mapping: dict[str, Any], name: str, path: KeyPath) -> float | None:
    value = source.resolve(mapping.get(name), (*path, name))
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = 0.0
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise source.error((*path, name), "must be a number above 0")
    return number


def _fallback(source: Source, given: dict[str, Any], path: KeyPath) -> bool:
    value = given.get("fallback")
    if value not in (None, ESTIMATE):
        raise source.error((*path, "fallback"), f"the only fallback is {ESTIMATE}")
    return value is not None
