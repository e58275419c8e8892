"""A simulated provider: a real HTTP server that answers as the counting APIs do.

    with SimulatedProvider() as provider:
        provider.behave(status=529, times=2)
        ...                                   # ask provider.url; two asks are refused
        assert provider.calls == 3

From a shell it is ``python -m bench.provider``, steered over HTTP (``bench.provider.control``).
Another provider is one more ``Wire`` and its line in ``simulation.WIRES``.
"""

from bench.provider.behaviour import Behaviour
from bench.provider.count import count_tokens
from bench.provider.exchange import Reply, Request, Wire
from bench.provider.server import SimulatedProvider

__all__ = ["Behaviour", "Reply", "Request", "SimulatedProvider", "Wire", "count_tokens"]
