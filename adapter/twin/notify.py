"""`adapter twin notify`: posts files as notifications, whatever they contain, and judges the answers."""

import argparse
import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from adapter.catalogue import schema_root
from adapter.core.errors import Stop
from adapter.twin.judge import Judge, asked_by
from adapter.twin.post import Answered, Unanswered, post, session
from adapter.twin.settings import TlsFiles, address_problems, tls_files


@dataclass(frozen=True, slots=True)
class Posted:
    """A file that was posted. Without problems, it was acknowledged in conformance with the contract."""

    name: str
    answer: Answered | Unanswered
    problems: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Letters:
    """What to post, where and how."""

    files: Sequence[tuple[str, bytes]]
    url: str
    content_type: str
    soap_action: str
    tls: TlsFiles | None


def add_notify_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="files to post unchanged, - for standard input")
    add("--to", required=True, metavar="URL", help="where to post; the path is used as given")
    add("--content-type", default="text/xml", metavar="TYPE", help="HTTP header (%(default)s)")
    add("--soap-action", default="", metavar="TEXT", help="HTTP header, without quotes (empty)")
    add("--certificate", type=Path, metavar="FILE", help="client certificate (PEM)")
    add("--key", type=Path, metavar="FILE", help="its private key (PEM)")
    add("--ca", type=Path, metavar="FILE", help="CA that must have signed the receiver's certificate (PEM)")


def letters(given: argparse.Namespace, files: Sequence[tuple[str, bytes]], problems: list[str]) -> Letters:
    """What a parsed command line asks for. Raises Stop with all that is wrong, and the `problems` of its files."""
    problems += [f"--to: {problem}" for problem in address_problems(given.to)]
    tls = tls_files(given, "", problems)
    headers = {"--content-type": given.content_type, "--soap-action": given.soap_action}
    problems += [f"{name}: is not one line of text" for name, text in headers.items() if not text.isprintable()]
    if problems:
        raise Stop(*problems)
    return Letters(files, given.to, given.content_type, given.soap_action, tls)


async def notify(letters: Letters) -> AsyncIterator[Posted]:
    """Posts one after the other, each once. Raises Stop if the certificates or the URL are not usable."""
    judge = Judge(etree.XMLSchema(etree.parse(schema_root() / "xsd" / "cityfibre" / "faultReport.xsd")))
    headers = {"Content-Type": letters.content_type, "SOAPAction": f'"{letters.soap_action}"'}
    loop = asyncio.get_running_loop()
    async with session(letters.tls, at_once=1) as http:
        for name, body in letters.files:
            began = loop.time()
            answer = await post(http, letters.url, body, headers)
            seconds = loop.time() - began
            if isinstance(answer, Answered):
                asked = asked_by(body, letters.content_type)
                problems = judge.problems(answer.status, answer.content_type, answer.body, asked)
            else:
                problems = (answer.why,)
            yield Posted(name, answer, problems, seconds)
