"""Every kind of fault that the server is held to has a test that is named after its row."""

import re
from pathlib import Path

ROWS = {
    "u": 16,  # providers, and the way to them
    "c": 15,  # shared flights and remembered counts
    "p": 10,  # processes
    "k": 16,  # what clients send
    "a": 11,  # abuse
}
NAMED = re.compile(r"^(?:async )?def test_([a-z]\d+)_", re.MULTILINE)


def test_every_row_has_a_test(root: Path) -> None:
    rows = {f"{part}{number + 1}" for part, last in ROWS.items() for number in range(last)}
    files = (root / "tests").rglob("test_*.py")
    found = {row for file in files for row in NAMED.findall(file.read_text())}
    assert found == rows
