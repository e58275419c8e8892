"""config.yaml → frozen, typed settings: LiteLLM's keys with LiteLLM's meaning, and our own.

An unknown key in a section of our own is an error that names the nearest known one; a LiteLLM key
that is not used is named once at the start.
"""

import difflib
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import Struct

from adapters.base import Secret
from app.config_callbacks import with_callbacks
from app.config_checks import check_paths, check_receivers, with_cluster
from app.config_models import Models, read_models
from app.config_sections import (
    Cache,
    CallerKey,
    KeyEntry,
    Limits,
    PassThrough,
    Server,
    Telemetry,
)
from app.config_source import ConfigError, KeyPath, Source, read
from app.telemetry.imported import CallbackImportError, import_all
from cache.key import derive_secret

__all__ = ["ConfigError", "Settings", "load"]

WEAK_KEYS = frozenset({"sk-1234"})
"""Keys that stand in public documentation, and so are known to everybody."""


MAX_NAME_BYTES = 96
"""Of a key's name: so long it is kept whole wherever callers are told apart by it."""


class Settings(Struct, frozen=True):
    """The whole configuration, checked."""

    source: str
    server: Server
    cache: Cache
    limits: Limits
    telemetry: Telemetry
    pass_through: PassThrough
    keys: tuple[CallerKey, ...]
    master_key: Secret | None
    weak_key: str | None
    """Why the server may listen on loopback only, or None."""
    models: Models
    end_user_headers: tuple[str, ...]
    notices: tuple[str, ...]

    def secret(self, purpose: str) -> bytes:
        """Derive the secret of one purpose; no two purposes share one.

        From ``cache.key_secret``, else from the master key, else from nothing.
        """
        source = self.cache.key_secret or self.master_key
        return derive_secret(source.reveal() if source else None, purpose)

    def callbacks(self) -> tuple[tuple[str, object], ...]:
        """Import what is to be called, and name it. Raises ConfigError."""
        try:
            return import_all(self.telemetry.callbacks, Path(self.source).absolute().parent)
        except CallbackImportError as error:
            raise ConfigError(f"{self.source}: telemetry.callbacks: {error}") from None


_OWN = {
    "server": Server,
    "cache": Cache,
    "limits": Limits,
    "telemetry": Telemetry,
    "pass_through": PassThrough,
}
_LITELLM = frozenset({"model_list", "general_settings", "router_settings", "litellm_settings"})


