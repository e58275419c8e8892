"""An operator's own Python objects, by their import paths, as LiteLLM finds them."""

import importlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from app.telemetry.callback import METHODS, method_of


class CallbackImportError(Exception):
    """A path that leads to nothing that can be called; the text names it and says why."""


def import_all(paths: Iterable[str], folder: Path) -> tuple[tuple[str, object], ...]:
    """Import each ``module.name``: an object, or a class to make one of.

    A file beside the configuration, in ``folder``, comes before what is installed, as LiteLLM has
    it (1.109.1, ``get_instance_fn``). Raises CallbackImportError.
    """
    return tuple((path, _import(path, folder)) for path in paths)


def _import(path: str, folder: Path) -> object:
    module_name, _, name = path.rpartition(".")
    try:
        module = _module(module_name, folder)
        target = getattr(module, name)
        if isinstance(target, type):
            target = target()
    except (Exception, SystemExit) as error:
        # The text of an import's failure names a module; any other may hold anything.
        said = f": {error}" if isinstance(error, ImportError | AttributeError) else ""
        raise CallbackImportError(
            f"{path}: cannot be imported: {type(error).__name__}{said}"
        ) from error
    if not any(method_of(target, outcome) for outcome in METHODS):
        known = ", ".join(name for names in METHODS.values() for name in names)
        raise CallbackImportError(f"{path}: has none of {known}")
    return target


def _module(name: str, folder: Path) -> ModuleType:
    file = folder.joinpath(*name.split(".")).with_suffix(".py")
    if not file.is_file():
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
