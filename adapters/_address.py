"""Where prompts go is the operator's choice alone: what every adapter's base URL has to pass."""

from urllib.parse import urlsplit

from adapters.base import Params


def checked_base(value: str | None, name: str) -> str | None:
    """Accept an absolute http(s) URL, without its last ``/``. Raises ValueError."""
    if not value:
        return None
    if fault := base_fault(value):
        raise ValueError(f"{name}: {fault}")
    return value.rstrip("/")


def base_fault(value: str) -> str:
    """Say why this is no base URL, or nothing. An empty query would swallow the path as well."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "must begin with http:// or https:// and name a host"
    if "@" in parts.netloc or "?" in value or "#" in value:
        return "must hold no credentials, query or fragment"
    if any(character <= " " or character > "~" for character in value):
        return "must hold visible ASCII characters only"
    return ""


def unset_base(params: Params) -> tuple[str, ...]:
    """Name the variable that ``api_base`` names and that is not set: no default replaces it."""
    return (params.unset["api_base"],) if "api_base" in params.unset else ()
