"""The stage of the macro cases: broker, registry, twin and workers, each a process of its own, as in production.

Kafka is the one TEST_KAFKA_BOOTSTRAP names, else the broker's own jars under Java. Everything ends with the stage.
"""

import json
import os
import re
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from adapter.twin import certificates
from tests.support import topics as topic_sets
from tests.support.broker import AS_SHIPPED, Cluster
from tests.support.processes import Process, Processes
from tests.support.topics import Topics
from tests.support.wait import wait_until

_TICK: Final = os.sysconf("SC_CLK_TCK")
_REGISTRY: Final = """
import asyncio
from adapter.demo.registry import serve

async def main():
    print("registry:", (await serve("127.0.0.1", 0)).url, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@dataclass(slots=True)
class Stage:
    bootstrap: str
    registry: str
    folder: Path
    processes: Processes
    files: certificates.Certificates
    _made: list[Topics] = field(default_factory=list)

    def topics(self, partitions: int) -> Topics:
        self._made.append(topic_sets.create(self.bootstrap, partitions=partitions))
        return self._made[-1]

    def settings(self, topics: Topics) -> dict[str, str]:
        """What every role needs to know of this estate. All else is as shipped."""
        return {
            "ADAPTER_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap,
            "ADAPTER_KAFKA__GROUP_ID": topics.prefix,
            **topics.settings,
            "ADAPTER_REGISTRY__URL": self.registry,
            "ADAPTER_SUPPLIER__BUYER_IDENTIFIER": "SPDEV1",
            "ADAPTER_TELEMETRY__PORT": "0",
        }

    def supplier(self, twin: "Twin") -> dict[str, str]:
        """How a worker reaches that twin."""
        if not twin.tls:
            return {"ADAPTER_SUPPLIER__BASE_URL": twin.url, "ADAPTER_SUPPLIER__ALLOW_PLAINTEXT": "true"}
        return {
            "ADAPTER_SUPPLIER__BASE_URL": twin.url,
            "ADAPTER_SUPPLIER__TLS__CERTIFICATE": str(self.files.client_certificate),
            "ADAPTER_SUPPLIER__TLS__KEY": str(self.files.client_key),
            "ADAPTER_SUPPLIER__TLS__CA": str(self.files.ca),
        }

    def register(self, settings: Mapping[str, str]) -> None:
        """Puts the schemas into the registry, as a deployment does."""
        process = self.processes.adapter("schemas", "register", env=settings)
        wait_until(lambda: process.exit_code is not None, within=60, what=f"the end of {process}")
        if process.exit_code:
            raise RuntimeError(f"{process}:\n{process.tail()}")

    def twin(self, *, latency: float, tls: bool) -> "Twin":
        """A lean twin that answers after `latency` seconds."""
        arguments = ["twin", "--lean", "--latency", str(latency), "--port", "0", "--control-port", "0"]
        if tls:
            arguments += ["--certificate", str(self.files.server_certificate), "--key", str(self.files.server_key)]
            arguments += ["--ca", str(self.files.ca)]
        process = self.processes.adapter(*arguments, cwd=self.folder)
        process.wait_ready(lambda p: "control:" in p.output)
        said = dict(re.findall(r"^(twin|control): (\S+)", process.output, re.MULTILINE))
        return Twin(process, said["twin"], said["control"], tls)

    def worker(self, settings: Mapping[str, str]) -> Process:
        """Started, no more: how long it takes to its first call is measured."""
        return self.processes.adapter("worker", env=settings)

    def clean(self) -> None:
        for topics in self._made:
            topic_sets.delete(self.bootstrap, topics)
        self._made.clear()


@dataclass(frozen=True, slots=True)
class Twin:
    process: Process
    url: str
    control: str
    tls: bool

    def summary(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.control}summary", timeout=30) as answer:
            found: dict[str, float] = json.load(answer)
        return found

    def calls(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.control}calls", timeout=120) as answer:
            return [json.loads(text) for text in answer]


@contextmanager
def open_stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="fault-adapter-bench-") as name, _quiet(Path(name)) as processes:
        folder = Path(name)
        with _kafka(folder) as bootstrap:
            registry = processes.start(sys.executable, "-c", _REGISTRY)
            registry.wait_ready(lambda p: "registry:" in p.output)
            files = certificates.make(folder / "certificates")
            stage = Stage(bootstrap, registry.output.split()[1], folder, processes, files)
            try:
                yield stage
            finally:
                stage.clean()


@contextmanager
def _quiet(folder: Path) -> Iterator[Processes]:
    """Processes whose output is shown only if something went wrong: a measurement's output is its lines."""
    processes = Processes(folder)
    try:
        yield processes
    except BaseException:
        with redirect_stdout(sys.stderr):
            processes.__exit__(None, None, None)
        raise
    with redirect_stdout(None):
        processes.__exit__(None, None, None)


@contextmanager
def _kafka(folder: Path) -> Iterator[str]:
    if given := os.environ.get("TEST_KAFKA_BOOTSTRAP"):
        yield given
        return
    with Cluster(folder, flags=AS_SHIPPED) as cluster:
        yield cluster.bootstrap


def cpu(pid: int) -> float:
    """CPU seconds of a process so far, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def memory(pid: int) -> tuple[float, float]:
    """Resident MiB of a process: now and at its peak."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+)", text, re.MULTILINE))
    return int(found["VmRSS"]) / 1024, int(found["VmHWM"]) / 1024


def machine_busy() -> float:
    """CPU seconds spent on this machine so far, by anybody."""
    fields = [int(value) for value in Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICK
