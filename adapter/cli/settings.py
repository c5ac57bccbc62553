"""`adapter settings`: every setting, as a list for people, as JSON, or as the page of the documentation."""

import argparse
import json
import sys
import textwrap
from dataclasses import asdict

from adapter.cli.exits import Exit
from adapter.settings import describe, markdown

_EPILOG = """\
examples:
  adapter settings | less
  adapter settings --json | jq -r '.[] | select(.default == null) | .variable'    the required ones
"""


def add(_name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON array")
    form.add_argument("--markdown", action="store_true", help="print the page docs/settings.md")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    if arguments.json:
        text = json.dumps([asdict(row) for row in describe()], indent=2) + "\n"
    elif arguments.markdown:
        text = markdown()
    else:
        text = _text()
    sys.stdout.write(text)
    return Exit.DONE


def _text() -> str:
    parts = []
    for row in describe():
        default = "must be set" if row.default is None else f"default {row.default}" if row.default else "not set"
        meaning = textwrap.fill(row.meaning, 100, initial_indent="    ", subsequent_indent="    ")
        parts.append(f"{row.variable}  ({row.type}; {default})\n{meaning}\n")
    return "".join(parts)
