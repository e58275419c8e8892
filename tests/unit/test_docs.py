"""What the pages name is there, and what is there they name."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app import config_sections
from app.api_paths import OPERATIONS
from app.telemetry.layout import Layout, family_of

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
SECTIONS = {
    "server": config_sections.Server,
    "cache": config_sections.Cache,
    "limits": config_sections.Limits,
    "telemetry": config_sections.Telemetry,
    "pass_through": config_sections.PassThrough,
}


@pytest.fixture(scope="module")
def pages(root: Path) -> list[Path]:
    return [*root.glob("*.md"), *(root / "docs").rglob("*.md")]


def anchors(page: Path) -> set[str]:
    """Name a page's headings as GitHub does."""
    headings = HEADING.findall(FENCE.sub("", page.read_text()))
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", one).lower() for one in headings)
    return {re.sub(r"[^\w\- ]", "", one).replace(" ", "-") for one in plain}


def links(page: Path) -> Iterator[tuple[str, str]]:
    """List what a page links to in the checkout: a path, and a heading."""
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if not link.startswith(("https:", "http:", "mailto:")):
            path, _, anchor = link.partition("#")
            yield path, anchor


def test_every_link_leads_somewhere(pages: list[Path]) -> None:
    broken = []
    for page in pages:
        for path, anchor in links(page):
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.name}: {path}#{anchor}")
    assert not broken
    assert len(pages) > 1


def test_every_page_is_linked(pages: list[Path], root: Path) -> None:
    linked = {(page.parent / path).resolve() for page in pages for path, _ in links(page) if path}
    assert {page for page in pages if page not in linked} == {root / "README.md"}


def fields(section: Any, before: str) -> Iterator[tuple[str, Any]]:
    """List the settings of a section by their whole names, with their defaults."""
    for one in msgspec.structs.fields(section):
        name = f"{before}.{one.encode_name}"
        if isinstance(one.type, type) and issubclass(one.type, msgspec.Struct):
            yield from fields(one.type, name)
        else:
            yield name, one.default


def documented(root: Path) -> dict[str, str]:
    """Read the table of settings: ``a.b.c`` and ``.d`` in one cell are ``a.b.c`` and ``a.b.d``."""
    table: dict[str, str] = {}
    for line in (root / "docs/configuration.md").read_text().splitlines():
        if not line.startswith("| `"):
            continue
        names, values = (cell.strip() for cell in line.split("|")[1:3])
        parent = ""
        cells = re.findall(r"`([^`]+)`", names)
        defaults = re.sub(r"\[([^\]]*)\]", lambda m: m[0].replace(", ", ","), values).split(", ")
        for number, name in enumerate(cells):
            whole = parent + name if name.startswith(".") else name
            parent = whole.rpartition(".")[0]
            table[whole] = defaults[number] if len(defaults) == len(cells) else values
    return table


def shown(value: Any) -> str:
    """Write a default as the table does."""
    if value in {None, msgspec.NODEFAULT, ()}:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_setting_is_told_with_its_default(root: Path) -> None:
    table = documented(root)
    wrong = []
    for section, type_ in SECTIONS.items():
        for name, default in fields(type_, section):
            told = table.get(name, "is missing").replace("`", "")
            # What follows from something else is told in words, and cache's times in cache.md.
            in_words = (default is None and told not in {"none", "is missing"}) or not told
            if told != shown(default) and not in_words:
                wrong.append(f"{name}: {told}, not {shown(default)}")
    assert not wrong


def test_every_metric_is_told(root: Path) -> None:
    text = (root / "docs/observability.md").read_text()
    layout = Layout(["model"], ["provider"], ["model[0]"])
    names = {family_of(name) for name, _labels in layout.slots}
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_every_path_is_told(root: Path) -> None:
    text = (root / "docs/api.md").read_text()
    assert [one.path for one in OPERATIONS if f"{one.path}`" not in text] == []
