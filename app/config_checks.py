"""What a section's types cannot check: paths, addresses, headers, and what LiteLLM calls a cluster.

Each raises ConfigError with the line, the key and the remedy; none quotes a value.
"""

import re
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from adapters.base import Secret
from app.config_callbacks import is_import_path
from app.config_sections import MAX_TTL_S, Cache, Cluster, Telemetry
from app.config_source import KeyPath, Source
from cache.cluster_url import check_namespace, parse, url_from

_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_is_field_value = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?").fullmatch
_FRAMING = {"host", "connection", "content-length", "transfer-encoding", "expect", "upgrade"}
_is_host = re.compile(r"[A-Za-z0-9._:\-]+").fullmatch


def check_paths(source: Source, cache: Cache, telemetry: Telemetry) -> None:
    """Refuse a path that can never be a file's, rather than end in every worker."""
    _check_path(source, ("cache", "host", "path"), cache.host.path)
    _check_path(source, ("telemetry", "usage", "path"), telemetry.usage.path)
    _check_path(source, ("telemetry", "jsonl", "path"), telemetry.jsonl.path)


def _check_path(source: Source, at: KeyPath, given: str | None) -> None:
    if given is None:
        return
    try:
        path = Path(given).expanduser()
    except RuntimeError as error:
        raise source.error(at, str(error)) from None
    if not given.strip() or not path.name or "\0" in given:
        raise source.error(at, "must name a file")


def check_receivers(source: Source, telemetry: Telemetry) -> None:
    """Refuse what can never be posted to or signed with."""
    webhook, endpoint = telemetry.webhook, telemetry.otlp.endpoint
    addresses = {
        ("webhook", "url"): webhook.url.reveal() if webhook.url else None,
        ("otlp", "endpoint"): endpoint.reveal() if endpoint else None,
    }
    for path, address in addresses.items():
        if address and not _is_address(address):
            raise source.error(("telemetry", *path), "must be an http or https URL")
    if urlsplit(addresses["otlp", "endpoint"] or "").query:
        raise source.error(("telemetry", "otlp", "endpoint"), "must have no query")
    _check_headers(source, "otlp", telemetry.otlp.headers)
    _check_headers(source, "webhook", webhook.headers)
    for index, path_ in enumerate(telemetry.callbacks):
        if not is_import_path(path_):
            message = "must be an import path: my_module.MyLogger"
            raise source.error(("telemetry", "callbacks", index), message)
    try:
        webhook.signing_key()
    except ValueError as error:
        raise source.error(("telemetry", "webhook", "secret"), str(error)) from None


def _check_headers(source: Source, section: str, headers: dict[str, Secret]) -> None:
    for name, value in headers.items():
        at: KeyPath = ("telemetry", section, "headers", name)
        if not _is_token(name) or not _is_field_value(value.reveal()):
            raise source.error(at, "must be a header's name, and printable ASCII: no line end")
        if name.lower() in _FRAMING:
            message = "must be left to this server, which says where a request ends"
            raise source.error(at, message)


def with_cluster(source: Source, cache: Cache, notices: list[str]) -> Cache:
    """Check ``cache.cluster``; without a URL there, LiteLLM's ``cache_params`` name the server."""
    litellm = source.data.get("litellm_settings") or {}
    path: KeyPath = ("litellm_settings", "cache_params")
    params = source.resolve(litellm.get("cache_params") or {}, path)
    own = cache.cluster
    try:
        check_namespace(own.namespace)
        if own.url is not None:
            parse(own.url.reveal())
    except ValueError as error:
        raise source.error(("cache", "cluster"), str(error)) from None
    if not params:
        return cache
    if own.url is not None or not litellm.get("cache"):
        why = "cache.cluster.url is set" if own.url is not None else "cache is not true beside it"
        notices.append(f"litellm_settings.cache_params is not used: {why}")
        return cache
    if not isinstance(params, dict):
        raise source.error(path, "must be a mapping")
    try:
        found = url_from(params)
    except ValueError as error:
        raise source.error(path, str(error)) from None
    if found is None:
        return cache
    url, namespace, ttl_s = found
    given = source.data.get("cache") or {}
    if ttl_s is not None and "ttl_s" not in given:
        cache = msgspec.structs.replace(cache, ttl_s=min(ttl_s, MAX_TTL_S))
    if "namespace" in (given.get("cluster") or {}):
        namespace = own.namespace
    notices.append("litellm_settings.cache_params is read as cache.cluster")
    return msgspec.structs.replace(cache, cluster=Cluster(Secret(url), namespace))


def _is_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return False
    plain = address.isascii() and address.isprintable() and " " not in address
    is_http = parts.scheme in {"http", "https"} and port != 0
    return plain and is_http and bool(_is_host(parts.hostname or ""))
