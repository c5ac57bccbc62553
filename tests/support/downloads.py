"""Java programs from Maven Central, and what they have to make only once, kept below
${XDG_CACHE_HOME:-~/.cache}/fault-adapter for the next run."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

KAFKA_POM = Path(__file__).parent / "kafka" / "pom.xml"
KAFKA_VERSION = os.environ.get("TEST_KAFKA_VERSION") or "4.3.1"
APICURIO_VERSION = "3.0.9"
JAVA_NEEDED = 17
NEEDED = f"install Java {JAVA_NEEDED} and Maven"
"""What a machine without the service is told to do."""


class Missing(Exception):  # noqa: N818 -- named for what it says
    """A service can't be had on this machine; the text says what is missing."""


@cache
def java() -> str:
    """The path of a Java that is new enough for the broker. Raises Missing."""
    path = shutil.which("java")
    if path is None:
        raise Missing("no java")
    said = subprocess.run([path, "-version"], capture_output=True, text=True, check=False, timeout=30).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < JAVA_NEEDED:
        raise Missing(f"java is older than {JAVA_NEEDED}")
    return path


def kafka_jars() -> Path:
    """The folder with the broker's jars. Raises Missing."""
    return cached(f"kafka-{KAFKA_VERSION}", _download_kafka)


def kafka_features() -> Path:
    """The file `bootstrap.checkpoint`, by which a new cluster knows the features it has. Raises Missing."""
    return cached(f"kafka-{KAFKA_VERSION}-formatted", _format_kafka) / "bootstrap.checkpoint"


def apicurio() -> Path:
    """The folder with the registry's program. Raises Missing."""
    return cached(f"apicurio-{APICURIO_VERSION}", _download_apicurio)


def cached(name: str, download: Callable[[Path], None]) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fault-adapter"
    folder = root / name
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-") as scratch:
        fresh = Path(scratch) / "whole"
        fresh.mkdir()
        download(fresh)
        # In one step, so that nobody sees half of it; of two runs at once the second finds it there.
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _download_kafka(folder: Path) -> None:
    version = f"-Dkafka.version={KAFKA_VERSION}"
    _maven("-f", str(KAFKA_POM), version, "dependency:copy-dependencies", f"-DoutputDirectory={folder}")


def _format_kafka(folder: Path) -> None:
    properties = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": "1@127.0.0.1:9093",
        "controller.listener.names": "CONTROLLER",
        "listeners": "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093",
        "log.dirs": folder,
    }
    file = folder / "server.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8")
    tool = [java(), "-cp", f"{kafka_jars()}/*", "kafka.tools.StorageTool"]
    command = [*tool, "format", "--cluster-id=AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(file)]  # no cluster keeps this id
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    if done.returncode != 0:
        raise Missing(f"Kafka's storage tool failed: {(done.stderr or done.stdout).strip()[:300]}")


def _download_apicurio(folder: Path) -> None:
    artifact = f"io.apicurio:apicurio-registry-app:{APICURIO_VERSION}:tar.gz:all"
    _maven("dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}")
    (archive,) = folder.glob("*.tar.gz")
    # Python's own unpacking has the filter that it should be used with since 3.11.4 only.
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True, timeout=600)
    archive.unlink()


def _maven(*arguments: str) -> None:
    path = shutil.which("mvn")
    if path is None:
        raise Missing("no mvn")
    done = subprocess.run([path, "-q", "-B", *arguments], capture_output=True, text=True, check=False, timeout=600)
    if done.returncode != 0:
        raise Missing(f"mvn failed: {(done.stdout or done.stderr).strip()[:300]}")
