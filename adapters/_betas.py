"""Which of a client's betas go along to a counter that refuses those it does not know.

Vertex refuses a beta that a model's counter has not received yet, with a 400 that has broken
counting for every new one (claude-code issue 11154, anthropic-sdk-typescript issue 1016, LiteLLM
pull request 39597). So a beta is sent only beside the block or the field that it licenses and that
would be refused without it (anthropic 2.12.0: what its beta types add to the others, 2026-11).

Bedrock's runtime answers one it does not know with 400 "invalid beta flag" (claude-code 30926,
2026-03, and 56595, 2026-05; LiteLLM 19877, 2026-01). It gets those that AWS lists besides.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Raw

from adapters.base import CountRequest

_COMPACTION = (b'"type":"compaction"', b'"type":"compact_')
_FALLBACK = (b'"type":"fallback"',)
_TOOL_CHANGES = (b'"type":"tool_addition"', b'"type":"tool_removal"')

ANYWHERE: Mapping[str, tuple[bytes, ...]] = {
    "advisor-tool-2026-03-01": (b'"type":"advisor_20260301"', b'"type":"advisor_tool_result"'),
    "compact-2026-01-12": _COMPACTION,
    "compact-2026-09-04": _COMPACTION,
    "computer-use-2024-10-22": (
        b'"type":"bash_20241022"',
        b'"type":"computer_20241022"',
        b'"type":"text_editor_20241022"',
    ),
    "computer-use-2025-01-24": (b'"type":"computer_20250124"',),
    "computer-use-2025-11-24": (b'"type":"computer_20251124"',),
    # The memory tool's beta before the tool was generally available.
    "context-management-2025-06-27": (b'"type":"memory_20250818"',),
    "inline-tools-2026-09-15": (b'"type":"tool_definition"',),
    "mid-conversation-tool-changes-2026-07-01": _TOOL_CHANGES,
    "server-side-fallback-2026-06-01": _FALLBACK,
    "server-side-fallback-2026-07-01": _FALLBACK,
    "thinking-display-updates-2026-08-18": (b'"display":"updates"',),
}
"""What stands in a body that needs the beta: within a string its quotes would have backslashes."""

FIELDS: Mapping[str, tuple[str, str]] = {
    "compact-2026-09-04": ("", "compaction"),
    "context-management-2025-06-27": ("", "context_management"),
    "fast-mode-2026-02-01": ("", "speed"),
    "mid-conversation-output-config-2026-07-01": ("messages", "output_config"),
    "mid-conversation-system-clear-at-2026-08-21": ("messages", "clear_at"),
    "task-budgets-2026-03-13": ("output_config", "task_budget"),
    "thinking-binding-controls-2026-08-01": ("thinking", "block_binding"),
    "user-profiles-billing-2026-10-01": ("", "billing_policy"),
}
"""Where in a body the field stands that needs the beta: at the top, or in that member of it."""

AT_BEDROCK = frozenset(
    {
        # AWS's page on the request of InvokeModel, as LiteLLM 19877 (2026-01) quotes it, and
        # LiteLLM's own table (2026-11): those that no field of a body shows.
        "context-1m-2025-08-07",
        "dev-full-thinking-2025-05-14",
        "fine-grained-tool-streaming-2025-05-14",
        "interleaved-thinking-2025-05-14",
        "output-128k-2025-02-19",
        "token-efficient-tools-2025-02-19",
        # Listed nowhere; Claude 4.6 accepts it (claude-code 30926 and 49648, 2026-04). Newer models
        # refuse it, and the runtime does not count them.
        "claude-code-20250219",
    }
)
"""What Bedrock's runtime knows, whatever stands in a body; by model, as for inference."""

ANYWHERE_AT_BEDROCK: Mapping[str, tuple[bytes, ...]] = {
    **ANYWHERE,
    "tool-search-tool-2025-10-19": (
        b'"type":"tool_reference"',
        b'"type":"tool_search_tool_',
    ),
}
FIELDS_AT_BEDROCK: Mapping[str, tuple[str, str]] = {
    **FIELDS,
    "effort-2025-11-24": ("output_config", "effort"),
    "tool-examples-2025-10-29": ("tools", "input_examples"),
    "tool-search-tool-2025-10-19": ("tools", "defer_loading"),
}
"""The further ones stand on the same page of AWS; Vertex's counter refuses two of them (LiteLLM
39597)."""

_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_LISTS = frozenset({"messages", "tools"})
_OBJECTS = msgspec.json.Decoder(list[dict[str, Raw]])


def needed_betas(count: CountRequest) -> list[str]:
    """Choose the betas without which the body would be refused."""
    return [beta for beta in count.betas if _is_needed(beta, count.body, ANYWHERE, FIELDS)]


def betas_for_bedrock(count: CountRequest) -> list[str]:
    """Choose the betas that Bedrock's runtime is known to take, and those that the body needs."""
    return [
        beta
        for beta in count.betas
        if beta in AT_BEDROCK
        or _is_needed(beta, count.body, ANYWHERE_AT_BEDROCK, FIELDS_AT_BEDROCK)
    ]


def _is_needed(
    beta: str,
    body: bytes,
    anywhere: Mapping[str, tuple[bytes, ...]],
    fields: Mapping[str, tuple[str, str]],
) -> bool:
    if any(sign in body for sign in anywhere.get(beta, ())):
        return True
    where, name = fields.get(beta, ("", ""))
    return bool(name) and b'"%b":' % name.encode() in body and _has_field(body, where, name)


def _has_field(body: bytes, where: str, name: str) -> bool:
    """Look exactly: a tool may have a parameter of the same name."""
    members = _MEMBERS.decode(body)
    if not where:
        return name in members
    try:
        holder = members.get(where, Raw(b"{}"))
        holders = _OBJECTS.decode(holder) if where in _LISTS else [_MEMBERS.decode(holder)]
    except msgspec.DecodeError:
        return False
    return any(name in one for one in holders)
