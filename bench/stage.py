"""The servers of one run, each started when a scenario asks for it, on 127.0.0.1."""

from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console

from bench import machine, nginx
from bench.configuration import WORKERS, config
from bench.play import Hits, Place
from bench.scenarios import NGINX_TOKENS, PROVIDER_VARIABLE, Server
from bench.servers import (
    Process,
    SimulatedProvider,
    Started,
    count,
    free_port,
    hits,
    simulated_tokens,
)
from bench.slice import Address
from bench.traffic import body, callers

OUTPUT_LINES = 30
GROWN_BYTES, GROWN_TIMES = 8_000_000, 3


class As(Struct, frozen=True):
    """As whom to ask, and about which model."""

    key: str
    model: str


class Stage:
    """Starts servers and knows them by name; stops all of them."""

    def __init__(self, who: As, target: Address | None, scratch: Path, progress: Console) -> None:
        self._who = who
        self._target = target
        self._scratch = scratch
        self._progress = progress
        self._processes: list[Process] = []
        self._grown: set[Server] = set()
        self._provider: Address | None = None
        self.started: dict[Server, Started] = {}

    def begin(self) -> None:
        """Start the simulated provider, unless there is a target, which knows what is right."""
        who, target = self._who, self._target
        addresses = {Server.PROXY: target} if target else {}
        if target is None:
            provider = self._start("provider", "bench.provider", "--port", "0").announced()
            self._provider = addresses[Server.PROVIDER] = provider
        self.place = Place(
            addresses=addresses,
            key=who.key,
            model=who.model,
            tokens=partial(count, target, who.key) if target else simulated_tokens,
            provider=SimulatedProvider(self._provider) if self._provider else None,
            scratch=self._scratch,
            cpu_s=self._cpu_s,
            hits=self._hits,
            rss_bytes=self._rss_bytes,
        )

    def prepare(self, server: Server, *, is_large: bool) -> None:
        """Start a server unless it runs. Raises ServerFailedError.

        Bodies of 8 MB lift the threshold from which the C library maps memory anew for each body,
        for good: without them the order of the scenarios would decide how fast large ones are.
        """
        if server not in self.place.addresses:
            self.place.addresses[server] = self._started(server)
        if is_large and server not in self._grown:
            self._grown.add(server)
            for _ in range(GROWN_TIMES):
                large, _ = body(self._who.model, GROWN_BYTES)
                count(self.place.addresses[server], self._who.key, large)

    def _started(self, server: Server) -> Address:
        match server:
            case Server.RAW:
                return self._start(server, "bench.bare").announced()
            case Server.NGINX:
                port = free_port()
                command = nginx.command(self._scratch, port, nginx.constant(NGINX_TOKENS))
                process = Process(server, scratch=self._scratch, command=command)
                self._processes.append(process)
                return self._known(server, process, port)
            case Server.BARE | Server.BARE_8:
                provider = self._provider.url if self._provider else ""
                return self._sanic(server, "bench.bare:app", **{PROVIDER_VARIABLE: provider})
            case _:
                return self._proxy(server)

    def _proxy(self, server: Server) -> Address:
        """The proxy of this checkout in front of the simulated provider."""
        folder = self._scratch / server
        folder.mkdir()
        subject = folder / "subject"
        subject.write_text("a workload's own token")
        file, who = folder / "config.yaml", self._who
        provider = self._provider.url if self._provider else ""
        said = config(
            server,
            provider=provider,
            key=who.key,
            model=who.model,
            callers=callers(who.key),
            subject=str(subject),
        )
        file.write_bytes(msgspec.json.encode(said))  # which is YAML too
        return self._sanic(
            server, "app.main", TALLYGATE_CONFIG=str(file), XDG_CACHE_HOME=str(folder)
        )

    def _start(self, name: str, *module: str, **variables: str) -> Process:
        process = Process(name, *module, scratch=self._scratch, environ=variables)
        self._processes.append(process)
        return process

    def _sanic(self, server: Server, target: str, **variables: str) -> Address:
        port, workers = free_port(), WORKERS.get(server, 1)
        command = ("sanic", target, "--workers", str(workers), "--port", str(port))
        return self._known(server, self._start(server, *command, **variables), port)

    def _known(self, server: Server, process: Process, port: int) -> Address:
        at = Address("127.0.0.1", port)
        first_s = process.first_answer_s(at, self._who.key, self._who.model)
        self.started[server] = Started(first_s, machine.workers(process.pid, port))
        return at

    def _cpu_s(self, server: Server) -> float | None:
        started = self.started.get(server)
        return started.cpu_s() if started else None

    def _rss_bytes(self, server: Server) -> tuple[int, ...] | None:
        started = self.started.get(server)
        return started.rss_bytes() if started else None

    def _hits(self, server: Server) -> Hits | None:
        if server.is_bare or server in {Server.NGINX, Server.PROVIDER, Server.RAW}:
            return None
        return hits(self.place.addresses[server], self._who.key)

    def show_output(self) -> None:
        """The end of what each server printed."""
        for process in self._processes:
            lines = process.output().splitlines()[-OUTPUT_LINES:]
            printed = "\n".join((f"--- {process.name} printed:", *lines))
            self._progress.print(printed, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Stop what was started, in reverse."""
        for process in reversed(self._processes):
            process.stop()
