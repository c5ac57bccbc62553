"""This product beside what a user would pick instead, in turns, on the same broker and the same kind of supplier.

    cpcxml      Confluent's Parallel Consumer on Vert.x with Avro, StAX and XSD work (Java): at least once, no journal
    goodpy-xml  one careful Python process with lxml: at least once, no journal

A machine's own speed moves by half within minutes, so only runs of one round are compared with each other: ratios, and
their spread over the rounds. Needs Java and Maven for cpcxml. The peers live in bench/peers/.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from bench import commands, load
from bench.commands import Conditions
from bench.measurement import LATEST, Measurement, append, line, taken, yardstick
from bench.stage import Stage, cpu, memory, open_stage
from tests.support import downloads
from tests.support.topics import Topics
from tests.support.wait import wait_until

PEERS: Final = Path(__file__).parent / "peers"
_CASES: Final = {
    "A": Conditions(in_flight=1000),
    "B": Conditions(in_flight=1000, latency_ms=5, keys=100),
}
"""In flight as the peers have it: one call for every key of case A."""


@dataclass(frozen=True, slots=True)
class Peer:
    command: tuple[str, ...]
    data: Path


def rounds(stage: Stage, case: str, *, times: int, count: int, names: tuple[str, ...]) -> Iterator[Measurement]:
    """`names` are ours, ours-x2 (two workers) and the peers'. Within a round each is measured once."""
    for _ in range(times):
        began = f"{datetime.now(UTC):%d %H:%M:%S}"
        for name in names:
            found = _one(stage, case, name, count)
            yield replace(found, conditions={**found.conditions, "round": began, "who": name})
            stage.clean()


def _one(stage: Stage, case: str, name: str, count: int) -> Measurement:
    conditions = replace(_CASES[case], commands=count)
    match name:
        case "ours":
            return commands.throughput(stage, f"compare {case}", conditions)
        case "ours-x2":
            return commands.throughput(stage, f"compare {case}", replace(conditions, workers=2))
        case _:
            return _peer(stage, case, conditions, _PEERS[name]())


def _cpcxml() -> Peer:
    """Its classes are compiled and its jars fetched once, into the cache of the tests' broker."""
    java = downloads.java()
    folder = downloads.cached("peer-cpcxml", _build_cpcxml)
    flags = ("-Xmx1g", "-XX:+UseSerialGC")
    return Peer((java, *flags, "-cp", f"{folder}/classes:{folder}/lib/*", "CpcXml"), PEERS / "data")


def _build_cpcxml(folder: Path) -> None:
    home = PEERS / "cpcxml"
    downloads._maven(  # noqa: SLF001 -- one way to fetch
        "-f",
        str(home / "pom.xml"),
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
        f"-DoutputDirectory={folder / 'lib'}",
    )
    sources = [str(path) for path in home.rglob("*.java")]
    javac = shutil.which("javac")
    if javac is None:
        raise downloads.Missing("no javac")
    subprocess.run(
        (javac, "-nowarn", "--release", "17", "-cp", f"{folder}/lib/*", "-d", f"{folder}/classes", *sources), check=True
    )


def _goodpy() -> Peer:
    return Peer((sys.executable, str(PEERS / "goodpy" / "goodpy.py")), PEERS / "data")


_PEERS: Final[Mapping[str, Callable[[], Peer]]] = {"cpcxml": _cpcxml, "goodpy-xml": _goodpy}


