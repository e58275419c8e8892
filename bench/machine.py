"""What the figures depend on besides the code, and what processes use: asked of the system."""

import contextlib
import os
import platform
import resource
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_PACKAGES = ("sanic", "uvloop", "msgspec", "orjson", "httpx", "httptools", "aiocache")
_PROGRAMS = {"nginx": "-v", "wrk": "-v", "h2load": "--version"}
SPARE_DESCRIPTORS = 200
"""For what a process has open besides its clients, or its connections to providers."""
_LISTEN = "0A"
"""State of a listening socket in /proc/net/tcp."""


def workers(main_pid: int, port: int) -> tuple[str, ...] | None:
    """Process ids of the children that hold the listening socket; None without /proc."""
    try:
        listening = {
            fields[9]
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if (fields := line.split())[1].endswith(f":{port:04X}") and fields[3] == _LISTEN
        }
        children = Path(f"/proc/{main_pid}/task/{main_pid}/children").read_text().split()
        return tuple(pid for pid in children if _socket_inodes(pid) & listening)
    except OSError:
        return None


def tree(main_pid: int) -> tuple[str, ...] | None:
    """Process ids of a process and of all below it; None without /proc."""
    found = [str(main_pid)]
    try:
        for pid in found:  # which grows meanwhile
            for thread in Path(f"/proc/{pid}/task").iterdir():
                found += (thread / "children").read_text().split()
    except OSError:
        return None
    return tuple(found)


def _socket_inodes(pid: str) -> set[str]:
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(str(link.readlink()))
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


def rss_bytes(pid: str) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def cpu_s(pid: str) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def allow_descriptors(connections: int) -> bool:
    """Let this process, and those that it starts, have so many connections; say whether it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A server keeps a quarter of its descriptors for providers.
    wanted = needed = 2 * connections + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted == needed


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": platform.platform(),
        "load_average_1min": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Python's, and those of the packages and programs that decide speed, where installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    for program, flag in _PROGRAMS.items():
        try:
            said = subprocess.run((program, flag), capture_output=True, text=True, check=False)
        except OSError:
            continue
        found[program] = (said.stdout + said.stderr).partition("\n")[0].strip()
    return found


def commit() -> str:
    """The checkout's commit, with ``+`` when files differ from it; ``unknown`` without git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ("git", "-C", str(ROOT), *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
