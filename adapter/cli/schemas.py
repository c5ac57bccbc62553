"""`adapter schemas`: check their compatibility with each other and with released versions, register and show them."""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from adapter import catalogue
from adapter.catalogue import Catalogue
from adapter.cli.exits import Exit
from adapter.core.avro import Schema, full_transitive
from adapter.core.errors import Stop
from adapter.settings import Offline, Vocabulary, load
from adapter.suppliers import served
from adapter.transport.registry import TO_REGISTER, open_registry, register

_EPILOG = """\
check      compiles the mapping between Avro and XSD, and compares every Avro schema with all released copies
           (FULL_TRANSITIVE). It needs no network. With --registry it also asks whether the registry has them.
register   sets each subject to FULL_TRANSITIVE and registers the schemas that are not registered yet.
show       lists the records, or prints the schema of one. In a file or pipe the schema is exactly as registered.

register and --registry need ADAPTER_REGISTRY__URL (see adapter settings).

examples:
  adapter schemas check
  ADAPTER_REGISTRY__URL=http://localhost:8081 adapter schemas register
  adapter schemas show AddFaultReport
"""


def add(_name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="check that the schemas fit each other and the released ones")
    check.add_argument("--registry", action="store_true", help="also ask the registry")
    check.set_defaults(run=_check)
    actions.add_parser("register", help="register the schemas in the registry").set_defaults(run=_register)
    show = actions.add_parser("show", help="list the records, or print the schema of one")
    show.add_argument("record", nargs="?", help="name of a record, such as AddFaultReport")
    show.set_defaults(run=_show)


def _check(arguments: argparse.Namespace) -> Exit:
    settings = load(Vocabulary if arguments.registry else Offline)
    root = settings.schemas or catalogue.schema_root()
    compiled = catalogue.load(served(), root)
    problems = list(_breaches(compiled, root / "avro" / "released"))
    if isinstance(settings, Vocabulary):
        problems += asyncio.run(_compare(compiled, settings))
    if problems:
        sys.stdout.writelines(f"{problem}\n" for problem in problems)
        return Exit.DIFFERENT
    records = sum(map(len, compiled.groups.values()))
    sys.stdout.write(f"{len(compiled.operations)} operations and {records} records fit\n")
    return Exit.DONE


def _register(_arguments: argparse.Namespace) -> Exit:
    settings = load(Vocabulary)
    compiled = catalogue.load(served(), settings.schemas)
    asyncio.run(_hand_over(compiled, settings))
    return Exit.DONE


def _show(arguments: argparse.Namespace) -> Exit:
    compiled = catalogue.load(served(), load(Offline).schemas)
    groups = compiled.groups
    if arguments.record is None:
        for group, schemas in groups.items():
            sys.stdout.writelines(f"{group:<9} {s.fullname:<44} {s.record.doc}\n" for s in schemas.values())
        return Exit.DONE
    for schemas in groups.values():
        if arguments.record in schemas:
            text = schemas[arguments.record].text
            # Some registries (Apicurio) find a schema by its exact text alone: what goes to a file is that.
            sys.stdout.write(json.dumps(json.loads(text), indent=2) + "\n" if sys.stdout.isatty() else text)
            return Exit.DONE
    raise Stop(f"{arguments.record}: no such record; `adapter schemas show` lists them")


def _breaches(compiled: Catalogue, released: Path) -> Iterator[str]:
    """Breaches of FULL_TRANSITIVE between the current schemas and the released ones, and records that are gone."""
    releases = sorted((folder for folder in released.glob("*") if folder.is_dir()), key=_version)
    for group, schemas in compiled.groups.items():
        history: dict[str, list[Schema]] = {}
        for release in releases:
            for path in sorted((release / group).glob("*.avsc")):
                history.setdefault(path.stem, []).append(Schema.parse(path.read_text(encoding="utf-8")))
        for name, versions in history.items():
            if name not in schemas:
                yield f"{group}/{name}: was released and is gone"
                continue
            yield from (f"{group}/{name}: {breach}" for breach in full_transitive([*versions, schemas[name]]))


def _version(release: Path) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in release.name.split("."))
    except ValueError:
        raise Stop(f"{release}: a release is named by its version, such as 1.2.0") from None


async def _compare(compiled: Catalogue, settings: Vocabulary) -> list[str]:
    problems = []
    subjects = compiled.subjects(settings.registry.subject_strategy, asdict(settings.topics.names()))
    async with open_registry(settings.registry) as registry:
        for subject, schema in subjects:
            if await registry.identifier(subject, schema.text) is None:
                fits = await registry.compatible(subject, schema.text)
                problems.append(
                    f"{subject}: not registered; {TO_REGISTER}"
                    if fits
                    else f"{subject}: the registry holds versions it does not fit"
                )
    return problems


async def _hand_over(compiled: Catalogue, settings: Vocabulary) -> None:
    async with open_registry(settings.registry) as registry:
        async for subject, _, identifier in register(settings, registry, compiled):
            sys.stdout.write(f"{subject}: id {identifier}\n")
