"""`adapter twin`: the stand-in for the supplier, and `adapter twin notify`: any file as a notification."""

import argparse
import asyncio

from adapter import twin
from adapter.cli import show
from adapter.cli.commands import contents
from adapter.cli.exits import Exit
from adapter.cli.flows import looped
from adapter.twin import Answered

_EPILOG = """\
A stateful stand-in for the supplier. It validates requests, keeps tickets, answers according to the contract and fails
on demand. With --notify-url it sends notifications about its tickets. docs/twin.md describes it.

examples:
  adapter twin --port 8444
  adapter twin --certificate server.pem --key server.key --ca ca.pem --calls calls.jsonl
  adapter twin --notify-url http://localhost:8443/ --full-life --speed 600 --dialect all --repeats 0.1 --disorder 0.1
  adapter twin notify message.xml --to https://localhost:8443/ --certificate c.pem --key c.key --ca ca.pem
"""
_NOTIFY = """\
Posts the files unchanged, each once, one after the other, and checks the answers against the contract. The exit code is
0 if all were acknowledged, 4 if one was answered otherwise, 1 if one got no answer.

examples:
  adapter twin notify tests/golden/cityfibre/notifications/*/notification.xml --to http://localhost:8443/
  echo '<not xml' | adapter twin notify - --to http://localhost:8443/
"""
_SHOWN = 2000
"""Characters that are shown of an answer that is no acknowledgement."""


def add(_name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    twin.add_arguments(parser)
    parser.set_defaults(run=_twin)
    notify = parser.add_subparsers(title="commands", metavar="notify").add_parser(
        "notify",
        help="post files as notifications and check the answers",
        epilog=_NOTIFY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    twin.add_notify_arguments(notify)
    notify.set_defaults(run=_notify)


def _twin(arguments: argparse.Namespace) -> int:
    return looped(twin.run(twin.from_arguments(arguments)))


def _notify(arguments: argparse.Namespace) -> int:
    problems: list[str] = []
    files = list(contents(arguments.files, problems))
    return asyncio.run(_posted(twin.letters(arguments, files, problems)))


async def _posted(letters: twin.Letters) -> Exit:
    code = Exit.DONE
    async for posted in twin.notify(letters):
        milliseconds = f"{posted.seconds * 1000:.0f} ms"
        if not isinstance(posted.answer, Answered):
            code = Exit.FAILED
            show.write(f"{posted.name}: {posted.answer.why}, after {milliseconds}")
            continue
        status = f"{posted.name}: {posted.answer.status} in {milliseconds}"
        if not posted.problems:
            show.write(f"{status}, acknowledged")
            continue
        code = code or Exit.NOT_ACCEPTED
        show.write(status)
        answer = posted.answer.body.decode(errors="replace")[:_SHOWN].splitlines()
        for line in (*posted.problems, *answer):
            show.write(f"    {line}")
    return code
