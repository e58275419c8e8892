"""``/``, ``/ui`` and ``/docs``: each one file that may do nothing but what it is for."""

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from app import __version__
from tests.e2e.exchange import MODEL, model_list, refused
from tests.server import KEY, Tallygate

PAGES = ("/", "/ui", "/docs")
OWN_POLICY = {
    "default-src": ["'none'"],
    "connect-src": ["'self'"],
    "img-src": ["data:"],
    "base-uri": ["'none'"],
    "form-action": ["'none'"],
    "frame-ancestors": ["'none'"],
    "require-trusted-types-for": ["'script'"],
}


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate]) -> Tallygate:
    return start({"model_list": model_list(**{MODEL: {"model": "estimate/claude"}})})


class Parts(HTMLParser):
    """What a page is made of: its inline scripts and styles, and every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self.attributes: list[tuple[str, str, str]] = []
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in self.inline:
            self._in = tag
            self.inline[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._in:
            self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in:
            self.inline[self._in][-1] += data


def policy(answer: httpx.Response) -> dict[str, list[str]]:
    parts = answer.headers["content-security-policy"].split("; ")
    return {part.split()[0]: part.split()[1:] for part in parts}


@pytest.mark.parametrize("path", PAGES)
def test_it_may_run_and_use_what_it_is_made_of_and_nothing_else(
    stranger: httpx.Client, path: str
) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 200
    parts, told = Parts(answer.text), policy(answer)
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (inline,) = parts.inline[tag]
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert told.pop(directive) == [f"'sha256-{digest}'"]
        assert len(inline) > 1000
    assert told == OWN_POLICY


@pytest.mark.parametrize("path", PAGES)
def test_it_loads_nothing_from_anywhere(stranger: httpx.Client, path: str) -> None:
    text = stranger.get(path).text
    attributes = Parts(text).attributes
    assert not [one for one in attributes if one[1].startswith("on") or one[1] in {"src", "style"}]
    addresses = [value for _, name, value in attributes if name in {"href", "action"}]
    assert all(one.startswith(("#", "/", "data:image/svg+xml,")) for one in addresses)
    outside = re.findall(r"(?:https?:)?//[a-z][\w.-]+", text)
    assert set(outside) <= {"http://www.w3.org"}  # the name of SVG, which is no address


@pytest.mark.parametrize("path", PAGES)
def test_its_headers(stranger: httpx.Client, path: str) -> None:
    answer = stranger.get(path)
    for name, value in {
        "content-type": "text/html; charset=utf-8",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }.items():
        assert answer.headers[name] == value
    assert answer.headers["request-id"].startswith("req_")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", PAGES)
def test_it_is_open_and_tells_nothing(stranger: httpx.Client, path: str) -> None:
    plain = stranger.get(path)
    keyed = stranger.get(path, headers={"authorization": f"Bearer {KEY}"})
    assert plain.content == keyed.content
    for secret in (KEY, MODEL, "estimate/claude"):
        assert secret not in plain.text.replace('"claude-3-5-sonnet"', "")  # the example's


@pytest.mark.parametrize("path", PAGES)
def test_it_is_only_read(stranger: httpx.Client, path: str) -> None:
    refused(stranger.post(path), 405, "invalid_request_error")


def test_the_version_is_the_packages(root: Path) -> None:
    text = (root / "pyproject.toml").read_text()
    assert f'\nversion = "{__version__}"\n' in text
