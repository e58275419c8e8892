"""Every provider by name: a new one is one file beside this and one line here."""

from collections.abc import Mapping

from adapters.anthropic import Anthropic
from adapters.base import Adapter
from adapters.bedrock import Bedrock
from adapters.bedrock_mantle import BedrockMantle
from adapters.gemini import Gemini
from adapters.vertex_claude import VertexClaude
from adapters.vertex_gemini import VertexGemini

ADAPTERS: Mapping[str, Adapter] = {
    "anthropic": Anthropic(),
    "vertex_claude": VertexClaude(),
    "bedrock": Bedrock(),
    "bedrock_mantle": BedrockMantle(),
    "gemini": Gemini(),
    "vertex_gemini": VertexGemini(),
}

ESTIMATE = "estimate"
"""The one provider that is none: counted here, approximately, and always marked so."""


def provider_of(prefix: str, model: str) -> str | None:
    """Name the provider that ``litellm_params.model`` = ``prefix/model`` means, or None."""
    return next((name for name, it in ADAPTERS.items() if it.claims(prefix, model)), None)
