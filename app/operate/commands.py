"""``python -m app cache``: look at what is remembered, carry it elsewhere, forget it.

Works on the tiers themselves, whether a server runs or not; a running one hears of a purge within
two seconds. An export holds keys and counts: no prompt, no credential.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import msgspec

from app.config import Settings, load
from app.memory import keep_s
from app.operate.archive import (
    ArchiveError,
    Exported,
    Importer,
    read_header,
    whole_file,
    write_archive,
)
from app.operate.purge import purge, upstream_models
from app.operate.shared_tiers import SharedTiers, TierError
from app.operate.terminal import progress, remark, say
from app.routing import Router
from cache.stats import cluster_stats, host_stats

WALL_CLOCK = time.time  # noqa: TID251 -- the injected clock itself

Run = Callable[[argparse.Namespace, Settings, SharedTiers], Awaitable[int]]


def add_cache_commands(commands: Any) -> Any:
    """Add ``cache`` and all that needs no server; return where to add what does."""
    cache = commands.add_parser("cache", help="look at, carry, forget and check what is remembered")
    inner = cache.add_subparsers(required=True, metavar="stats | export | import | purge | verify")
    stats = inner.add_parser("stats", help="how much is remembered, and where")
    stats.add_argument("--json", action="store_true", help="the same as one JSON object")
    export = inner.add_parser("export", help="write keys and counts to a file; no content")
    export.add_argument("file", help="NDJSON, of mode 0600; - is standard output")
    import_ = inner.add_parser("import", help="read a file that export wrote")
    import_.add_argument("file", help="NDJSON; - is standard input")
    purge_ = inner.add_parser("purge", help="forget a model's counts, in every tier and worker")
    purge_.add_argument("--model", required=True, help="a model_name, or an upstream model")
    for parser, run, create in (
        (stats, _stats, False),
        (export, _export, False),
        (import_, _import, True),
        (purge_, _purge, True),
    ):
        parser.add_argument("--config", help="default: $TALLYGATE_CONFIG, else ./config.yaml")
        parser.add_argument(
            "--without",
            action="append",
            default=[],
            choices=("host", "cluster"),
            help="leave a tier out that the configuration names",
        )
        parser.set_defaults(run=_with_tiers(run, create=create))
    return inner


def _with_tiers(run: Run, *, create: bool) -> Callable[[argparse.Namespace], int]:
    """Load the configuration and open its tiers around a command."""

    async def work(options: argparse.Namespace, settings: Settings) -> int:
        without = frozenset(options.without)
        async with SharedTiers(settings, WALL_CLOCK, without=without, create=create) as tiers:
            return await run(options, settings, tiers)

    def command(options: argparse.Namespace) -> int:
        settings = load(options.config)
        try:
            return asyncio.run(work(options, settings))
        except TierError as error:
            remark(str(error))
        except ArchiveError as error:
            remark(f"{options.file}: {error}")
        except OSError as error:
            remark(f"{error.filename or getattr(options, 'file', '-')}: {error.strerror or error}")
        return 1

    return command


async def _stats(options: argparse.Namespace, settings: Settings, tiers: SharedTiers) -> int:
    del settings
    host = {"used": tiers.host_is, **(host_stats(tiers.host) if tiers.host else {})}
    cluster = {
        "used": tiers.cluster_is,
        **(await cluster_stats(tiers.cluster) if tiers.cluster else {}),
    }
    sections: dict[str, dict[str, Any]] = {"host": host, "cluster": cluster}
    in_trouble = any(section.get("trouble") for section in sections.values())
    if not in_trouble:
        sections["generations"] = dict((await tiers.generations()).ahead_of({}))
    if options.json:
        say(msgspec.json.encode(sections).decode())
        return int(in_trouble)
    for section, values in sections.items():
        for name, value in values.items():
            say(f"{section:<12}{name:<16}  {'-' if value is None else value}")
    return int(in_trouble)


async def _export(options: argparse.Namespace, settings: Settings, tiers: SharedTiers) -> int:
    if tiers.is_empty:
        raise TierError(f"nothing to export from: {tiers.names}")
    total = host_stats(tiers.host).get("entries") if tiers.host else None
    with ExitStack() as stack:
        file: IO[bytes] = sys.stdout.buffer
        if options.file != "-":
            file = stack.enter_context(whole_file(Path(options.file)))
        advance = stack.enter_context(progress("export", None if tiers.cluster else total))
        done = await write_archive(tiers, _fingerprint(settings), WALL_CLOCK(), file.write, advance)
        file.flush()
    _tell_export(done, tiers, remark if options.file == "-" else say)
    return 0


def _tell_export(done: Exported, tiers: SharedTiers, tell: Callable[[str], None]) -> None:
    left_out = f"; left out {done.bad} that this installation did not write" if done.bad else ""
    tell(f"exported {done.counts}{left_out}")
    tell(tiers.names)


async def _import(options: argparse.Namespace, settings: Settings, tiers: SharedTiers) -> int:
    if tiers.is_empty:
        raise TierError(f"nothing to import into: {tiers.names}")
    with ExitStack() as stack:
        file, size = _opened(options.file, stack)
        header = read_header(file, _fingerprint(settings))
        known = await tiers.generations()
        known.merge(header.generations)
        generations = known.ahead_of({})
        await tiers.raise_generations(generations)
        importer = Importer(tiers, generations, WALL_CLOCK, keep_s(settings))
        advance = stack.enter_context(progress("import", size))
        try:
            await importer.read(file, advance)
        except ArchiveError:  # what there was is committed; after a TierError nobody can say
            _tell_import(importer, tiers)
            raise
    _tell_import(importer, tiers)
    return 0


def _opened(name: str, stack: ExitStack) -> tuple[IO[bytes], int | None]:
    """Open a file to read, and say how many bytes it has where that is known. Raises OSError."""
    if name == "-":
        return sys.stdin.buffer, None
    return stack.enter_context(Path(name).open("rb")), Path(name).stat().st_size or None


def _tell_import(importer: Importer, tiers: SharedTiers) -> None:
    done = importer.done
    say(f"imported {done.imported}, skipped {done.purged + done.expired}, bad {done.bad}")
    if done.purged:
        say(f"skipped {done.purged}: belongs to a generation that was purged")
    if done.expired:
        say(f"skipped {done.expired}: expired")
    say(tiers.names)


async def _purge(options: argparse.Namespace, settings: Settings, tiers: SharedTiers) -> int:
    name: str = options.model
    if "*" in name:
        remark(f"{name}: a pattern; name one model at a time")
        return 2
    if tiers.is_empty:
        raise TierError(
            f"a running server cannot be told: {tiers.names}; restart it, and it has forgotten all"
        )
    models = upstream_models(Router(settings.models), name)
    if not models:
        remark(f"{name}: no name of {settings.source}; taken for an upstream model")
        models = (name,)
    with progress("purge") as advance:
        done = await purge(tiers, models, advance)
    for model in models:
        say(f"{model}: a new generation; counts of before are not served any more")
    for tier, deleted in (("host", done.host), ("cluster", done.cluster)):
        if deleted is not None:
            say(f"{tier}: deleted {deleted}")
    say(tiers.names)
    return 0


def _fingerprint(settings: Settings) -> str:
    """Tell secrets apart by 8 bytes that are derived like the others, and lead back to none."""
    return settings.secret("export-fingerprint")[:8].hex()
