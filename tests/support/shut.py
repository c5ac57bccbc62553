"""A folder nobody may enter."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def shut(folder: Path) -> Iterator[None]:
    """While this lasts; root, who may enter anything, is somebody else meanwhile."""
    me, mode = os.geteuid(), folder.stat().st_mode
    folder.chmod(0)
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)
        folder.chmod(mode)
