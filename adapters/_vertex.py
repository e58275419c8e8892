"""What the two Vertex AI adapters share: host, project, location, credential, address.

{base}/v1/projects/{project}/locations/{location}/publishers/{publisher}/models/{model}:{method}
"""

import re
from collections.abc import Mapping
from urllib.parse import quote

from adapters._address import unset_base
from adapters.base import CannotExpressError, Endpoint, GoogleCredential, Params, Secret

MULTI_REGIONS = ("us", "eu")
CREDENTIAL_PROJECT = "-"
"""Stands in an address for the project that the credential names; signing puts it there.

No project can have this id (https://cloud.google.com/resource-manager/docs/creating-managing-projects,
2026-11), so that nothing else is ever replaced.
"""

_LOCATION = re.compile(r"[a-z0-9-]+")
_PROJECT = re.compile(r"(?:[a-z0-9][a-z0-9.-]*:)?[a-z0-9][a-z0-9-]*")


def vertex_endpoint(
    params: Params, environ: Mapping[str, str], *, model: str, default_location: str
) -> Endpoint:
    """Resolve everything of an entry but its model id. Raises ValueError.

    Where a named variable is not set, the endpoint has no credential and says which.
    The location is part of the scope: nobody promises that all of them count with the same
    revision of a model, and a missed merge is only a miss.
    """
    project, missing_project = vertex_project(params, environ)
    location, missing_location = vertex_location(params, environ, default_location)
    source, missing_source = _given(params, "vertex_credentials", environ, "VERTEXAI_CREDENTIALS")
    missing = (*unset_base(params), *missing_project, *missing_location, *missing_source)
    base_url = vertex_base_url(location, params.api_base)
    return Endpoint(
        upstream_model=model,
        base_url=base_url,
        scope=(location, base_url) if params.api_base else (location,),
        project=project,
        location=location,
        credential=None if missing else GoogleCredential(Secret(source) if source else None),
        missing=missing,
    )


def vertex_base_url(location: str, api_base: str | None) -> str:
    """Name the host of a location; ``api_base`` may end in ``/`` or ``/v1``. Raises ValueError.

    A region has its own host, ``global`` the bare one, the multi-regions ``us`` and ``eu`` have
    ``aiplatform.us.rep.googleapis.com`` (anthropic 2.12.0 and google-genai 3.4.0, 2026-11).
    """
    _check_location(location)
    if api_base:
        return api_base.rstrip("/").removesuffix("/v1").rstrip("/")
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def vertex_project(params: Params, environ: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """Return the project, and the names of variables that are not set. Raises ValueError.

    ``vertex_project``, then VERTEXAI_PROJECT, then the credential's own: that one is known only
    once the credential is loaded, and CREDENTIAL_PROJECT stands for it until then.
    """
    project, missing = _given(params, "vertex_project", environ, "VERTEXAI_PROJECT")
    if missing:
        return "", missing
    if not project:
        return CREDENTIAL_PROJECT, ()
    check_project(project)
    return project, ()


def vertex_location(
    params: Params, environ: Mapping[str, str], default: str
) -> tuple[str, tuple[str, ...]]:
    """Return where to count, and the names of variables that are not set. Raises ValueError.

    ``vertex_count_tokens_location``, ``vertex_location``, VERTEXAI_LOCATION, VERTEX_LOCATION, the
    default: LiteLLM's order (1.109.1). No location is ever replaced by another.
    """
    location, missing = _given(params, "vertex_count_tokens_location", environ)
    if not location and not missing:
        names = ("VERTEXAI_LOCATION", "VERTEX_LOCATION")
        location, missing = _given(params, "vertex_location", environ, *names)
    location = location or default
    _check_location(location)
    return location, missing


def check_project(project: str) -> None:
    """Accept an id, a number, or a domain-scoped ``example.com:id``. Raises ValueError."""
    if not _PROJECT.fullmatch(project):
        raise ValueError(
            "vertex_project must be a project's id or number: a-z, 0-9 and -, "
            "with its domain if it has one (example.com:my-project)"
        )


def method_url(endpoint: Endpoint, publisher: str, model: str, method: str) -> str:
    """Compose the address of a publisher model's method. Raises CannotExpressError."""
    return (
        f"{endpoint.base_url}/v1/projects/{endpoint.project}/locations/{endpoint.location}"
        f"/publishers/{publisher}/models/{path_segment(model)}:{method}"
    )


def path_segment(text: str) -> str:
    """Quote one segment of a path, ``/`` and ``:`` included. Raises CannotExpressError.

    Behind a wildcard it is the client's own; the two forbidden ones would change the path.
    """
    if text in {"", ".", ".."}:
        raise CannotExpressError("model: is not a model's id")
    return quote(text, safe="@")


def _check_location(location: str) -> None:
    if not _LOCATION.fullmatch(location):
        raise ValueError(
            "vertex_location must be global, us, eu or a region such as us-east5: a-z, 0-9 and -"
        )


def _given(
    params: Params, name: str, environ: Mapping[str, str], *variables: str
) -> tuple[str, tuple[str, ...]]:
    """Read a parameter, else the first variable that is set.

    A parameter whose own variable is not set is missing, never quietly taken from elsewhere.
    """
    if name in params.unset:
        return "", (params.unset[name],)
    value = getattr(params, name)
    if isinstance(value, Secret):
        value = value.reveal()
    return value or next((environ[one] for one in variables if environ.get(one)), ""), ()
