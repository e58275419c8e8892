"""The servers of ``python -m bench``, and the peers in front of the same simulated provider."""

from msgspec.structs import replace

from bench import machine
from bench.peers import installed, nginx_cache
from bench.play import Hits
from bench.scenarios import Server
from bench.servers import Process, Started, free_port
from bench.slice import Address
from bench.stage import Stage

PEERS = frozenset({Server.LITELLM, Server.PORTKEY, Server.NGINX_CACHE})


class Tree(Started, frozen=True):
    """A peer: whatever processes it has, all of them count."""

    main_pid: int = 0

    def cpu_s(self) -> float | None:
        """Processor time of all processes so far."""
        pids = machine.tree(self.main_pid)
        return None if pids is None else sum(map(machine.cpu_s, pids))

    def rss_bytes(self) -> tuple[int, ...] | None:
        """Resident memory of each process."""
        pids = machine.tree(self.main_pid)
        return None if pids is None else tuple(map(machine.rss_bytes, pids))


class PeersStage(Stage):
    """Starts peers too."""

    def _started(self, server: Server) -> Address:
        if server not in PEERS:
            return super()._started(server)
        port, provider = free_port(), self.place.addresses[Server.PROVIDER]
        at = Address("127.0.0.1", port)
        folder = self._scratch / server
        folder.mkdir()
        match server:
            case Server.LITELLM:
                start = installed.litellm(
                    folder, port, provider=provider.url, key=self._who.key, model=self._who.model
                )
            case Server.PORTKEY:
                start = installed.portkey(port)
                at = replace(at, headers=installed.portkey_headers(provider.url))
            case _:
                start = installed.Start(nginx_cache.command(folder, port, provider))
        process = Process(
            server, scratch=self._scratch, command=start.command, environ=start.environ
        )
        self._processes.append(process)
        first_s = process.first_answer_s(at, self._who.key, self._who.model)
        self.started[server] = Tree(first_s, None, process.pid)
        return at

    def _hits(self, server: Server) -> Hits | None:
        """Peers are not asked: nginx would hand the question on to the provider."""
        return None if server in PEERS else super()._hits(server)
