"""Containers, by the engine's own command line: whatever of Podman and Docker is there."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final, Self

LOCKED_DOWN: Final = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
"""As the chart runs the image."""

NONE: Final[Mapping[str, str]] = {}


class Failed(AssertionError):  # noqa: N818 -- what a test sees, not a fault of ours
    """A command of the engine, or in a container, ended with another code than 0."""


class Group:
    """Containers that share one network namespace, so that all of them are each other's localhost. Gone at the end."""

    def __init__(self, engine: str, *, ports: Sequence[int] = ()) -> None:
        """`ports` of the group are reached from here under the same numbers, on loopback."""
        self._engine = engine
        self._ports = ports
        self._first: str | None = None
        self._stack = ExitStack()

    def start(
        self, image: str, *words: str, options: Sequence[str] = (), environment: Mapping[str, str] = NONE
    ) -> "Container":
        """A container that stays. The first one carries the group's network and has to outlive the others."""
        if self._first is None:
            network = [f"--publish=127.0.0.1:{port}:{port}" for port in self._ports]
        else:
            network = [f"--network=container:{self._first}"]
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        identifier = run(self._engine, "run", "--detach", *network, *variables, *options, image, *words)
        self._first = self._first or identifier
        container = Container(self._engine, identifier)
        self._stack.callback(container.remove)
        return container

    def once(
        self,
        image: str,
        *words: str,
        given: str = "",
        options: Sequence[str] = (),
        environment: Mapping[str, str] = NONE,
    ) -> str:
        """What the container wrote to standard output until it ended well. Raises Failed if it did not."""
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        network = [] if self._first is None else [f"--network=container:{self._first}"]
        fixed = ["--rm", "--interactive", *LOCKED_DOWN, *network, *variables]
        return run(self._engine, "run", *fixed, *options, image, *words, given=given)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class Container:
    def __init__(self, engine: str, identifier: str) -> None:
        self._engine = engine
        self.identifier = identifier

    def output(self) -> str:
        """Everything it wrote so far, both streams."""
        command = [self._engine, "logs", self.identifier]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return done.stdout

    def stop(self, *, within: int = 30) -> int:
        """SIGTERM; its exit code. Killed after `within` seconds, which is exit code 137."""
        run(self._engine, "stop", f"--time={within}", self.identifier)
        return int(inspect(self._engine, self.identifier)["State"]["ExitCode"])

    def remove(self) -> None:
        run(self._engine, "rm", "--force", "--volumes", self.identifier)


def engine() -> str | None:
    """The engine's command, None if there is none that answers."""
    for name in ("podman", "docker"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    return None


def inspect(engine_: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(engine_, "inspect", name))[0]
    return found


def run(*command: str, given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout.strip()
