"""What the simulated provider does instead of counting, by the model that it is asked about."""

from typing import Any

FAILURES: dict[str, dict[str, Any]] = {
    **{f"says-{status}": {"status": status} for status in (400, 401, 403, 404, 409, 412, 413)},
    **{f"says-{status}": {"status": status} for status in (422, 429, 500, 503, 504, 529)},
    "limits": {"status": 429, "headers": {"retry-after": "7", "retry-after-ms": "6500"}},
    "limits-oddly": {"status": 429, "headers": {"retry-after": "soon", "x-should-retry": "\xe9"}},
    "explains": {
        "status": 400,
        "body": {
            "type": "error",
            "error": {"type": "made_up", "message": "\u2603 \u0085", "details": {"a": [1]}},
            "request_id": "req_abc",
        },
    },
    "knows-no-model": {
        "status": 404,
        "body": {"type": "error", "error": {"type": "not_found_error", "message": "model: x"}},
    },
    "counts-nothing": {"body": {"input_tokens": 0}},
    "counts-text": {"body": {"input_tokens": "7"}},
    "counts-twice": {"body": '{"input_tokens":1,"input_tokens":2}'},
    "adds": {"body": {"input_tokens": 7, "context_management": {"original_input_tokens": 9}}},
    "adds-much": {"body": {"input_tokens": 7, "more": "x" * 70_000}},
    "is-a-page": {"body": "<html>", "headers": {"content-type": "text/html"}},
    "redirects": {"status": 302, "headers": {"location": "/"}},
    "is-slow": {"delay_s": 0.03},
    "is-cut": {"truncate_bytes": -3},
    "is-garbage": {"raw": "\x00\xff"},
    "resets": {"reset": True},
    "hangs": {"hang": True},
}
FAILING, HANGS_S = "failing", 0.2
