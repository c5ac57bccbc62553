"""The settings as people read them: rows for the command line and a page for the documentation."""

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic.fields import FieldInfo

from adapter.settings.paths import kind, leaves, variable
from adapter.settings.tree import PREFIX, Settings


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as people read it."""

    variable: str
    type: str
    default: str | None
    """None: it has to be set."""

    meaning: str
    most: int | None = None
    """The maximum, for a whole number that has one."""


def describe() -> tuple[Row, ...]:
    """Every setting, in the order of the tree."""
    return tuple(
        Row(
            variable=variable(path),
            type=kind(field).name,
            default=None if field.is_required() else _shown(field, field.get_default(call_default_factory=True)),
            meaning=f"{field.description or ''}{f' Between {limits}.' if (limits := bounds(field)) else ''}",
            most=_limit(field, "le") if kind(field).name == "whole number" else None,
        )
        for path, field in leaves(Settings)
    )


def bounds(field: FieldInfo) -> str | None:
    """Minimum and maximum of a duration, size or number, as "1s and 15m"; None if it has none."""
    if kind(field).name not in {"duration", "size", "whole number", "number"}:
        return None
    limits = [_shown(field, limit) for name in ("ge", "le") if (limit := _limit(field, name)) is not None]
    return " and ".join(limits) or None


def _limit(field: FieldInfo, name: str) -> Any:
    return next((limit for each in field.metadata if (limit := getattr(each, name, None)) is not None), None)


def markdown() -> str:
    """docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "For whoever configures a role: every setting, its default and its meaning. `adapter settings --markdown`",
        "prints this page. With the Helm chart they are values: see",
        "[its page](../helm/fault-adapter/README.md#what-to-know).",
        "",
        "- Settings are read from environment variables. White space around a value is ignored, and an empty variable",
        "  counts as not set.",
        f"- A variable that begins with `{PREFIX}` and is not in this list stops the start.",
        "- Durations are in seconds or have a unit: `ms`, `s`, `m`, `h` or `d`.",
        "- Sizes are in bytes or have a unit: `KiB`, `MiB` or `GiB`.",
        "- Secrets are never in variables: the setting names the file that holds the secret.",
    ]
    section = ""
    for row in describe():
        head = row.variable.removeprefix(PREFIX).partition("__")[0]
        if head != section:
            section = head
            lines += [
                "",
                f"## {head.lower()}",
                "",
                "| variable | type | default | meaning |",
                "| --- | --- | --- | --- |",
            ]
        default = "**must be set**" if row.default is None else f"`{row.default}`" if row.default else ""
        meaning = row.meaning.replace("|", "\\|")
        lines.append(f"| `{row.variable}` | {row.type.replace('|', chr(92) + '|')} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _shown(field: FieldInfo, value: object) -> str:
    match value:
        case int() if kind(field).name == "size":
            return f"{value // 1024**2}MiB" if value % 1024**2 == 0 else f"{value // 1024}KiB"
        case None:
            return ""
        case bool():
            return str(value).lower()
        case timedelta():
            return _shown_duration(value)
        case frozenset():
            return ",".join(str(item) for item in sorted(value))
        case dict():
            return json.dumps(value) if value else ""
        case _:
            return str(value)


def _shown_duration(value: timedelta) -> str:
    milliseconds = value // timedelta(milliseconds=1)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds % size == 0 and milliseconds >= size:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"
