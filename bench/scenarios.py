"""The scenarios: what is asked of whom, what must come back, what the figure is compared with."""

from enum import StrEnum

from msgspec import Struct

COUNT_PATH = "/v1/messages/count_tokens"
HTTPX_PATH = "/plain-httpx"
BARE_TOKENS = 14
NGINX_TOKENS = 173
"""As long as a repeat's answer."""
PROVIDER_VARIABLE = "BENCH_PROVIDER_URL"
"""Environment variable that tells the bare Sanic where the provider is."""
HERD_DELAY_S = 0.4
HERD_CONNECTIONS = 1_000
SLOW_S = 0.2
MILLION = 1_000_000
LARGE_BYTES = 100_000
"""From this size on few connections ask, and the C library's heap is made to grow first."""
LARGE_CONNECTIONS = 16


class Server(StrEnum):
    """Who is asked."""

    PROXY = "proxy"
    ORDINARY = "ordinary"
    WORKERS_2 = "workers-2"
    WORKERS_4 = "workers-4"
    WORKERS_8 = "workers-8"
    PROVIDERS = "providers"
    """Has an entry for each adapter."""
    FAULTS = "faults"
    """Has an entry beside, for each ``Fault``."""
    SOAK = "soak"
    """Has little room in its memory, so that this is full early."""
    MILLION = "million"
    HOST_FILE = "host-file"
    """Remembers next to nothing itself."""
    SINKS = "sinks"
    """Tells everybody there is, at the defaults: lines, ledger, webhook, collector, callback."""
    NO_SINKS = "no-sinks"
    """Tells nobody but its metrics."""
    BARE = "bare"
    BARE_8 = "bare-workers-8"
    NGINX = "nginx"
    PROVIDER = "provider"
    RAW = "raw"
    """A raw socket that answers a constant: how fast the own generator is."""
    LITELLM = "litellm"
    PORTKEY = "portkey"
    NGINX_CACHE = "nginx-cache"

    @property
    def is_bare(self) -> bool:
        """Whether it is Sanic without us."""
        return self in {Server.BARE, Server.BARE_8}


class Traffic(StrEnum):
    """What is asked."""

    CONSTANT = "one question again and again"
    BLANK = "one question, each time in other insignificant white space"
    UNIQUE = "no two questions alike"
    ZIPF = "1,000 questions of 50 callers, some much more often than others"
    CLAUDE_CODE = "what Claude Code asks"

    @property
    def is_mix(self) -> bool:
        """Whether several callers ask several questions."""
        return self in {Traffic.ZIPF, Traffic.CLAUDE_CODE}


class Upstream(StrEnum):
    """How many calls the provider must see: a hit that asks is none, nor a miss that does not."""

    NONE = "none at all"
    EACH = "one for each answer"
    ONE = "one in all"


class Fault(StrEnum):
    """What the provider of another model does, which is asked beside: one entry for each."""

    WELL = "well"
    SLOW = "slow"
    LIMITED = "429"

    @property
    def alias(self) -> str:
        """Of its entry in ``model_list``."""
        return f"beside-{self}"


class Scenario(Struct, frozen=True, kw_only=True):
    """One row of the table."""

    name: str
    says: str
    server: Server = Server.PROXY
    upstream: Upstream = Upstream.NONE
    traffic: Traffic = Traffic.CONSTANT
    path: str = COUNT_PATH
    body_bytes: int = 300
    connections: int = 0
    """0: as many as the options say."""
    at_once: int = 0
    """This many connections ask once, together, a question that nobody has asked before."""
    is_open: bool = False
    """Questions fall due at half the rate that ``repeat`` has reached, answered or not."""
    is_own: bool = False
    """Asked by the own generator in any case, to be compared with what only that can ask."""
    alias: str = ""
    """The model that is asked about, if not the one that the options say."""
    beside: Fault | None = None
    """New questions about another model are asked beside, at a steady rate."""
    is_soak: bool = False
    """Played once, in ten parts of as many seconds in all as the options say."""
    until_answers: int = 0
    """Played once, in slices until there are so many answers in all."""
    compared_with: tuple[str, ...] = ()
    """Scenarios of the same round that this one is divided by."""
    added_to: str | None = None
    """The scenario of the same round whose median latency is taken from this one's."""

    @property
    def fits_wrk(self) -> bool:
        """Whether prepared requests alone can ask it."""
        special = self.at_once or self.is_open or self.is_own
        return not special and (self.traffic is Traffic.CONSTANT or self.traffic.is_mix)

    @property
    def is_ours(self) -> bool:
        """Whether it needs a server that was started here, with our configuration."""
        anybodys = {Server.PROXY, Server.NGINX, Server.RAW}
        own = not (self.server.is_bare or self.server in anybodys)
        return own or self.upstream is not Upstream.NONE or self.traffic.is_mix

    @property
    def is_long(self) -> bool:
        """Whether it is played once, whatever the number of rounds."""
        return self.is_soak or self.until_answers > 0


