"""One measurement: a line of JSON that says what was measured, under which conditions, on what machine."""

import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).parent / "results"
LATEST: Final = RESULTS / "latest.jsonl"
"""What `python -m bench` appends to, and what docs/performance.md is made from."""


@dataclass(frozen=True, slots=True)
class Measurement:
    case: str
    """Letter or name of the case: A, B, S, L, N, T, R, M, G, step, compare."""

    conditions: Mapping[str, Any]
    """What was chosen: two measurements with equal case and conditions are repeats of each other."""

    figures: Mapping[str, float | str | bool | None]
    """What was found. Names end in their unit."""

    yardstick: float = 0.0
    """Seconds of the calibrated loop, taken right before: ratios to it travel between machines."""

    machine: Mapping[str, Any] = field(default_factory=dict)
    at: str = ""


def taken(case: str, conditions: Mapping[str, Any], figures: Mapping[str, Any], *, before: float) -> Measurement:
    """A measurement made just now; `before` is the yardstick taken before it."""
    return Measurement(case, conditions, figures, round(before, 5), machine(), f"{datetime.now(UTC):%FT%TZ}")


def append(measurement: Measurement, path: Path = LATEST) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line(measurement) + "\n")


def line(measurement: Measurement) -> str:
    return json.dumps(asdict(measurement), separators=(",", ":"))


def read(paths: Iterable[Path]) -> list[Measurement]:
    return [Measurement(**json.loads(text)) for path in paths for text in path.read_text(encoding="utf-8").splitlines()]


def yardstick(rounds: int = 5) -> float:
    """Seconds of a fixed piece of pure Python on this machine at this moment: CPU time, the best of some rounds."""
    return min(_loop() for _ in range(rounds))


def _loop() -> float:
    began = time.process_time()
    words = [f"word {number}" for number in range(200)]
    total = 0
    for number in range(200):
        found = {word: len(word) + number for word in words}
        total += sum(found.values())
        total += len("".join(words))
    assert total > 0
    return time.process_time() - began


@cache
def machine() -> Mapping[str, Any]:
    """Facts without which a figure says nothing."""
    libraries = ("aiohttp", "confluent-kafka", "fastavro", "lxml", "uvloop")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "commit": _commit(),
    } | {name: version(name) for name in libraries}


def _cpu() -> str:
    for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if text.startswith("model name"):
            return text.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    said = subprocess.run(
        (git, "describe", "--always", "--dirty"), capture_output=True, text=True, check=False, cwd=RESULTS.parent
    )
    return said.stdout.strip() or "unknown"
