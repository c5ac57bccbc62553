"""Values that nobody changes."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

_Class = TypeVar("_Class")


@dataclass_transform(frozen_default=True)
def immutable(cls: type[_Class]) -> type[_Class]:
    """A dataclass for values that are made for each message. It is frozen for the type checker only: making a really
    frozen one takes three times as long.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
