"""One pure file per provider: bytes in, bytes out; no I/O, no clock, nothing of app/ or cache/."""