def load(path: str | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and check the file at ``path``, ``$TALLYGATE_CONFIG`` or ``./config.yaml``.

    Raises ConfigError.
    """
    source = read(Path(path or environ.get("TALLYGATE_CONFIG") or "config.yaml"), environ)
    known = {*_OWN, "keys", *_LITELLM}
    notices = [
        f"{name} is not used{_nearest(name, known)}" for name in source.data if name not in known
    ]
    own = {
        name: _convert(source, _section(source, name), (name,), type_)
        for name, type_ in _OWN.items()
    }
    general = _general(source, notices)
    master_key = _master_key(source, general)
    keys, weak = _keys(source, master_key)
    models = read_models(source, notices)
    check_paths(source, own["cache"], own["telemetry"])
    own["telemetry"] = with_callbacks(source, own["telemetry"], notices)
    check_receivers(source, own["telemetry"])
    own["cache"] = with_cluster(source, own["cache"], notices)
    return Settings(
        source=source.name,
        keys=keys,
        master_key=Secret(master_key) if master_key else None,
        weak_key=weak,
        models=models,
        end_user_headers=_end_user_headers(source, general),
        notices=tuple(notices),
        **own,
    )


def _section(source: Source, name: str) -> object:
    """Give a section, empty where it is not there; `cache: false` is not the same as none."""
    section = source.data.get(name)
    return {} if section is None else section


def _convert(source: Source, value: object, path: KeyPath, type_: Any) -> Any:
    """Check one section of our own. Raises ConfigError with line, key and remedy."""
    try:
        resolved = source.resolve(value, path)
        return msgspec.convert(resolved, type_, strict=False, dec_hook=_secret)
    except msgspec.ValidationError as error:
        raise _explain(source, path, error, type_) from None


def _secret(type_: Any, value: object) -> Secret:
    """Read a credential; msgspec leaves the one type of ours to us."""
    if type_ is not Secret or not isinstance(value, str) or not value.strip():
        raise ValueError("must be a non-empty string")  # msgspec adds the place
    return Secret(value)


_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_AT = re.compile(r"(.*) - at `\$(.*)`")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


def _explain(
    source: Source, path: KeyPath, error: msgspec.ValidationError, type_: Any
) -> ConfigError:
    text = str(error)
    if at := _AT.fullmatch(text):
        text = at[1]
        steps = [int(step[2]) if step[2] else step[1] for step in _STEP.finditer(at[2])]
        path = (*path, *steps)
    if unknown := _UNKNOWN.fullmatch(text):
        names = _field_names(type_)
        return source.error((*path, unknown[1]), f"unknown key{_nearest(unknown[1], names)}")
    return source.error(path, text[0].lower() + text[1:])


def _field_names(type_: Any) -> set[str]:
    """Collect the key names of a section, and of the sections or entries in it."""
    if not (isinstance(type_, type) and issubclass(type_, Struct)):
        return set().union(*(_field_names(inner) for inner in get_args(type_)))
    return set().union(
        *({field.name} | _field_names(field.type) for field in msgspec.structs.fields(type_))
    )


def _nearest(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(str(name), sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


_GENERAL = frozenset({"master_key", "user_header_name", "user_header_mappings"})


def _general(source: Source, notices: list[str]) -> dict[str, Any]:
    general = source.data.get("general_settings") or {}
    if not isinstance(general, dict):
        raise source.error(("general_settings",), "must be a mapping")
    notices += [f"general_settings.{name} is not used" for name in general if name not in _GENERAL]
    return general


def _end_user_headers(source: Source, general: dict[str, Any]) -> tuple[str, ...]:
    """Read which headers name the end user: mappings for customers, then the older single name."""
    found: list[str] = []
    mappings = general.get("user_header_mappings") or []
    if not isinstance(mappings, dict | list):
        raise source.error(("general_settings", "user_header_mappings"), "must be a list")
    for mapping in [mappings] if isinstance(mappings, dict) else mappings:
        if not isinstance(mapping, dict) or not isinstance(mapping.get("header_name"), str):
            path: KeyPath = ("general_settings", "user_header_mappings")
            raise source.error(path, "must be a list of header_name and litellm_user_role")
        if mapping.get("litellm_user_role", "customer") == "customer":
            found.append(mapping["header_name"].lower())
    if isinstance(name := general.get("user_header_name"), str):
        found.append(name.lower())
    return tuple(found)


def _master_key(source: Source, general: dict[str, Any]) -> str | None:
    path: KeyPath = ("general_settings", "master_key")
    key = source.resolve(general.get("master_key"), path)
    if key is None:
        key = source.environ.get("LITELLM_MASTER_KEY")
    if key is None:
        return None
    if not isinstance(key, str) or not key.strip():
        raise source.error(path, "must be a non-empty string; leave it out to serve without a key")
    return key


def _keys(source: Source, master_key: str | None) -> tuple[tuple[CallerKey, ...], str | None]:
    """Read ``keys:`` beside the master key; say why they are too weak for the network, if so."""
    kept: dict[bytes, CallerKey] = {}
    if master_key:
        digest = sha256(master_key)
        kept[digest] = CallerKey("master", digest, is_master=True)
    entries = _convert(source, source.data.get("keys") or [], ("keys",), list[KeyEntry])
    for index, entry in enumerate(entries):
        path: KeyPath = ("keys", index)
        digest = _digest(source, path, entry)
        if digest in kept:
            raise source.error(path, f"the same key as {kept[digest].name}; give each its own")
        if not entry.name.isprintable() or not 1 <= len(entry.name.encode()) <= MAX_NAME_BYTES:
            message = f"must be 1 to {MAX_NAME_BYTES} bytes of printable text"
            raise source.error((*path, "name"), message)
        if entry.name in {key.name for key in kept.values()}:
            raise source.error((*path, "name"), "a name used twice; names tell callers apart")
        kept[digest] = CallerKey(
            entry.name,
            digest,
            entry.models,
            rpm=entry.rpm,
            max_parallel_misses=entry.max_parallel_misses,
        )
    if not kept:
        return (), "no key is configured"
    for weak in WEAK_KEYS:
        if found := kept.get(sha256(weak)):
            return tuple(kept.values()), f"the key of {found.name} is the well-known {weak}"
    return tuple(kept.values()), None


def sha256(key: str) -> bytes:
    """Digest a key as it is kept and compared; a header that is not ASCII has surrogates in it."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _digest(source: Source, path: KeyPath, entry: KeyEntry) -> bytes:
    if (entry.key is None) == (entry.key_sha256 is None):
        raise source.error(path, "needs either key or key_sha256")
    if entry.key is not None:
        return sha256(entry.key.reveal())
    try:
        digest = bytes.fromhex(entry.key_sha256 or "")
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise source.error((*path, "key_sha256"), "must be 64 hexadecimal digits")
    return digest
