"""The configurations of the proxies that are measured, each in front of the simulated provider."""

from typing import Any

import msgspec

from bench.named import ADAPTERS
from bench.provider.control import TAKES
from bench.scenarios import Fault, Server

UPSTREAM_MODEL = "claude-bench"
UPSTREAM_KEY = "sk-ant-bench"
WORKERS = {
    Server.WORKERS_2: 2,
    Server.WORKERS_4: 4,
    Server.WORKERS_8: 8,
    Server.BARE_8: 8,
}
"""Of the other servers: one."""
ENTRIES = {Server.SOAK: 2_000, Server.HOST_FILE: 10}
"""Of a worker's memory, where it is not to be as large as usual: zipf has 1,000 questions."""
_SIGNING = "whsec_YmVuY2htYXJrLWJlbmNobWFyay1iZW5jaG1hcms="
_BEDROCK_MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
_AWS = {
    "aws_region_name": "us-east-1",
    "aws_access_key_id": "AKIDBENCH",
    "aws_secret_access_key": "bench",
}


def config(
    server: Server, *, provider: str, key: str, model: str, callers: tuple[str, ...], subject: str
) -> dict[str, Any]:
    """What a server's config.yaml says. ``subject`` is a file with a workload's own token."""
    models = {model: _anthropic(UPSTREAM_MODEL, provider)}
    if server is Server.PROVIDERS:
        models |= _adapters(provider, subject)
    elif server in {Server.FAULTS, Server.SOAK}:
        models |= {one.alias: _anthropic(one.alias, provider) for one in Fault}
    return {
        "model_list": [
            {"model_name": name, "litellm_params": params} for name, params in models.items()
        ],
        "general_settings": {"master_key": key},
        "server": {"hit_lane": server is not Server.ORDINARY},
        "cache": {
            "sentinel": {"per_minute": 0},  # how often the provider is asked is checked
            **({"local": {"max_entries": ENTRIES[server]}} if server in ENTRIES else {}),
        },
        "telemetry": _telemetry(server, provider),
        "keys": [{"name": f"caller-{n}", "key": one} for n, one in enumerate(callers)],
    }


def _telemetry(server: Server, provider: str) -> dict[str, Any]:
    """Whom it tells: at the defaults, but where that is what is measured."""
    if server is Server.NO_SINKS:
        return {"jsonl": {"enabled": False}, "usage": {"enabled": False}}
    if server is not Server.SINKS:
        return {}
    return {
        "webhook": {"url": f"{provider}{TAKES}/webhook", "secret": _SIGNING},
        "otlp": {"endpoint": f"{provider}{TAKES}"},
        "callbacks": ["bench.callback.Callback"],
    }


def _anthropic(model: str, provider: str) -> dict[str, Any]:
    return {"model": f"anthropic/{model}", "api_key": UPSTREAM_KEY, "api_base": provider}


def _adapters(provider: str, subject: str) -> dict[str, dict[str, Any]]:
    """``litellm_params`` of each of ADAPTERS by its alias."""
    vertex = {
        "api_base": provider,
        "vertex_project": "bench-project",
        "vertex_location": "us-east5",
        "vertex_credentials": msgspec.json.encode(_workload(provider, subject)).decode(),
    }
    found: dict[str, dict[str, Any]] = {
        "vertex-claude": {"model": "vertex_ai/claude-sonnet-4-6", **vertex},
        "bedrock": {
            "model": f"bedrock/{_BEDROCK_MODEL}",
            "aws_bedrock_runtime_endpoint": provider,
            **_AWS,
        },
        "bedrock-mantle": {
            "model": "bedrock_mantle/anthropic.claude-opus-4-8",
            "api_base": provider,
            **_AWS,
        },
        "gemini": {"model": "gemini/gemini-2.5-flash", "api_base": provider, "api_key": "AIza"},
        "vertex-gemini": {"model": "vertex_ai/gemini-2.5-flash", **vertex},
    }
    return {alias: found[alias] for alias in ADAPTERS}


def _workload(provider: str, subject: str) -> dict[str, Any]:
    """Credentials of Google's that need no key: a token is exchanged for another."""
    return {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{provider}/_sim/token",
        "credential_source": {"file": subject},
    }
