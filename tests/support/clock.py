"""A system clock of its own for a process, which a test can set: a library that is preloaded (clock.c)."""

import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).with_name("clock.c")


class Clock:
    """Processes started with `environment` see the time of `set`, those it starts in turn as well."""

    def __init__(self, folder: Path) -> None:
        """Skips the test where there is no C compiler, or no glibc."""
        compiler = shutil.which("cc")
        if compiler is None or not sys.platform.startswith("linux"):
            pytest.skip("a clock that can be set needs Linux and a C compiler")
        self._ahead = folder / "clock"
        library = folder / "clock.so"
        self.set(0.0)
        subprocess.run(
            [compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl", "-lpthread"],
            check=True,
        )
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(self._ahead)}

    def set(self, ahead: float) -> None:
        """From now on the clock is so many seconds ahead of the true time."""
        data = struct.pack("=q", int(ahead * 1e9))
        if self._ahead.exists():
            with self._ahead.open("r+b") as file:  # in place: it is mapped
                file.write(data)
        else:
            self._ahead.write_bytes(data)
