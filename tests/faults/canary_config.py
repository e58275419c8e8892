"""A configuration that holds a secret in every place that takes one."""

from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from tests.e2e.stubs import service_account
from tests.faults.canaries import Canaries
from tests.faults.quoting import QuotingLogin, QuotingProxy

CLAUDE = "anthropic.claude-3-5-sonnet-20241022-v2:0"
COUNTING = (
    "anthropic",
    "by-variable",
    "bedrock",
    "bedrock-key",
    "bedrock-container",
    "mantle",
    "gemini",
    "vertex",
    "claude-vertex",
)
LIMITS = {"breaker_failures": 2, "breaker_probe_s": 0.1, "cooldown_max_s": 0.1}


class Secrets:
    """The credentials of one installation, each a canary of its own."""

    def __init__(self) -> None:
        self.canaries = canaries = Canaries()
        self.master = canaries.of("master key", "sk-")
        self.team = canaries.of("a team's key", "sk-")
        self.hashed = canaries.of("a key known by its hash", "sk-")
        self.narrow = canaries.of("a limited key", "sk-")
        self.wrong = canaries.of("a wrong key", "sk-")
        self.own = canaries.of("the caller's own credential", "sk-ant-")
        self.redis = canaries.of("password of Redis", after="/+ @:#%")
        self.other_redis = canaries.of("a password that Redis refuses", after="/+ @:#%")
        self.proxy = canaries.of("password of the proxy", after="@:")
        self.token = canaries.of("access token", "ya29.")
        self.container = {
            "AccessKeyId": canaries.of("container's key id", "AKIA", ""),
            "SecretAccessKey": canaries.of("container's secret"),
            "Token": canaries.of("container's session"),
        }
        self.key_secret = canaries.of("cache.key_secret")
        self.webhook = canaries.of("telemetry.webhook.url", "http://127.0.0.1:9/", "")
        self.signing = canaries.of("telemetry.webhook.secret", "whsec_", "A" * 20)
        self.hook_login = canaries.of("telemetry.webhook.headers", "Bearer ", "")
        self.collector = canaries.of("telemetry.otlp.headers", "Bearer ", "")
        self.langfuse = canaries.of("LANGFUSE_SECRET_KEY", "sk-lf-", "")
        self.variable = canaries.of("api_key of a variable", "sk-ant-")
        self.container_login = canaries.of("container's authorization")

    @property
    def callers(self) -> tuple[str, ...]:
        """Two keys that are known, and one that is not."""
        return self.team, self.hashed, self.wrong

    def login(self) -> QuotingLogin:
        """Make who grants the tokens."""
        return QuotingLogin(self.token, self.container)

    def account(self, login: QuotingLogin) -> str:
        """Make a service account; a line of its private key is a canary too."""
        account = service_account(f"{login.url}/token")
        account["private_key_id"] = self.canaries.of("private_key_id", after="")
        lines = account["private_key"].splitlines()
        self.canaries.add("private_key", *lines[2:6])
        return msgspec.json.encode(account).decode()

    def entries(self, base: str, login: QuotingLogin) -> dict[str, dict[str, Any]]:
        """Compose ``litellm_params`` by name, one for each kind of credential."""
        of = self.canaries.of
        key = of("api_key of Anthropic", "sk-ant-")
        google = {
            "vertex_project": "p",
            "vertex_location": "us-east5",
            "vertex_credentials": self.account(login),
            "api_base": base,
        }
        aws = {
            "aws_access_key_id": of("aws_access_key_id", "AKIA", ""),
            "aws_secret_access_key": of("aws_secret_access_key"),
            "aws_session_token": of("aws_session_token"),
        }
        runtime = {
            "model": f"bedrock/{CLAUDE}",
            "aws_region_name": "us-west-2",
            "aws_bedrock_runtime_endpoint": base,
        }
        return {
            "anthropic": {"model": "anthropic/claude-x", "api_key": key, "api_base": base},
            "by-variable": {
                "model": "anthropic/claude-y",
                "api_key": "os.environ/UPSTREAM_KEY",
                "api_base": base,
            },
            "bedrock": {**runtime, **aws},
            "bedrock-key": {**runtime, "api_key": of("api_key of Bedrock")},
            "bedrock-container": runtime,
            "mantle": {
                "model": "bedrock_mantle/anthropic.claude-opus-4-6",
                "aws_region_name": "us-west-2",
                "api_key": of("api_key of mantle"),
                "aws_bedrock_mantle_endpoint": base,
            },
            "gemini": {
                "model": "gemini/gemini-2.5-flash",
                "api_key": of("api_key of Gemini"),
                "api_base": base,
            },
            "vertex": {"model": "vertex_ai/gemini-2.5-flash", **google},
            "claude-vertex": {"model": "vertex_ai/claude-sonnet-4-5@20250929", **google},
            "slow": {
                "model": "anthropic/claude-s",
                "api_key": key,
                "api_base": base,
                "timeout": 0.4,
            },
            "paced": {"model": "anthropic/claude-p", "api_key": key, "api_base": base, "rpm": 1},
            "gone": {
                "model": "anthropic/claude-g",
                "api_key": key,
                "api_base": "http://127.0.0.1:9",
            },
            "abroad": {
                "model": "anthropic/claude-a",
                "api_key": key,
                "api_base": "https://provider.invalid",
            },
            "plain-abroad": {
                "model": "anthropic/claude-b",
                "api_key": key,
                "api_base": "http://provider.invalid",
            },
            "role": {
                **runtime,
                **aws,
                "aws_role_name": "arn:aws:iam::1:role/r",
                "aws_external_id": "not a secret",
            },
        }

    def config(
        self, base: str, login: QuotingLogin, folder: Path, cluster: dict[str, str]
    ) -> dict[str, Any]:
        """Compose the whole configuration; ``cluster``: our own ``url``, or ``cache_params``."""
        entries = self.entries(base, login).items()
        litellm = cluster if "host" in cluster else {}
        hashed = sha256(self.hashed.encode()).hexdigest()
        return {
            "model_list": [{"model_name": name, "litellm_params": one} for name, one in entries],
            "general_settings": {"master_key": self.master},
            "keys": [
                {"name": "team", "key": self.team},
                {"name": "hashed", "key_sha256": hashed},
                {"name": "narrow", "key": self.narrow, "rpm": 1},
            ],
            "server": {"max_held_bytes": 100_000},
            "limits": LIMITS,
            "telemetry": {
                "log_level": "debug",
                "hash_end_users": True,
                "jsonl": {"path": str(folder / "events")},
                "webhook": {
                    "url": self.webhook,
                    "secret": self.signing,
                    "headers": {"authorization": self.hook_login},
                    "flush_s": 0.2,
                },
                "otlp": {
                    "headers": {"x-collector": self.collector},
                    "signals": ["logs", "traces", "metrics"],
                    "metrics_every_s": 0.5,
                    "flush_s": 0.2,
                },
            },
            "pass_through": {"caller_key": True},
            "cache": {
                "key_secret": self.key_secret,
                "negative_ttl_s": 0.1,
                "cluster": {} if litellm else cluster,
            },
            "litellm_settings": {
                "callbacks": ["langfuse_otel"],
                **({"cache": True, "cache_params": litellm} if litellm else {}),
            },
        }

    def environ(self, login: QuotingLogin, way_out: QuotingProxy) -> dict[str, str]:
        """Compose the variables: whoever is not on this machine is reached by the proxy."""
        proxy = way_out.url.replace("//", f"//user:{quote(self.proxy, safe='')}@")
        return {
            "UPSTREAM_KEY": self.variable,
            "LANGFUSE_PUBLIC_KEY": "pk-lf-1",
            "LANGFUSE_SECRET_KEY": self.langfuse,
            "LANGFUSE_OTEL_HOST": "http://127.0.0.1:9",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{login.url}/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": self.container_login,
            "HTTPS_PROXY": proxy,
            "HTTP_PROXY": proxy,
            "NO_PROXY": "127.0.0.1,localhost",
        }
