"""The name of a server → its addresses, by threads that nobody waits for.

A look-up can neither be cancelled nor be told how long it may take. The loop has four threads for
them, which are also there for others, and whose end the process waits for: four that hang would
hold up everybody's names, a server's return and the worker's end.
"""

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Callable

PATIENCE_S = 3.0
"""After this another look-up begins beside one that hangs: the name server may be back."""
MAX_HANGING = 16
"""Look-ups at a time; as a rule, one ends within half a minute."""

Addresses = list[str]


class Names:
    """Looks one name up, for one loop; who asks while a look-up is young waits for that one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hanging = 0
        self._began_s = 0.0
        self._last: asyncio.Future[Addresses] | None = None

    async def find(self, host: str, port: int) -> Addresses:
        """Return the addresses of a host, best first. Raises OSError."""
        if _is_address(host):
            return [host]
        last, now_s = self._last, self._clock()
        if last is None or last.done() or now_s - self._began_s >= PATIENCE_S:
            last = self._begin(host, port, now_s) or last
        if last is None:
            raise TimeoutError("too many look-ups hang")
        return await asyncio.shield(last)

    def _begin(self, host: str, port: int, now_s: float) -> asyncio.Future[Addresses] | None:
        if self._hanging >= MAX_HANGING:
            return None
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Addresses] = loop.create_future()

        def tell(answer: Addresses | OSError) -> None:
            self._hanging -= 1
            if isinstance(answer, OSError):
                found.set_exception(answer)
                found.exception()  # looked at: perhaps nobody waits any more
            else:
                found.set_result(answer)

        def look_up() -> None:
            answer = _look_up(host, port)
            try:
                loop.call_soon_threadsafe(tell, answer)
            except RuntimeError:
                return  # the loop has ended

        # Counted once it runs: where no thread can be had there is nothing that ends.
        threading.Thread(target=look_up, name="look-up", daemon=True).start()
        self._hanging += 1
        self._began_s, self._last = now_s, found
        return found


def _look_up(host: str, port: int) -> Addresses | OSError:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return error
    except UnicodeError:
        return socket.gaierror("a name that cannot be written")
    return list(dict.fromkeys(str(at[4][0]) for at in found))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
