"""What is installed: nothing that runs by itself at every start of Python.

A release of a package like this one once stole credentials through a ``.pth`` file (MAL-2026-2144,
2026-03-24).
"""

import sysconfig
from pathlib import Path

EXPECTED = {
    "distutils-precedence.pth": "setuptools: its own distutils, before the standard library's",
}
SITE = Path(sysconfig.get_path("purelib"))


def test_nothing_runs_by_itself() -> None:
    found = {file.name for file in SITE.glob("*.pth")}
    assert found <= EXPECTED.keys(), f"run at every start: {found - EXPECTED.keys()}"


def test_nobody_customizes_the_start() -> None:
    assert not [*SITE.glob("sitecustomize*"), *SITE.glob("usercustomize*")]
