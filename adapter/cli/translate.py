"""`adapter translate`: shows commands as the supplier would receive them, and its messages as the estate would."""

import argparse
import asyncio
from codecs import BOM_UTF8
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from adapter.cli import show
from adapter.cli.commands import (
    FORM,
    Written,
    complain_of_refusal,
    complain_of_wait,
    complain_of_warnings,
    contents,
    read,
)
from adapter.cli.complaints import complain
from adapter.cli.exits import Exit
from adapter.core.command import Wait
from adapter.core.errors import Refused, Undecodable
from adapter.core.notification import Delivery, Refusal
from adapter.ports import Reply
from adapter.settings import Translating, load
from adapter.telemetry import start_logging

if TYPE_CHECKING:
    from adapter.app.translate import Published, Request, Translator
    from adapter.ports import Calls

_EPILOG = f"""\
For a command (JSON) it prints the request to the supplier, as a worker would send it; with --reply, the event that the
command ends with if the supplier answers so. For a notification (XML) it prints the event that a server would publish.
Whatever would be refused is reported with every reason. Nothing is sent: Kafka, registry and supplier are not needed.

{FORM}

needs ADAPTER_SUPPLIER__BUYER_IDENTIFIER; the other settings of the roles apply as well.

examples:
  adapter send --example AddFaultReport > command.json
  adapter translate command.json                           the request
  adapter translate command.json --reply reply.xml         the event that the answer leads to
  adapter translate command.json --reply page.html --status 502
  adapter translate notification.xml | jq
"""


def add(_name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument("files", nargs="+", metavar="FILE", help="commands or notifications, - for standard input")
    parser.add_argument("--reply", metavar="FILE", help="the supplier's answer to the commands")
    parser.add_argument(
        "--status", type=int, default=200, metavar="CODE", help="HTTP status of that answer (%(default)s)"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    from adapter.app.translate import Answered, Translator  # noqa: PLC0415 -- see adapter.cli

    translator = Translator(load(Translating), start_logging(level="error"))
    problems: list[str] = []
    commands, notifications = list[tuple[str, bytes]](), list[tuple[str, bytes]]()
    for name, content in contents(arguments.files, problems):
        (commands if _is_json(content) else notifications).append((name, content))
    answer = None
    if not 200 <= arguments.status <= 599:
        problems.append("--status: is no final status of HTTP, from 200 to 599")
    if arguments.reply is not None:
        if notifications:
            problems.append(f"--reply answers commands, and {notifications[0][0]} is none: it is not JSON")
        for _, content in contents([arguments.reply], problems):
            answer = Answered(Reply(arguments.status, {}, content))
    written = read(translator.known, commands, problems)
    codes = asyncio.run(_commands(translator, written, answer))
    codes += [_notification(translator, name, content) for name, content in notifications]
    return max(codes, default=Exit.DONE)


def _is_json(content: bytes) -> bool:
    return content.removeprefix(BOM_UTF8).lstrip()[:1] in (b"{", b"[")


async def _commands(translator: "Translator", commands: Iterable[Written], answer: "Calls | None") -> list[Exit]:
    codes = []
    for command in commands:
        try:
            if answer is None:
                _show_request(await translator.request(command.entry, command.record), command)
                codes.append(Exit.DONE)
            else:
                codes.append(_show_outcome(await translator.outcome(command.entry, command.record, answer), command))
        except (Refused, Undecodable) as refused:
            complain_of_refusal(command, refused)
            codes.append(Exit.NOT_ACCEPTED)
    return codes


def _show_request(request: "Request", command: Written) -> None:
    """As one indented XML document, with method, path and headers in a comment before it."""
    complain_of_warnings(command, request.warnings)
    headers = "".join(f", {name}: {value}" for name, value in request.headers.items())
    comment = f"POST {request.operation.path}{headers}".replace("--", "- -")  # not allowed in a comment
    show.write(f"<!-- {comment} -->")
    show.document(request.body)


def _show_outcome(outcome: "Published | Wait", command: Written) -> Exit:
    if isinstance(outcome, Wait):
        complain_of_wait(command, outcome)
        return Exit.NOT_ACCEPTED
    show.published(outcome)
    return Exit.DONE


def _notification(translator: "Translator", name: str, content: bytes) -> Exit:
    found = translator.event(Delivery(content, datetime.now(UTC)))
    if isinstance(found, Refusal):
        complain(f"{name}: quarantined: {found.reason}: {found.detail}")
        return Exit.NOT_ACCEPTED
    show.published(found)
    return Exit.DONE
