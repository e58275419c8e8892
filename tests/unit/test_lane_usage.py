"""What the lane answers is in the ledger, in the minute in which it was answered."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ANSWERED = """
import json, os, sys, time
from pathlib import Path
os.environ["XDG_CACHE_HOME"] = sys.argv[1]
from app.telemetry.usage.query import Query
from app.telemetry.usage.report import read_report
from bench.micro.house import House

with House(Path(sys.argv[1])) as house:
    asked = house.remember("repeat")
    lane, cells = house.lane, house.worker.usage._cells
    later_s, minutes = 0.0, []
    began_s = time.time() // 60 * 60
    cells._wall_clock = lambda: began_s + later_s
    for later_s, times in ((0.0, 7), (61.0, 5), (150.0, 3)):
        minutes.append(times)
        for _ in range(times):
            started_s = time.monotonic() + later_s
            answer = lane.answer_again(asked.request, started_s)
            if answer is None:
                answer = lane.answer(asked.begun, asked.digest, (asked.request,), started_s)
            assert answer.startswith(b"HTTP/1.1 200")
    assert house.worker.usage.flush()
    path = house.worker.usage.file.path
    report = read_report(path, Query(0, 2**40, ("minute", "model", "source")))
    print(json.dumps(report.rows))
"""


def test_each_repeat_is_counted_in_its_own_minute(tmp_path: Path) -> None:
    """By its digest at first, and then by its very bytes, across two ends of a minute."""
    done = subprocess.run(
        [sys.executable, "-c", ANSWERED, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row[3:] for row in rows] == [[n, 173 * n, 0, 0, n] for n in (7, 5, 3)]
    assert len({row[0] for row in rows}) == 3
    assert {tuple(row[1:3]) for row in rows} == {("bench-model", "cache")}
