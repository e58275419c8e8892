"""wrk, where it is on PATH: the hit lane answers faster than any generator in Python asks.

It cannot judge counts. The first and the last question are asked and judged by the own generator;
in between every answer must have a good status and the right number of bytes.
"""

import re
import resource
import shutil
import subprocess
from pathlib import Path

from bench.answers import WrongAnswerError
from bench.histogram import Histogram
from bench.load import Run
from bench.questions import Message
from bench.slice import STALL_S, Load

_FINISHED = re.compile(
    r"^bench requests=(\d+) us=(\d+) bytes=(\d+)"
    r" connect=(\d+) read=(\d+) write=(\d+) timeout=(\d+) status=(\d+)$",
    re.MULTILINE,
)
_LATENCY = re.compile(r"^latency (\d+) (\d+)$", re.MULTILINE)
_DONE = """
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    "bench requests=%d us=%d bytes=%d connect=%d read=%d write=%d timeout=%d status=%d\\n",
    summary.requests, summary.duration, summary.bytes,
    e.connect, e.read, e.write, e.timeout, e.status))
  for i = 1, #latency do
    local us, count = latency(i)
    io.write(string.format("latency %d %d\\n", us, count))
  end
end
"""
_CONSTANT = """
local file = assert(io.open({file}, "rb"))
wrk.body = file:read("*a")
file:close()
"""
_MIX = """
local file = assert(io.open({file}, "rb"))
local function number()
  local found = file:read("*n")
  file:read(1)
  return found
end
local function pieces()
  local found = {{}}
  for i = 1, number() do found[i] = file:read(number()) end
  return found
end
local heads, tails = pieces(), pieces()
local head, tail, at = {{}}, {{}}, 0
for i = 1, number() do head[i], tail[i] = number(), number() end
file:close()
function request()
  at = at % #head + 1
  return heads[head[at]] .. tails[tail[at]]
end
"""


def path() -> str | None:
    """Where wrk is."""
    return shutil.which("wrk")


def run(load: Load, scratch: Path) -> Run:
    """Run one slice of whole seconds. Raises WrongAnswerError for errors and bad statuses."""
    script = scratch / "wrk.lua"
    script.write_text(_script(load, scratch / "wrk.data") + _DONE)
    command = (
        path() or "wrk",
        "-t1",
        f"-c{load.connections}",
        f"-d{max(1, round(load.seconds))}s",
        f"--timeout={STALL_S:g}s",
        f"--script={script}",
        load.address.url + _target(load),
    )
    before_s = _children_s()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    cpu_s = _children_s() - before_s
    if done.returncode:
        raise WrongAnswerError(f"wrk ended with exit code {done.returncode}: {done.stderr.strip()}")
    found = parse(done.stdout)
    found.client_cpu_s = cpu_s
    return found


def parse(printed: str) -> Run:
    """Read what the script made wrk print. Raises WrongAnswerError, as ``run``."""
    finished = _FINISHED.search(printed)
    if finished is None:
        raise WrongAnswerError(f"wrk did not say what it found:\n{printed}")
    requests, took_us, received_bytes, *errors = map(int, finished.groups())
    if any(errors) or not requests:
        raise WrongAnswerError(f"errors: {finished[0]}")
    latency = Histogram()
    for us, count in _LATENCY.findall(printed):
        latency.merge(Histogram({int(us) * 1000: int(count)}))
    return Run(requests, took_us / 1e6, 0, latency, received_bytes=received_bytes, engine="wrk")


def check_sizes(run: Run, connections: int, answer_bytes: tuple[int, int]) -> None:
    """Raises WrongAnswerError where answers of a run cannot have been the right ones.

    ``answer_bytes`` are the sizes of the shortest and the longest right answer, with their heads.
    Not judged is one answer for each connection: the last may be cut off, and the first of a
    worker may say that it came from another.
    """
    shortest, longest = answer_bytes
    room = connections * longest
    if not run.answers * shortest - room <= run.received_bytes <= run.answers * longest + room:
        raise WrongAnswerError(
            f"{run.answers} answers had {run.received_bytes} bytes;"
            f" the right ones have {shortest} to {longest} each"
        )


def _target(load: Load) -> str:
    message = load.message
    head = message.head if isinstance(message, Message) else message.heads[0]
    return head.split(b" ", 2)[1].decode()


def _script(load: Load, data: Path) -> str:
    """The beginning of the Lua script; what is long goes to the file ``data``."""
    message = load.message
    if isinstance(message, Message):
        data.write_bytes(message.body)
        fields = (line.split(b": ", 1) for line in message.head.split(b"\r\n")[1:-2])
        headers = "".join(
            # A second host it would add itself, and the length it adds.
            f"wrk.headers[{_quoted(name.title())}] = {_quoted(value)}\n"
            for name, value in fields
            if name != b"content-length"
        )
        return f'wrk.method = "POST"\n{headers}' + _CONSTANT.format(file=_quoted(bytes(data)))
    tails = tuple(message.tail(body) for body in range(len(message.bodies)))
    pieces = b"".join(
        b"%d\n%b" % (len(group), b"".join(b"%d\n%b" % (len(one), one) for one in group))
        for group in (message.heads, tails)
    )
    order = b"".join(b"%d\n%d\n" % (head + 1, tail + 1) for head, tail in message.order)
    data.write_bytes(b"%b%d\n%b" % (pieces, len(message.order), order))
    return _MIX.format(file=_quoted(bytes(data)))


def _quoted(value: bytes) -> str:
    """A Lua string, whatever is in it."""
    return '"' + "".join(f"\\{byte:03}" for byte in value) + '"'


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
