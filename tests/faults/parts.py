"""Who can be killed, frozen and stopped in a run, each under its name."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from tests.faults.evidence import Ending, peak_memory
from tests.support.broker import Cluster
from tests.support.processes import Process


class Victim(Protocol):
    turn: asyncio.Lock
    """Held by the one fault that befalls it."""

    def start(self) -> None: ...
    def kill(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


class Part:
    """A process of the adapter, started again whenever it has ended."""

    def __init__(self, name: str, start: Callable[[], Process]) -> None:
        self.name = name
        self.turn = asyncio.Lock()
        self.endings: list[Ending] = []
        self.peak = 0
        """Most bytes of memory any of its lives has taken."""
        self._start = start
        self._process: Process | None = None

    @property
    def ready(self) -> bool:
        return self._process is not None and f"{self.name.partition(' ')[0]} starts" in self._process.output

    def start(self) -> None:
        self._process = self._start()

    def kill(self) -> None:
        self.look()
        if self._process is not None:
            self._process.kill()
            self._process = None

    def freeze(self) -> None:
        if self._process is not None:
            self._process.freeze()

    def thaw(self) -> None:
        if self._process is not None:
            self._process.thaw()

    async def stop(self) -> None:
        """SIGTERM; how it ended is in `endings`."""
        self.look()
        if (process := self._process) is None:
            return
        self._process = None
        try:
            code = await process.stop()
        except AssertionError:
            process.kill()
            code = -9
        self.endings.append(Ending(self.name, asked=True, code=code, output="" if code == 0 else process.tail(3)))

    def look(self) -> None:
        """Note its memory; if it has ended by itself, note that and start it again, as a platform would."""
        if self._process is None:
            return
        self.peak = max(self.peak, peak_memory(self._process.pid))
        if (code := self._process.exit_code) is not None:
            self.endings.append(Ending(self.name, asked=False, code=code, output=self._process.tail(3)))
            self.start()


class Broker:
    """The one node of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.turn = asyncio.Lock()
        self._cluster = cluster

    def start(self) -> None:
        self._cluster.restart(wait=False)

    def kill(self) -> None:
        self._cluster.kill()

    def freeze(self) -> None:
        self._cluster.freeze()

    def thaw(self) -> None:
        self._cluster.thaw()


class Supplier:
    """The twin. It is not killed: its books are in memory, and its log is evidence."""

    def __init__(self, process: Process) -> None:
        self.turn = asyncio.Lock()
        self._process = process

    def start(self) -> None:
        raise NotImplementedError

    kill = start

    def freeze(self) -> None:
        self._process.freeze()

    def thaw(self) -> None:
        self._process.thaw()
