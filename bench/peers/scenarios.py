"""The same work asked of each: one question again and again, and questions that are all new."""

from msgspec.structs import replace

from bench.scenarios import SCENARIOS, Scenario, Server, Traffic, Upstream


def _repeat(server: Server, says: str, upstream: Upstream) -> Scenario:
    return Scenario(
        name=server.value,
        says=f"{says}: one question again and again",
        server=server,
        upstream=upstream,
        # wrk leaves questions outstanding at its end, which would be asked in the next slice.
        is_own=upstream is Upstream.EACH,
    )


def _miss(server: Server, says: str) -> Scenario:
    return Scenario(
        name=f"{server}-miss",
        says=f"{says}: no two questions alike",
        server=server,
        upstream=Upstream.EACH,
        traffic=Traffic.UNIQUE,
    )


def _both(server: Server, says: str, upstream: Upstream) -> tuple[Scenario, ...]:
    return _repeat(server, says, upstream), _miss(server, says)


PEERS = {
    "litellm": _both(Server.LITELLM, "LiteLLM's proxy, one worker", Upstream.EACH),
    "portkey": _both(Server.PORTKEY, "Portkey's gateway, one process", Upstream.EACH),
    "nginx-cache": _both(
        Server.NGINX_CACHE, "nginx, one worker, a cache keyed on path and body", Upstream.NONE
    ),
    "bare": (SCENARIOS["bare"], replace(SCENARIOS["miss-plain-httpx"], compared_with=())),
    "nginx": (replace(SCENARIOS["nginx"], compared_with=()),),
}
"""What each peer is asked, repeats first."""


def chosen(peers: list[str]) -> dict[str, Scenario]:
    """What is asked of some peers, and last of this proxy, which is compared with all of them."""
    asked = [scenario for peer in PEERS if peer in peers for scenario in PEERS[peer]]
    misses = tuple(one.name for one in asked if one.traffic is Traffic.UNIQUE)
    repeats = tuple(one.name for one in asked if one.traffic is Traffic.CONSTANT)
    ours = (
        replace(SCENARIOS["repeat"], compared_with=repeats),
        replace(SCENARIOS["miss"], compared_with=misses),
    )
    return {scenario.name: scenario for scenario in (*asked, *ours)}
