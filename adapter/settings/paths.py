"""Places in the tree: from a model's fields to names of variables and back."""

from collections.abc import Iterator
from enum import StrEnum

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from adapter.settings.kinds import Kind
from adapter.settings.tree import PREFIX, Section, Settings


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every setting below a model, with its path."""
    for name, field in model.model_fields.items():
        below = section(field)
        if below is None:
            yield (*path, name), field
        else:
            yield from leaves(below, (*path, name))


def section(field: FieldInfo) -> type[Section] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def is_mapping(field: FieldInfo) -> bool:
    return kind(field).name == "JSON object"


def find(path: tuple[str, ...]) -> tuple[FieldInfo | None, int]:
    """The setting at that path, or whose entry it is if the setting is a mapping, and how many segments name the
    setting; None if there is none.
    """
    model: type[BaseModel] = Settings
    for depth, segment in enumerate(path, 1):
        field = model.model_fields.get(segment)
        if field is None:
            return None, depth
        below = section(field)
        if below is None:
            return field, depth
        model = below
    return None, len(path)


def variable(path: tuple[str, ...]) -> str:
    return PREFIX + "__".join(path).upper()


def kind(field: FieldInfo) -> Kind:
    for entry in field.metadata:
        if isinstance(entry, Kind):
            return entry
    for argument in (field.annotation, *getattr(field.annotation, "__args__", ())):
        for entry in getattr(argument, "__metadata__", ()):
            if isinstance(entry, Kind):
                return entry
        if isinstance(argument, type) and issubclass(argument, StrEnum):
            values = [member.value for member in argument]
            return Kind(" or ".join([", ".join(values[:-1]), values[-1]]), values[0])
    return Kind("text", "")
