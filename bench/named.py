"""The scenarios that run only when they are named, alone or by the name of a group."""

from collections.abc import Iterator

from bench.scenarios import MILLION, SCENARIOS, SLOW_S, Fault, Scenario, Server, Traffic, Upstream

GOOGLE_ALIASES = frozenset({"gemini", "vertex-gemini"})
"""Counters that count a question in Google's form."""
ADAPTERS = ("vertex-claude", "bedrock", "bedrock-mantle", *sorted(GOOGLE_ALIASES))
"""Each is the alias of an entry. Anthropic's own are ``repeat`` and ``miss``."""
_WORKERS = {4: Server.WORKERS_4, 8: Server.WORKERS_8}
_BESIDE = {
    Fault.WELL: "repeats beside new questions about another model, all answered at once",
    Fault.SLOW: f"the same, but the other model's provider takes {SLOW_S * 1000:g} ms",
    Fault.LIMITED: "the same, but the other model's provider answers 429",
}


def _providers() -> Iterator[Scenario]:
    for alias in ADAPTERS:
        yield Scenario(
            name=f"repeat-{alias}",
            says=f"{Traffic.CONSTANT}, counted by {alias}",
            server=Server.PROVIDERS,
            alias=alias,
            compared_with=("repeat",),
        )
        yield Scenario(
            name=f"miss-{alias}",
            says=f"{Traffic.UNIQUE}, counted by {alias}",
            server=Server.PROVIDERS,
            upstream=Upstream.EACH,
            traffic=Traffic.UNIQUE,
            alias=alias,
            compared_with=("miss",),
        )


def _faults() -> Iterator[Scenario]:
    for fault, says in _BESIDE.items():
        well = () if fault is Fault.WELL else (Fault.WELL.alias,)
        yield Scenario(
            name=fault.alias, says=says, server=Server.FAULTS, beside=fault, compared_with=well
        )


def _scale() -> Iterator[Scenario]:
    for number, server in _WORKERS.items():
        yield Scenario(
            name=server,
            says=f"the same with {number} workers",
            server=server,
            compared_with=("repeat",),
        )
    yield Scenario(
        name=Server.BARE_8,
        says="bare Sanic with 8 workers: what so many cost on this machine whatever they do",
        server=Server.BARE_8,
        compared_with=("bare",),
    )


def _sinks() -> Iterator[Scenario]:
    for traffic, upstream in ((Traffic.ZIPF, Upstream.NONE), (Traffic.UNIQUE, Upstream.EACH)):
        name = "" if traffic is Traffic.ZIPF else "miss-"
        alone, told = f"{name}no-sinks", f"{name}sinks"
        yield Scenario(
            name=alone,
            says=f"{traffic}; nobody is told",
            server=Server.NO_SINKS,
            traffic=traffic,
            upstream=upstream,
        )
        yield Scenario(
            name=told,
            says="the same, and all sinks are told, at their defaults",
            server=Server.SINKS,
            traffic=traffic,
            upstream=upstream,
            compared_with=(alone,),
        )


NAMED = {
    scenario.name: scenario
    for scenario in (
        *_providers(),
        *_faults(),
        *_scale(),
        *_sinks(),
        Scenario(
            name="host-file",
            says="zipf, but the worker remembers next to nothing: its host's file answers",
            server=Server.HOST_FILE,
            traffic=Traffic.ZIPF,
            compared_with=("zipf", "miss"),
        ),
        Scenario(
            name="million",
            says=f"{MILLION:,} repeats and more: what memory a worker then holds",
            server=Server.MILLION,
            until_answers=MILLION,
        ),
        Scenario(
            name="soak",
            says="zipf and some misses beside, for --soak-s seconds: what grows",
            server=Server.SOAK,
            traffic=Traffic.ZIPF,
            beside=Fault.WELL,
            is_soak=True,
        ),
    )
}
GROUPS = {
    "providers": ("repeat", "miss", *(one.name for one in _providers())),
    "faults": tuple(one.name for one in _faults()),
    "sinks": tuple(one.name for one in _sinks()),
    "scale": ("bare", "repeat", Server.WORKERS_2, *(one.name for one in _scale())),
}
ALL = SCENARIOS | NAMED
