"""The pages, each one file: their parts are put together here, once, when the server starts.

What a page may do is said by its policy: run this very script, use this very style, talk to this
server. A page holds no data and is open to everybody; what it shows it asks for, with a key.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path

from msgspec import Struct

FOLDER = Path(__file__).parent / "pages"
_COMMON = ("text.js", "theme.js")
_SCRIPTS = {
    "status": (*_COMMON, "session.js", "charts.js", "tables.js", "live.js", "try.js", "status.js"),
    "docs": (*_COMMON, "schema.js", "docs.js"),
}


class Page(Struct, frozen=True):
    """A page as it is sent."""

    body: bytes
    headers: dict[str, str]


@cache
def page(name: str) -> Page:
    """Put a page together: ``status`` or ``docs``."""
    style = _read("style.css") + _read(f"{name}.css")
    parts = "".join(_read(part) for part in _SCRIPTS[name])
    script = f'"use strict";\n(() => {{\n{parts}}})();\n'
    body = _read(f"{name}.html").replace("/* style */", style).replace("/* script */", script)
    return Page(body.encode(), _headers(_digest(script), _digest(style)))


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _headers(script: str, style: str) -> dict[str, str]:
    policy = (
        "default-src 'none'",
        f"script-src {script}",
        f"style-src {style}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
    return {
        "content-security-policy": "; ".join(policy),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-cache",
    }
