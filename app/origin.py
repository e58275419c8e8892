"""Whether a caller is on this machine."""

import ipaddress

from sanic.request import Request

PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def from_this_machine(request: Request) -> bool:
    """Say whether the caller is on this machine, and no proxy speaks for somebody else."""
    if any(name in request.headers for name in PROXY_HEADERS):
        return False
    try:
        return ipaddress.ip_address(request.ip).is_loopback
    except ValueError:
        return False
