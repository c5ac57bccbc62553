"""Values that nobody changes."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

_Class = TypeVar("_Class")


@dataclass_transform(frozen_default=True)
def immutable(cls: type[_Class]) -> type[_Class]:
    """A dataclass for what is made for each message. The type checker holds it frozen, the interpreter does not: there
    making one costs three times as much.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
