"""h2load (of nghttp2), where it is on PATH: a second opinion on what wrk says of one question.

It asks one question only, over HTTP/1.1; all else is asked by the own generator. As with wrk, that
judges the first and the last answer, and in between each must have a good status and the right
number of bytes.
"""

import re
import resource
import shutil
import subprocess
from pathlib import Path
from typing import cast

from bench.answers import WrongAnswerError
from bench.histogram import Histogram
from bench.load import Run
from bench.questions import Message
from bench.slice import STALL_S, Load

_COUNTED = re.compile(
    r"^requests: (?P<total>\d+) total, \d+ started, (?P<done>\d+) done, (?P<good>\d+) succeeded,"
    r" (?P<failed>\d+) failed, (?P<errored>\d+) errored, (?P<late>\d+) timeout$"
    r"\nstatus codes: (?P<ok>\d+) 2xx, .*"
    r"\ntraffic: .*?\((?P<bytes>\d+)\) total",
    re.MULTILINE,
)
_OWN = (b"host", b"content-length")
"""Headers that it writes itself."""


def path() -> str | None:
    """Where h2load is."""
    return shutil.which("h2load")


def run(load: Load, scratch: Path) -> Run:
    """Run one slice of whole seconds. Raises WrongAnswerError for errors and bad statuses."""
    message = cast("Message", load.message)
    body, log = scratch / "h2load.body", scratch / "h2load.log"
    body.write_bytes(message.body)
    log.unlink(missing_ok=True)
    line, *fields = message.head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    seconds = max(1, round(load.seconds))
    command = (
        *(path() or "h2load", "--h1", "-t1", f"-c{load.connections}", f"-D{seconds}"),
        *(f"--connection-inactivity-timeout={STALL_S:g}", f"--data={body}", f"--log-file={log}"),
        *(f"--header={one.decode()}" for one in fields if one.split(b":", 1)[0] not in _OWN),
        load.address.url + line.split()[1].decode(),
    )
    before_s = _children_s()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    cpu_s = _children_s() - before_s
    if done.returncode:
        raise WrongAnswerError(f"h2load ended with exit code {done.returncode}: {done.stderr}")
    return parse(done.stdout, log.read_text() if log.exists() else "", seconds, cpu_s)


def parse(printed: str, log: str, seconds: int, cpu_s: float = 0) -> Run:
    """Read what it printed, and a line for each answer. Raises WrongAnswerError, as ``run``."""
    counted = _COUNTED.search(printed)
    if counted is None:
        raise WrongAnswerError(f"h2load did not say what it found:\n{printed}")
    total = int(counted["total"])
    good = {int(counted[one]) for one in ("done", "good", "ok")} == {total}
    if not good or not total or any(int(counted[one]) for one in ("failed", "errored", "late")):
        raise WrongAnswerError(f"errors: {counted[0]}")
    latency = Histogram()
    for line in log.splitlines():
        latency.record(int(line.rsplit("\t", 1)[1]) * 1000)
    if len(latency) != total:
        raise WrongAnswerError(f"{total} answers, {len(latency)} of which were logged")
    received = int(counted["bytes"])
    return Run(total, seconds, cpu_s, latency, received_bytes=received, engine="h2load")


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
