"""`adapter check`: is everything there for a role to go live?"""

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from adapter.cli.exits import Exit

if TYPE_CHECKING:
    from adapter.app.check import Role

_EPILOG = """\
Run it where the role will run, with the role's settings. It changes nothing. It checks:

  settings
  certificates: pair, chain, use, expiry
  the TLS handshake with the supplier, as the supplier sees it
  Kafka: topics and rights
  the schema registry and the schemas in it
  clock, telemetry port and folders

The exit code is 3 if a check failed, and 0 if there are only warnings.

examples:
  adapter check worker
  adapter check server --json | jq '.[] | select(.verdict != "ok")'
"""
_WIDTHS = (9, 28)


def add(_name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument("role", choices=("worker", "server", "projector"), help="the role to check for")
    parser.add_argument("--json", action="store_true", help="print a JSON array")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    from adapter.app.check import Role  # noqa: PLC0415 -- see adapter.cli

    return asyncio.run(_look(Role(arguments.role), as_json=arguments.json))


async def _look(role: "Role", *, as_json: bool) -> Exit:
    from adapter.app.check import Verdict, check  # noqa: PLC0415 -- see adapter.cli

    lines = []
    async for line in check(role):
        lines.append(line)
        if not as_json:
            _show(line.verdict.value, line.subject, line.said, line.fix if line.verdict is not Verdict.OK else "")
    if as_json:
        sys.stdout.write(json.dumps([asdict(line) for line in lines], indent=2, ensure_ascii=False) + "\n")
    return Exit.DIFFERENT if any(line.verdict is Verdict.FAILED for line in lines) else Exit.DONE


def _show(verdict: str, subject: str, said: str, fix: str) -> None:
    first, second = _WIDTHS
    sys.stdout.write(f"{verdict:<{first}}{subject:<{second - 1}} {said}\n")
    if fix:
        sys.stdout.write(f"{'':<{first + second}}-> {fix}\n")
    sys.stdout.flush()
