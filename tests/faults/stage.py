"""The stage of the fault tests: registry, twin and workers as real processes on a real broker."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import evidence, laws
from tests.faults.command_laws import FINAL
from tests.faults.laws import Violation
from tests.faults.workload import Workload
from tests.support.processes import Process, Processes
from tests.support.topics import Topics
from tests.support.wait import PATIENCE, SELDOM, eventually

REGISTRY = """
import asyncio
from adapter.demo.registry import serve

async def main():
    print("registry:", (await serve("127.0.0.1", 0)).url, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

GROUPS = os.environ.get("FAULT_GROUPS", "classic")
"""Its protocol; consumer: KIP-848."""

CALL_LIMIT = 4.0
"""Seconds a call may take; a KEYED repeat waits that long after a kill. More than it takes is in doubt, which is no
violation.
"""


@dataclass(slots=True)
class OpenCalls:
    """Follows the twin's log: which requests it is working on."""

    log: Path
    messages: set[str] = field(default_factory=set)
    """Message ids that have come."""
    _at: int = 0
    _open: set[int] = field(default_factory=set)

    def count(self) -> int:
        with self.log.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._at += len(line)
                row = json.loads(line)
                self.messages.add(row["message_id"])
                if row["finished"] is None:
                    self._open.add(row["sequence"])
                else:
                    self._open.discard(row["sequence"])
        return len(self._open)


@dataclass(slots=True)
class Stage:
    bootstrap: str
    registry: str
    topics: Topics
    processes: Processes
    log: Path
    settings: Mapping[str, str]

    async def worker(self) -> Process:
        """One more worker; it need not have partitions yet when this returns."""
        process = self.processes.adapter("worker", env=self.settings)
        return await process.ready(lambda p: "worker starts" in p.output)

    def workload(self, seed: int) -> Workload:
        return Workload(self.bootstrap, self.registry, self.topics.commands, seed)

    async def finished(self) -> None:
        """Wait until every command is finished: the committed offsets are at the end, nobody holds a doubt."""
        events = evidence.Events(self.bootstrap, self.registry, self.topics.events)
        await eventually(
            lambda: all_ended(self.bootstrap, self.topics, events),
            within=2 * PATIENCE,
            what="every command being finished",
            every=SELDOM,
        )

    def verdict(self, workload: Workload) -> tuple[list[Violation], list[evidence.Event]]:
        events = evidence.events(self.bootstrap, self.registry, self.topics.events)
        return laws.judge(workload.sent, evidence.calls(self.log), events), events


def all_ended(bootstrap: str, topics: Topics, events: evidence.Events) -> bool:
    """Whether the workers have committed all commands, and nobody holds a doubt."""
    offsets, ends = evidence.committed(bootstrap, topics.commands, workers(topics))
    # The last record of a partition may be followed by nothing: commands are written without transactions.
    if any(offsets[partition] < end for partition, end in ends.items() if end):
        return False
    found = events.read()
    doubts = {event.command_id for event in found if event.type == "CommandOutcomeUnknown"}
    return doubts <= {event.command_id for event in found if event.type in FINAL}


async def open_stage(
    processes: Processes,
    bootstrap: str,
    topics: Topics,
    folder: Path,
    *,
    latency: float,
    call_limit: float = CALL_LIMIT,
) -> Stage:
    registry = await open_registry(processes)
    log = folder / "calls.jsonl"
    twin = processes.adapter(
        "twin", "--port", "0", "--control-port", "0", "--calls", str(log), "--fault", late(latency), cwd=folder
    )
    await twin.ready(lambda p: "control:" in p.output)
    url = next(line.split()[1] for line in twin.output.splitlines() if line.startswith("twin:"))
    settings = settings_of(bootstrap, topics, registry, url, call_limit=call_limit)
    await register(processes, settings)
    return Stage(bootstrap, registry, topics, processes, log, settings)


async def open_registry(processes: Processes) -> str:
    """Its URL."""
    registering = processes.start(sys.executable, "-c", REGISTRY)
    await registering.ready(lambda p: "registry:" in p.output)
    return registering.output.split()[1]


async def register(processes: Processes, settings: Mapping[str, str]) -> None:
    registering = processes.adapter("schemas", "register", env=settings)
    assert await registering.ended() == 0, registering.output


def late(seconds: float) -> str:
    """The twin's fault by which every answer takes that long, more or less."""
    return json.dumps({"kind": "delay", "seconds": seconds * 0.75, "times": None, "jitter": seconds / 2})


def workers(topics: Topics) -> str:
    """Their group, of which those that another test has killed a moment ago are no members."""
    return f"{topics.prefix}-workers"


def settings_of(
    bootstrap: str, topics: Topics, registry: str, supplier: str, *, call_limit: float = CALL_LIMIT
) -> dict[str, str]:
    """Those of every role, with limits that are short."""
    return {
        "ADAPTER_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "ADAPTER_KAFKA__GROUP_ID": workers(topics),
        "ADAPTER_KAFKA__GROUP_PROTOCOL": GROUPS,
        "ADAPTER_KAFKA__SESSION_TIMEOUT": "6s",
        "ADAPTER_KAFKA__TRANSACTION_TIMEOUT": "5s",
        **topics.settings,
        "ADAPTER_REGISTRY__URL": registry,
        "ADAPTER_SUPPLIER__BASE_URL": supplier,
        "ADAPTER_SUPPLIER__ALLOW_PLAINTEXT": "true",
        "ADAPTER_SUPPLIER__BUYER_IDENTIFIER": "SPDEV1",
        **{f"ADAPTER_SUPPLIER__{limit}_TIMEOUT": f"{call_limit:g}s" for limit in ("CONNECT", "WRITE", "READ", "TOTAL")},
        "ADAPTER_SUPPLIER__DOUBT_LIMITS": json.dumps(
            {"AddFaultReport": "3s", "AmendFaultReport": "3s", "ReserveAppointment": "3s"}
        ),
        "ADAPTER_TELEMETRY__PORT": "0",
    }
