"""Which of a client's betas go along to the counter of Claude on Vertex AI.

Vertex refuses a beta that a model's counter has not received yet, with a 400 that has broken
counting for every new one (claude-code issue 11154, anthropic-sdk-typescript issue 1016, LiteLLM
pull request 39597). So a beta is sent only beside the block or the field that it licenses and that
would be refused without it (anthropic 2.12.0: what its beta types add to the others, 2026-11).
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

_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_MESSAGES = msgspec.json.Decoder(list[dict[str, Raw]])


def needed_betas(count: CountRequest) -> list[str]:
    """Choose the betas without which the body would be refused."""
    return [beta for beta in count.betas if _is_needed(beta, count.body)]


def _is_needed(beta: str, body: bytes) -> bool:
    if any(sign in body for sign in ANYWHERE.get(beta, ())):
        return True
    where, name = FIELDS.get(beta, ("", ""))
    return bool(name) and b'"%b":' % name.encode() in body and _has_field(body, where, name)


def _has_field(body: bytes, where: str, name: str) -> bool:
    """Look exactly: a tool may have a parameter of the same name."""
    members = _MEMBERS.decode(body)
    if not where:
        return name in members
    try:
        holder = members.get(where, Raw(b"{}"))
        holders = _MESSAGES.decode(holder) if where == "messages" else [_MEMBERS.decode(holder)]
    except msgspec.DecodeError:
        return False
    return any(name in one for one in holders)
