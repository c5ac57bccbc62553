"""The roles that can be checked, with their settings."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from adapter.app.start import misnamed
from adapter.core.errors import Stop
from adapter.settings import Projecting, Receiving, Settings, load


class Role(StrEnum):
    WORKER = "worker"
    SERVER = "server"
    PROJECTOR = "projector"


_TREES: Final[Mapping[Role, type[Receiving | Projecting]]] = {
    Role.WORKER: Settings,
    Role.SERVER: Receiving,
    Role.PROJECTOR: Projecting,
}


def load_settings(role: Role) -> Receiving | Projecting:
    """The settings of that role. Raises Stop."""
    settings = load(_TREES[role])
    if isinstance(settings, Receiving) and (problems := misnamed(settings)):
        raise Stop(*problems)
    return settings
