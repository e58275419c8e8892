"""Where prompts go is the operator's choice alone: what every adapter's base URL has to pass."""

from urllib.parse import urlsplit

from adapters.base import Params


def checked_base(value: str | None, name: str) -> str | None:
    """Accept an absolute http(s) URL, without its last ``/``. Raises ValueError."""
    if not value:
        return None
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError(f"{name}: is not a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{name}: must begin with http:// or https:// and name a host")
    if parts.username or parts.query or parts.fragment:
        raise ValueError(f"{name}: must hold no credentials, query or fragment")
    if any(character <= " " or character > "~" for character in value):
        raise ValueError(f"{name}: must hold visible ASCII characters only")
    return value.rstrip("/")


def unset_base(params: Params) -> tuple[str, ...]:
    """Name the variable that ``api_base`` names and that is not set: no default replaces it."""
    return (params.unset["api_base"],) if "api_base" in params.unset else ()
