"""Case N: the supplier's notifications into Kafka, through one server as shipped.

Callers, server and broker share the machine. At most: every connection posts again as soon as it was answered. At a
rate: as bench/callers.py says, so p99 is that of notifications that come whether or not the server keeps up.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bench.measurement import Measurement, taken, yardstick
from bench.stage import Stage, cpu, memory
from tests.server.conftest import port_of

CONNECTIONS: Final = (64, 200)
RATE: Final = 1000.0
_WARM: Final = 3.0
"""Seconds of load before it counts."""


def notifications(stage: Stage, *, tls: bool, seconds: float) -> Iterator[Measurement]:
    """At most with few and with many connections, then at a steady rate."""
    settings = stage.settings(stage.topics(8)) | _listener(stage, tls=tls)
    stage.register(settings)
    server = stage.processes.adapter("server", env=settings)
    server.wait_ready(port_of, within=60)
    url = f"http{'s' if tls else ''}://127.0.0.1:{port_of(server)}/"
    files = stage.files
    secrets = ["--files", str(files.client_certificate), str(files.client_key), str(files.ca)] if tls else []
    _called(url, [*secrets, "--seconds", str(_WARM)])
    for connections, rate in (*((count, 0.0) for count in CONNECTIONS), (CONNECTIONS[0], RATE)):
        before, spent = yardstick(), cpu(server.pid)
        arguments = ["--connections", str(connections), "--rate", str(rate), "--seconds", str(seconds)]
        found = _called(url, [*secrets, *arguments])
        answers = found.pop("answers")
        count = sum(answers.values())
        figures = found | {
            "server_cpu_us": round((cpu(server.pid) - spent) / count * 1e6, 1),
            "memory_mib": round(memory(server.pid)[0], 1),
            "refused": count - answers.get("200", 0),
        }
        conditions = {"tls": tls, "connections": connections, "rate": rate or "at most", "seconds": seconds}
        yield taken("N", conditions, figures, before=before)
    server.close(grace=20)


def _listener(stage: Stage, *, tls: bool) -> dict[str, str]:
    common = {
        "ADAPTER_SUPPLIER__ENVIRONMENT": "cfsit",
        "ADAPTER_SERVER__HOST": "127.0.0.1",
        "ADAPTER_SERVER__PORT": "0",
    }
    if not tls:
        return common | {"ADAPTER_SERVER__ALLOW_PLAINTEXT": "true"}
    return common | {
        "ADAPTER_SERVER__TLS__CERTIFICATE": str(stage.files.server_certificate),
        "ADAPTER_SERVER__TLS__KEY": str(stage.files.server_key),
        "ADAPTER_SERVER__TLS__CA": str(stage.files.ca),
    }


def _called(url: str, arguments: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.callers", url, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures
