"""``python -m bench micro``: each stage of the hot path in nanoseconds, timed with pyperf.

Every process that times a stage first judges what it does. Options of pyperf work too: ``--fast``,
``--rigorous``, ``--processes``; two results are compared by ``python -m pyperf compare_to``.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import pyperf
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.micro.house import House
from bench.micro.stage import BrokenStageError, Stage, Timed, prepared
from bench.micro.stages import STAGES

WIDTH = 110
PROCESSES, VALUES, VALUE_S = 2, 6, 0.02
"""For each stage: 24 of them take a minute."""


def main(arguments: list[str]) -> None:
    """Time the stages named, or all. Exits with 1 where one does not do what it says."""
    runner = pyperf.Runner(
        program_args=("-m", "bench", "micro"),
        processes=PROCESSES,
        values=VALUES,
        min_time=VALUE_S,
        metadata={"tallygate_commit": machine.commit()},
        add_cmdline_args=_pass_on,
    )
    parser = runner.argparser
    parser.prog = "python -m bench micro"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(f"{stage.name:14} {stage.says}" for stage in STAGES.values())
    parser.add_argument("stage", nargs="*", help="all, if none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    options = runner.parse_args(arguments)
    if unknown := sorted(set(options.stage) - set(STAGES)):
        parser.error(f"no such stage: {', '.join(unknown)}")
    chosen = [stage for stage in STAGES.values() if stage.name in (options.stage or STAGES)]
    options.quiet = True  # pyperf's advice is to tune the machine
    try:
        with ExitStack() as stack:
            found = [runner.bench_time_func(stage.name, _clock(stage, stack)) for stage in chosen]
    except (BrokenStageError, RuntimeError) as error:  # RuntimeError: of a process that timed
        sys.exit(f"FAILED: {error}")
    if options.worker:
        return
    _show(found)
    if options.json:
        pyperf.BenchmarkSuite(found).dump(str(options.json), replace=True)
        print(f"written to {options.json}")


def _pass_on(command: list[str], options: argparse.Namespace) -> None:
    """The workers number the stages as this process does, so they have to know the same ones."""
    command.extend(options.stage)


def _clock(stage: Stage, stack: ExitStack) -> Callable[[int], float]:
    """What pyperf asks for the seconds of so many calls; it prepares the stage when first asked."""
    ready: list[Timed] = []

    def seconds(loops: int) -> float:
        if not ready:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="tallygate-micro-"))
            os.environ["XDG_CACHE_HOME"] = scratch
            ready.append(prepared(stage, stack.enter_context(House(Path(scratch)))))
        return _seconds(ready[0].call, islice(ready[0].inputs, loops))

    return seconds


def _seconds(call: Callable[[object], object], inputs: Iterator[object]) -> float:
    """Time the calls alone, by this thread's own processor time: others use the machine too."""
    given = list(inputs)
    started = time.thread_time()
    for one in given:
        call(one)
    return time.thread_time() - started


def _show(found: list[pyperf.Benchmark]) -> None:
    table = Table("stage", title=f"commit {machine.commit()}", title_justify="left")
    for heading in ("median ns", "lowest", "highest"):
        table.add_column(heading, justify="right")
    table.add_column("what it is")
    for one in found:
        values_s = (one.median(), min(one.get_values()), max(one.get_values()))
        cells = (f"{value_s * 1e9:,.0f}" for value_s in values_s)
        table.add_row(one.get_name(), *cells, STAGES[one.get_name()].says)
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    console.print(table)
