"""config.yaml as plain data: where each key stands, and what ``os.environ/NAME`` resolves to."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

ENV_PREFIX = "os.environ/"

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
# PyYAML lets the last one out of a timestamp that is none (6.0.3).
_NOT_YAML = (
    yaml.YAMLError,
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
    AttributeError,
)

KeyPath = tuple[str | int, ...]


class ConfigError(Exception):
    """The configuration cannot be used; the text names file, line, key and remedy.

    Not a ValueError: Sanic's command line swallows those and ends with exit code 0 (25.12.1).
    """


class Source:
    """The parsed file, and the line of each of its keys."""

    def __init__(self, name: str, text: str, environ: Mapping[str, str]) -> None:
        self.name = name
        self.environ = environ
        self._lines: dict[KeyPath, int] = {}
        try:
            root = yaml.compose(text, Loader=yaml.CSafeLoader)
            self._walk(root, ())
            loaded = yaml.load(text, Loader=yaml.CSafeLoader)
        except yaml.constructor.ConstructorError as error:
            # Its text repeats what it takes for a tag, such as an unquoted password.
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(
                f"{name}:{line}: not YAML: put quotes around a value that begins with !"
            ) from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{name}:{line}: not YAML: {error.problem}") from None
        except _NOT_YAML as error:
            raise ConfigError(f"{name}: not YAML: {type(error).__name__}") from None
        if loaded is None:
            loaded = {}
        if not isinstance(loaded, dict):
            raise ConfigError(f"{name}: must be a mapping with a model_list; see config.yaml")
        self.data: dict[str, Any] = loaded

    def error(self, path: KeyPath, message: str) -> ConfigError:
        """Compose ``file:line: key: message`` for the deepest part of ``path`` that stands."""
        known = next(
            (path[:end] for end in range(len(path), 0, -1) if path[:end] in self._lines), ()
        )
        line = f":{self._lines[known]}" if known else ""
        return ConfigError(f"{self.name}{line}: {dotted(path)}: {message}")

    def resolve(self, value: Any, path: KeyPath) -> Any:
        """Replace every ``os.environ/NAME`` below ``value``; an unset one is a ConfigError."""
        if isinstance(value, dict):
            return {key: self.resolve(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, (*path, index)) for index, item in enumerate(value)]
        name = variable(value)
        if name is None:
            return value
        if not self.environ.get(name):
            shown = shown_variable(name)
            raise self.error(path, f"environment variable {shown} is not set; set it or the value")
        return self.environ[name]

    def _walk(self, node: yaml.Node | None, path: KeyPath) -> None:
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._lines[(*path, index)] = item.start_mark.line + 1
                self._walk(item, (*path, index))
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                here = (*path, key.value)
                if here in self._lines:
                    line = key.start_mark.line + 1
                    raise ConfigError(f"{self.name}:{line}: {dotted(here)}: written twice")
                self._lines[here] = key.start_mark.line + 1
                self._walk(value, here)


_read: dict[str, str] = {}
_accepted: dict[str, str] = {}


class Accepted:
    """The file as the main process has read it: a worker that starts later reads the same.

    The file may have changed meanwhile, for the worse too. Unpickling it does it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._text = _read[name]

    def __reduce__(self) -> tuple[Callable[[str, str], None], tuple[str, str]]:
        return _accept, (self._name, self._text)


def _accept(name: str, text: str) -> None:
    _accepted[name] = text


def read(path: Path, environ: Mapping[str, str]) -> Source:
    """Read a file. Raises ConfigError when it is not there or not YAML."""
    if (text := _accepted.get(str(path))) is not None:
        return Source(str(path), text, environ)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(
            f"{path}: {reason}; give a config.yaml here or its path in TALLYGATE_CONFIG"
        ) from None
    _read[str(path)] = text
    return Source(str(path), text, environ)


def variable(value: object) -> str | None:
    """Return NAME for ``os.environ/NAME``, else None."""
    if isinstance(value, str) and value.startswith(ENV_PREFIX):
        return value.removeprefix(ENV_PREFIX)
    return None


def shown_variable(name: str) -> str:
    """Name a variable that is not set, but not what may be a credential in its place."""
    return name if _VARIABLE.fullmatch(name) else f"after {ENV_PREFIX}"


def dotted(path: KeyPath) -> str:
    """Write a path as people do: ``model_list[0].litellm_params.model``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
