"""What the chart has from elsewhere: the settings' part of its values.schema.json, and its README from values.yaml.

`python helm/generate.py` writes both; a test compares.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from adapter.settings import Row, describe

CHART: Final = Path(__file__).parent / "fault-adapter"
_NUMBER: Final = r"\d+(\.\d+)?"
_TYPES: Final[dict[str, dict[str, Any]]] = {
    "duration": {"type": ["string", "number"], "pattern": rf"^{_NUMBER} ?(ms|s|m|h|d)?$", "exclusiveMinimum": 0},
    "size": {"type": ["string", "integer"], "pattern": rf"^{_NUMBER} ?([KMG]iB|[kMG]B)?$", "exclusiveMinimum": 0},
    "whole number": {"type": "integer", "minimum": 1},
    "number": {"type": "number", "exclusiveMinimum": 0},
    "port": {"type": "integer", "minimum": 1, "maximum": 65535},  # probes and policies name it: no free one
    "true or false": {"type": "boolean"},
    "JSON object": {"type": "object"},
    "topic name": {"type": "string", "pattern": "^[A-Za-z0-9._-]+$", "maxLength": 249},
    "start of a topic name": {"type": "string", "pattern": "^[A-Za-z0-9._-]*$", "maxLength": 100},
    "web address": {"type": "string", "pattern": "^https?://[^/@]+(/.*)?$"},  # without user and password
    "web addresses": {"type": "string", "pattern": "^https?://[^@]+$"},
    "text of at most 36 characters": {"type": "string", "maxLength": 36},
    "file": {"type": "string", "pattern": "^/"},
    "folder": {"type": "string", "pattern": "^/"},
    "path": {"type": "string", "pattern": "^/"},
    "text": {"type": "string"},
    "time zone": {"type": "string"},
    "list": {"type": ["array", "string"], "items": {"type": "string"}},
    "list of networks": {"type": ["array", "string"], "items": {"type": "string"}},
    "list separated by ;": {"type": ["array", "string"], "items": {"type": "string"}},
    "list of whole numbers": {"type": ["array", "string"], "items": {"type": "integer"}},
}


def settings_schema() -> dict[str, Any]:
    """The settings tree as a JSON schema: sections are objects that know all their names."""
    root = _section("Every setting, as `adapter settings` lists them.")
    for row in describe():
        *sections, name = row.variable.removeprefix("ADAPTER_").lower().split("__")
        place = root
        for section in sections:
            place = place["properties"].setdefault(section, _section(""))
        place["properties"][name] = {"description": row.meaning, **_type(row)}
    return root


def schema() -> str:
    """values.schema.json with the settings as they are now."""
    document = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    document["definitions"]["settings"] = settings_schema()
    return json.dumps(document, indent=2) + "\n"


def readme() -> str:
    values = (CHART / "values.yaml").read_text(encoding="utf-8")
    table = ["| value | default | meaning |", "| --- | --- | --- |"]
    table += [f"| `{key}` | `{default}` | {meaning} |" for key, default, meaning in _rows(values)]
    page = (CHART / "README.md").read_text(encoding="utf-8")
    head, _, _ = page.partition("## Values\n")
    return head + "## Values\n\nMade from `values.yaml` by `make chart-pages`.\n\n" + "\n".join(table) + "\n"


def _section(description: str) -> dict[str, Any]:
    section: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}}
    return {"description": description, **section} if description else section


def _type(row: Row) -> dict[str, Any]:
    if row.type in _TYPES:
        return _TYPES[row.type] if row.most is None else {**_TYPES[row.type], "maximum": row.most}
    return {"enum": re.split(r", | or ", row.type)}


def _rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Key, default and the comment above it, of every value that is no section or has a comment of its own."""
    lines = text.splitlines()
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    yield from _below(root, "", lines)


def _below(node: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        comment = _comment(lines, key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
            if comment:
                yield name, "", comment
            yield from _below(value, f"{name}.", lines)
        else:
            yield name, json.dumps(yaml.safe_load(yaml.serialize(value))), comment


def _comment(lines: list[str], line: int) -> str:
    found: list[str] = []
    for text in reversed(lines[:line]):
        if not text.strip().startswith("# "):
            break
        found.insert(0, text.strip().removeprefix("# ").removeprefix("-- "))
    return " ".join(found).replace("|", "\\|")


if __name__ == "__main__":
    (CHART / "values.schema.json").write_text(schema(), encoding="utf-8")
    (CHART / "README.md").write_text(readme(), encoding="utf-8")
    sys.stdout.write("written\n")
