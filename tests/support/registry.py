"""The Apicurio registry, a schema registry with the Confluent HTTP API that nobody here wrote."""

import http.client
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import downloads
from tests.support.ports import free_port
from tests.support.processes import Process, clean_environment

HOW = f"no Apicurio registry: set TEST_REGISTRY_URL (with its path), or {downloads.NEEDED}"
BASE_PATH = "/apis/ccompat/v7"


def prefetch() -> None:
    """Downloads what `registry` needs. Raises downloads.Missing."""
    if not os.environ.get("TEST_REGISTRY_URL"):
        downloads.java()
        downloads.apicurio()


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """The URL of a running registry, empty unless it was given. Raises downloads.Missing."""
    if url := os.environ.get("TEST_REGISTRY_URL"):
        yield url
        return
    java, program = downloads.java(), downloads.apicurio()
    (runner,) = program.glob("*-runner.jar")
    port = free_port()
    process = Process(
        [java, "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar", str(runner)],
        log=folder / "registry.log",
        env=clean_environment() | {"QUARKUS_HTTP_PORT": str(port), "QUARKUS_HTTP_HOST": "127.0.0.1"},
        cwd=folder,
    )
    try:
        process.wait_ready(lambda _: _answers(port), within=180)
        yield f"http://127.0.0.1:{port}{BASE_PATH}"
    finally:
        process.close()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", f"{BASE_PATH}/subjects")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
