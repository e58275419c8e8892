"""The array that all workers of a server count in: made by the main process, a row for each."""

import multiprocessing
from collections.abc import MutableSequence
from typing import Any, cast

from app.config import Settings
from app.telemetry.layout import Layout
from app.telemetry.metrics import Metrics


def metrics_layout(settings: Settings) -> Layout:
    """Fix the series of one configuration: the same in the main process and in every worker."""
    deployments = settings.models.deployments
    names = dict.fromkeys((*(d.alias for d in deployments), *settings.models.aliases))
    providers = dict.fromkeys(d.provider for d in deployments)
    return Layout(names, providers, (d.name for d in deployments))


def shared_metrics(settings: Settings, rows: int) -> MutableSequence[float]:
    """Make the array that all workers of this server count in; the last row is for totals."""
    slots = metrics_layout(settings).width * (rows + 1)
    return cast("MutableSequence[float]", multiprocessing.RawArray("d", slots))


def own_metrics(
    settings: Settings, shared: MutableSequence[float] | None, row: int | None
) -> Metrics:
    """Take this worker's row; a process without one counts for itself."""
    layout = metrics_layout(settings)
    if shared is None or row is None or len(shared) % layout.width:
        shared, row = multiprocessing.RawArray("d", layout.width), 0
    # Of two views of the same memory the one that is the faster.
    array = cast("MutableSequence[float]", memoryview(cast("Any", shared)).cast("B").cast("d"))
    return Metrics(layout, array, rows=len(array) // layout.width, row=row)
