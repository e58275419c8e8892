"""``python -m app cache`` as an operator runs it: a process of its own beside the servers."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.provider import SimulatedProvider
from tests.e2e.exchange import MODEL, anthropic, model_list
from tests.server import KEY, ROOT

COMMAND_S = 50


class Ran:
    """How a command ended, and what it said."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code, self.raw, self.out, self.err = code, out, out.decode(), err.decode()

    def __repr__(self) -> str:
        return f"<exit {self.code}: {self.out!r}, {self.err!r}>"


class Operator:
    """Works with one configuration, in a folder of its own."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        general = {"master_key": KEY, **config.get("general_settings", {})}
        self.config = {**config, "general_settings": general}
        self._environ = {
            "TALLYGATE_CONFIG": str(folder / "operator.yaml"),
            "XDG_CACHE_HOME": str(folder),
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        }
        (folder / "operator.yaml").write_text(yaml.safe_dump(self.config))

    def cache(self, *arguments: str, stdin: bytes = b"") -> Ran:
        command = [sys.executable, "-m", "app", "cache", *arguments]
        ran = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environ,
            input=stdin,
            capture_output=True,
            timeout=COMMAND_S,
            check=False,
        )
        found = Ran(ran.returncode, ran.stdout, ran.stderr)
        assert "Traceback" not in found.err, found.err
        return found


def config(
    provider: SimulatedProvider, file: Path | None, models: Sequence[str] = (MODEL,), **cache: Any
) -> dict[str, Any]:
    """Compose a configuration; ``file`` is the host's, None switches that tier off."""
    host = {"enabled": False} if file is None else {"path": str(file)}
    entries = {name: anthropic(f"{name}-x", provider.url) for name in models}
    return {"model_list": model_list(**entries), "cache": {"host": host, **cache}}
