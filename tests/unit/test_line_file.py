"""A file of lines that several processes fill at once, as fast as they can."""

import os
import subprocess
import sys
from pathlib import Path

MAX_BYTES, PROCESSES, LINES = 4096, 4, 2_000
WRITER = """
import os, sys
from app.telemetry.line_file import LineFile

path, name, lines, most, keep = sys.argv[1:]
file = LineFile(path, int(most), int(keep))
file.open()
for number in range(int(lines)):
    line = f"{name} {number}\\n".encode()
    with file.to_append(len(line)) as (target, _):
        os.write(target, line)
file.close()
"""


def fill(path: Path, keep: int) -> list[str]:
    """Let all write, and return every line that is left."""
    writing = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, path, str(name), str(LINES), str(MAX_BYTES), str(keep)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        for name in range(PROCESSES)
    ]
    assert [one.wait(50) for one in writing] == [0] * PROCESSES
    return [line for file in files(path) for line in file.read_text().splitlines()]


def files(path: Path) -> list[Path]:
    return [one for one in path.parent.iterdir() if one.suffix != ".lock"]


def test_no_line_is_lost_or_written_twice_and_no_file_is_too_large(tmp_path: Path) -> None:
    lines = fill(tmp_path / "lines", keep=1_000)
    assert sorted(lines) == sorted(f"{one} {at}" for one in range(PROCESSES) for at in range(LINES))
    assert max(file.stat().st_size for file in files(tmp_path / "lines")) <= MAX_BYTES


def test_of_many_files_the_newest_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    lines = fill(path, keep=3)
    assert {file.name for file in files(path)} == {"lines", "lines.1", "lines.2", "lines.3"}
    last = path.read_text().splitlines()[-1]
    assert last.endswith(f" {LINES - 1}")
    assert len(lines) == len(set(lines))
