"""The peers that ``make peers`` installs into ``.peers``: where they are and how they start."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from bench import machine

FOLDER = machine.ROOT / ".peers"
UPSTREAM_MODEL = "claude-bench"
UPSTREAM_KEY = "sk-ant-bench"
_GATEWAY = Path("portkey/node_modules/@portkey-ai/gateway")
_DIST_INFO = re.compile(r"litellm-([\d.a-z]+)\.dist-info")
_LITELLM_ENVIRON = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # asks nobody for a newer one
    "LITELLM_LOG": "ERROR",
}


class Start(Struct, frozen=True):
    """How to start a peer that listens on 127.0.0.1."""

    command: tuple[str, ...]
    environ: Mapping[str, str] = {}


def versions(folder: Path = FOLDER) -> dict[str, str]:
    """Of the peers that are installed, by name."""
    found = {}
    for path in folder.glob("litellm/lib/python*/site-packages/litellm-*.dist-info"):
        if named := _DIST_INFO.fullmatch(path.name):
            found["litellm"] = named[1]
    package = folder / _GATEWAY / "package.json"
    if package.is_file():
        found["portkey"] = str(msgspec.json.decode(package.read_bytes())["version"])
    return found


def missing(folder: Path = FOLDER) -> dict[str, str]:
    """Why a peer cannot be started, by name."""
    known = versions(folder)
    found = {
        name: f"{title} is not installed: make peers"
        for name, title in (("litellm", "LiteLLM"), ("portkey", "Portkey's gateway"))
        if name not in known
    }
    if shutil.which("node") is None:
        found["portkey"] = "node is not on PATH"
    return found


def litellm(scratch: Path, port: int, *, provider: str, key: str, model: str) -> Start:
    """LiteLLM's proxy with one worker, configured as this proxy is."""
    config = scratch / "litellm.yaml"
    params = {"model": f"anthropic/{UPSTREAM_MODEL}", "api_key": UPSTREAM_KEY, "api_base": provider}
    said = {
        "model_list": [{"model_name": model, "litellm_params": params}],
        "general_settings": {"master_key": key},
    }
    config.write_bytes(msgspec.json.encode(said))  # which is YAML too
    command = (
        *(str(FOLDER / "litellm/bin/litellm"), "--config", str(config)),
        *("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"),
    )
    return Start(command, _LITELLM_ENVIRON)


def portkey(port: int) -> Start:
    """Portkey's gateway, which has no configuration: ``portkey_headers`` say where to ask."""
    server = str(FOLDER / _GATEWAY / "build/start-server.js")
    command = (shutil.which("node") or "node", server, f"--port={port}", "--headless")
    return Start(command, {"NODE_ENV": "production"})


def portkey_headers(provider: str) -> tuple[tuple[str, str], ...]:
    """What tells the gateway to ask ``provider`` in Anthropic's form."""
    return (("x-portkey-provider", "anthropic"), ("x-portkey-custom-host", f"{provider}/v1"))