def _peer(stage: Stage, case: str, conditions: Conditions, peer: Peer) -> Measurement:
    before = yardstick()
    topics = stage.topics(conditions.partitions)
    _fill(stage, topics, conditions)
    stub = stage.processes.start(
        sys.executable,
        str(PEERS / "stub.py"),
        "--delay",
        str(conditions.latency_ms / 1000),
        "--reply",
        str(peer.data / "reply.xml"),
    )
    stub.wait_ready(lambda p: "stub:" in p.output)
    url = stub.output.split()[1]
    started = time.monotonic()
    process = stage.processes.start(
        *peer.command,
        env={
            "PB_BOOTSTRAP": stage.bootstrap,
            "PB_COMMANDS": topics.commands,
            "PB_EVENTS": topics.events,
            "PB_GROUP": topics.prefix,
            "PB_URL": f"{url}/supplier",
            "PB_DATA": str(peer.data),
        },
    )

    def stats() -> dict[str, float]:
        if process.exit_code is not None:
            raise RuntimeError(f"the peer ended with {process.exit_code}:\n{process.tail()}")
        with urllib.request.urlopen(f"{url}/stats", timeout=30) as answer:
            found: dict[str, float] = json.load(answer)
        return found

    def mark(at_least: float) -> tuple[float, float, float, float]:
        wait_until(lambda: stats()["requests"] >= at_least, within=400, what=f"{at_least} calls")
        return time.monotonic(), stats()["requests"], cpu(process.pid), cpu(stub.pid)

    try:
        first, half, last = (mark(at_least) for at_least in (1, conditions.commands / 2, conditions.commands))
        peak = memory(process.pid)[1]
        wait_until(lambda: _ended(stage, topics) >= conditions.commands, within=60, what="all events")
        seen = stats()
    finally:
        process.close(grace=10)
        stub.close()
    calls, seconds = last[1] - first[1], last[0] - first[0]
    return taken(
        f"compare {case}",
        asdict(conditions),
        {
            "rate_per_s": round(calls / seconds, 1),
            "rate_second_half_per_s": round((last[1] - half[1]) / max(last[0] - half[0], 0.1), 1),
            "cpu_ms_per_command": round((last[2] - first[2]) / calls * 1000, 4),
            "cpu_ms_per_command_second_half": round((last[2] - half[2]) / max(last[1] - half[1], 1) * 1000, 4),
            "twin_cpu_ms_per_command": round((last[3] - first[3]) / calls * 1000, 4),
            "start_to_first_call_s": round(seen["first"] - started, 2),
            "peak_memory_mib": round(peak, 1),
            "in_order": seen["late"] == seen["gaps"] == seen["overlaps"] == 0,
        },
        before=before,
    )


def _fill(stage: Stage, topics: Topics, conditions: Conditions) -> None:
    """The peers' own record of 70 fields and 590 bytes; a request of 2 kB comes of it."""
    sys.path.insert(0, str(PEERS / "goodpy"))
    from avro_values import make  # type: ignore[import-not-found]  # noqa: PLC0415 -- a peer's module, on its path

    sys.path.pop(0)
    sender = load.Sender(stage.bootstrap, topics.commands)
    for key, number in load.spread(conditions.commands, conditions.keys):
        sender.send(load.Command(key, "", make(key, number)))
    sender.flush()


def _ended(stage: Stage, topics: Topics) -> int:
    """Records of the events topic; a peer writes without transactions, so offsets count them."""
    consumer = Consumer({"bootstrap.servers": stage.bootstrap, "group.id": "bench-look"})
    try:
        places = [TopicPartition(topics.events, number) for number in range(topics.partitions)]
        return sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)
    finally:
        consumer.close()


def summary(found: list[Measurement], yardstick_peer: str = "cpcxml") -> str:
    """Ratios to the peer, round by round: median, and least to most."""
    by = {(m.case, m.conditions["round"], m.conditions["who"]): m.figures for m in found}
    lines = [
        f"| case | who | commands/s | to {yardstick_peer} | CPU ms per command, second half | to {yardstick_peer} |"
    ]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for case in sorted({m.case for m in found}):
        for who in dict.fromkeys(m.conditions["who"] for m in found):
            own = [(r, f) for (c, r, w), f in by.items() if (c, w) == (case, who)]
            if not own:
                continue
            cells = [case, who]
            for name in ("rate_per_s", "cpu_ms_per_command_second_half"):
                values = [float(f[name] or 0) for _, f in own]
                ratios = [
                    float(f[name] or 0) / float(by[case, r, yardstick_peer][name] or 1)
                    for r, f in own
                    if (case, r, yardstick_peer) in by
                ]
                cells.append(_spread(values))
                cells.append(_spread(ratios) if ratios else "")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    digits = 0 if median(values) > 20 else 2
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("--case", choices=sorted(_CASES), default="A")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--commands", type=int, default=60_000)
    parser.add_argument("--who", nargs="+", choices=("ours", "ours-x2", *_PEERS), default=["ours", "ours-x2", *_PEERS])
    parser.add_argument("--results", type=Path, default=LATEST)
    given = parser.parse_args()
    found = []
    with open_stage() as stage:
        for measurement in rounds(stage, given.case, times=given.rounds, count=given.commands, names=tuple(given.who)):
            append(measurement, given.results)
            print(line(measurement), file=sys.stderr, flush=True)
            found.append(measurement)
    print(summary(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