def _pair(size: str, body_bytes: int) -> tuple[Scenario, Scenario]:
    few = LARGE_CONNECTIONS if body_bytes >= LARGE_BYTES else 0
    bare = Scenario(
        name=f"bare-{size}",
        says=f"bare Sanic receives {body_bytes:,} bytes, answers a constant",
        server=Server.BARE,
        body_bytes=body_bytes,
        connections=few,
    )
    repeat = Scenario(
        name=f"repeat-{size}",
        says=f"one question of {body_bytes:,} bytes again and again",
        body_bytes=body_bytes,
        connections=few,
        compared_with=(bare.name,),
    )
    return bare, repeat


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(name="bare", says="bare Sanic answers a constant", server=Server.BARE),
        Scenario(
            name="nginx",
            says="nginx, one worker, answers a constant",
            server=Server.NGINX,
            compared_with=("bare",),
        ),
        Scenario(name="repeat", says=Traffic.CONSTANT, compared_with=("bare", "nginx")),
        Scenario(
            name="ordinary",
            says="the same with server.hit_lane: false",
            server=Server.ORDINARY,
            compared_with=("bare",),
        ),
        Scenario(
            name="workers-2",
            says="the same with two workers: what an answer costs them",
            server=Server.WORKERS_2,
            compared_with=("repeat",),
        ),
        *_pair("12k", 12_000),
        *_pair("105k", 105_000),
        *_pair("1m", 1_050_000),
        Scenario(
            name="zipf",
            says=Traffic.ZIPF,
            traffic=Traffic.ZIPF,
            compared_with=("bare",),
        ),
        Scenario(
            name="claude-code",
            says="its bursts, pairs with and without tools, growing conversations; all known",
            traffic=Traffic.CLAUDE_CODE,
            compared_with=("bare",),
        ),
        Scenario(
            name="bare-own",
            says="bare Sanic answers a constant, asked by the own generator",
            server=Server.BARE,
            is_own=True,
        ),
        Scenario(
            name="other-bytes",
            says=Traffic.BLANK,
            traffic=Traffic.BLANK,
            compared_with=("bare-own",),
        ),
        Scenario(
            name="miss-plain-httpx",
            says="bare Sanic asks the provider with httpx.AsyncClient",
            server=Server.BARE,
            upstream=Upstream.EACH,
            path=HTTPX_PATH,
            traffic=Traffic.UNIQUE,
            compared_with=("bare-own",),
        ),
        Scenario(
            name="miss",
            says="no two questions alike, instant provider",
            upstream=Upstream.EACH,
            traffic=Traffic.UNIQUE,
            compared_with=("bare-own", "miss-plain-httpx"),
        ),
        Scenario(
            name="provider",
            says="the simulated provider itself, one question at a time",
            server=Server.PROVIDER,
            upstream=Upstream.EACH,
            traffic=Traffic.UNIQUE,
            connections=1,
        ),
        Scenario(
            name="miss-latency",
            says="a miss at a time: what it adds to the provider's own time",
            upstream=Upstream.EACH,
            traffic=Traffic.UNIQUE,
            connections=1,
            added_to="provider",
        ),
        Scenario(
            name="herd",
            says=f"{HERD_CONNECTIONS:,} connections, one cold question,"
            f" provider takes {HERD_DELAY_S:g} s",
            upstream=Upstream.ONE,
            at_once=HERD_CONNECTIONS,
        ),
        Scenario(
            name="open-loop-raw",
            says="the raw socket at the same rate: what the generator and the machine take",
            server=Server.RAW,
            is_open=True,
        ),
        Scenario(
            name="open-loop",
            says="repeats at a constant rate, timed from when each was due",
            is_open=True,
        ),
    )
}
