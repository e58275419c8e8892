"""Whether a caller is on this machine."""

import ipaddress
from collections.abc import Container

PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def from_this_machine(ip: str, headers: Container[str]) -> bool:
    """Say whether the caller is on this machine, and no proxy speaks for somebody else."""
    if any(name in headers for name in PROXY_HEADERS):
        return False
    try:
        return ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return False
