"""Real processes under test: started with a known environment, watched through their output, killed, stopped and
continued at will, and gone at the end whatever happened."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.support.wait import PATIENCE, eventually, wait_until

ROOT = Path(__file__).parents[2]

# Linux tells a process that its parent died (PR_SET_PDEATHSIG), which survives exec: so nothing outlives a test run
# that was itself killed.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
parent = int(sys.argv[1])
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != parent:
    sys.exit("the parent has gone")
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # else ignored where the tests run under nohup
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Process:
    """One running program. Both its output streams go to one file, which `output` reads."""

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path) -> None:
        self.command = tuple(command)
        self.log = log
        # Its own session: an interrupt at the terminal reaches it through our clean-up alone, in order.
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                _dying_with_parent(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def output(self) -> str:
        """What it has written; while it runs, up to the end of the last whole line: a line may be written in pieces."""
        ended = self.exit_code is not None
        written = self.log.read_text(encoding="utf-8", errors="replace")
        return written if ended else written[: written.rfind("\n") + 1]

    def said(self, pattern: str) -> str:
        """What the pattern's group has found in the output. AssertionError if it finds nothing."""
        found = re.search(pattern, self.output)
        assert found is not None, self.output
        return found[1]

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._child.poll()

    async def ready(self, condition: Callable[["Process"], object], *, within: float = PATIENCE) -> Self:
        """Waits until `condition` holds. AssertionError, with the output's end, if it ends or takes longer."""
        await eventually(lambda: self._holds(condition), within=within, what=f"{self} being ready")
        return self

    def wait_ready(self, condition: Callable[["Process"], object], *, within: float = PATIENCE) -> Self:
        wait_until(lambda: self._holds(condition), within=within, what=f"{self} being ready")
        return self

    async def ended(self, *, within: float = PATIENCE) -> int:
        """Its exit code, once it has ended by itself."""
        await eventually(lambda: self.exit_code is not None, within=within, what=f"the end of {self}")
        return self._child.wait()

    async def stop(self, *, within: float = PATIENCE) -> int:
        """SIGTERM, then its exit code."""
        self.send(signal.SIGTERM)
        return await self.ended(within=within)

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns."""
        self.send(signal.SIGKILL)
        self._child.wait()

    def freeze(self) -> None:
        """SIGSTOP: it keeps its connections and does nothing, as in a long pause of the machine."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        # Popen looks first whether the child has ended, so a reused process id is never hit.
        self._child.send_signal(number)

    def close(self, *, grace: float = 0.0) -> None:
        """Ends it for certain: after `grace` seconds from a SIGTERM at the latest."""
        if self.exit_code is None and grace > 0:
            self.thaw()
            self.send(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(grace)
        self.kill()

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.output.splitlines()[-lines:])

    def __str__(self) -> str:
        return " ".join(self.command[:6])

    def _holds(self, condition: Callable[["Process"], object]) -> bool:
        if (code := self.exit_code) is not None:
            raise AssertionError(f"{self} ended with {code}:\n{self.tail()}")
        return bool(condition(self))


class Processes:
    """The processes of one test. Leaving the context ends them all and, unless `quiet`, prints the end of what they
    wrote, which pytest shows if the test failed."""

    def __init__(self, folder: Path, *, quiet: bool = False) -> None:
        self._folder = folder
        self._quiet = quiet
        self._all: list[Process] = []

    def adapter(self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Process:
        """`python -m adapter` with these arguments. Of the settings it sees only those in `env`."""
        return self.start(sys.executable, "-m", "adapter", *arguments, env=env, cwd=cwd)

    def start(self, *command: str, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Process:
        number = len(self._all) + 1
        process = Process(
            command, log=self._folder / f"process-{number}.log", env=clean_environment() | dict(env or {}), cwd=cwd
        )
        self._all.append(process)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._all):
            process.close()
        for process in [] if self._quiet else self._all:
            print(f"--- {process} (exit code {process.exit_code})\n{process.tail()}")


def clean_environment() -> dict[str, str]:
    """This process's environment without any setting of the adapter, and with output that is not held back."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ADAPTER_")}
    return kept | {"PYTHONUNBUFFERED": "1"}


def _dying_with_parent(command: Sequence[str]) -> list[str]:
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-S", "-E", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
