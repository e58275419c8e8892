"""The operator's log: one logger, on standard error; counts have their own lines elsewhere."""

import logging
import sys
import time
import traceback

logger = logging.getLogger("tallygate")

REPEAT_AFTER_S = 60.0
MAX_REMEMBERED = 256

_last_said: dict[str, float] = {}


def configure_logging(level: str) -> None:
    """Log to standard error: standard output is for the lines of counts."""
    logging.basicConfig(
        stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    logger.setLevel(level.upper())
    logging.getLogger("sanic.root").setLevel(logging.WARNING)


def describe(error: BaseException) -> str:
    """Name an exception and its place, without its text: that may quote a prompt."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"


def warn_operator(detail: str) -> None:
    """Log what the operator must mend, once a minute however many requests run into it."""
    now = time.monotonic()
    if now - _last_said.get(detail, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
        return
    if len(_last_said) >= MAX_REMEMBERED:
        _last_said.clear()
    _last_said[detail] = now
    logger.warning("%s", detail)
