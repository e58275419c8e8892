"""Another process of the same machine, that does what it is told line by line."""

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parent.parent

_DRIVER = """
import sys
scope = {}
exec(sys.argv[1], scope)
print("'ready'", flush=True)
for line in sys.stdin:
    print(repr(eval(line, scope)), flush=True)
"""


class Peer:
    """Runs ``setup``, and then evaluates an expression at a time.

    Ends with its context; ``kill`` ends it as a crash does.
    """

    def __init__(self, setup: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, setup],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, expression: str) -> Any:
        """Evaluate the expression there and return its value."""
        self.tell(expression)
        return self._answer()

    def tell(self, expression: str) -> None:
        """Have the expression evaluated; ``listen`` waits for its value."""
        assert self._process.stdin is not None
        self._process.stdin.write(expression + "\n")
        self._process.stdin.flush()

    def listen(self) -> Any:
        return self._answer()

    def kill(self) -> None:
        """Send SIGKILL and wait until the process is gone."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the other process has ended"
        return ast.literal_eval(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.kill()
