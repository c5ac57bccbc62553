"""`adapter watch`: prints events as they arrive."""

import argparse
import math
from collections.abc import Collection
from datetime import UTC, datetime

from adapter.catalogue import Catalogue
from adapter.cli import show
from adapter.cli.bus import compiled, connected
from adapter.cli.exits import Exit
from adapter.cli.follow import since
from adapter.core.avro.schema import Enum
from adapter.core.document import plain, trimmed
from adapter.core.errors import Stop
from adapter.settings import Bus, load
from adapter.transport.kafka.client import Edge, Seen

_EPILOG = """\
Reads only committed records and joins no consumer group, so it does not disturb other readers. A kind is the name of an
event, such as CommandRejected, or what a notification is about, such as resolved.

needs ADAPTER_KAFKA__BOOTSTRAP_SERVERS and ADAPTER_REGISTRY__URL.

examples:
  adapter watch                                        events from now on, until Ctrl-C
  adapter watch --reference SP-1001 --since beginning  one ticket's life
  adapter watch --since 1h --until-now | jq -r 'select(.event == "CommandRejected") | .code' | sort | uniq -c
  adapter watch --kind resolved --kind ResolveDeadlineApproaching
"""


def add(_name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument(
        "--reference", action="append", default=[], metavar="KEY", help="only this key; may be repeated"
    )
    parser.add_argument("--kind", action="append", default=[], metavar="KIND", help="only this kind; may be repeated")
    parser.add_argument(
        "--since", metavar="WHEN", help="start there: a duration ago (2h), a time (2026-01-31T12:00:00Z), or beginning"
    )
    parser.add_argument(
        "--until-now", action="store_true", help="stop at the current end of the topic instead of following it"
    )
    show.add_form(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    start = Edge.END if arguments.since is None else since(arguments.since, datetime.now(UTC))
    settings = load(Bus)
    known = compiled(settings)
    kinds = _kinds(arguments.kind, known)
    keys = [trimmed(reference).encode() for reference in arguments.reference]
    text = show.as_text(arguments)
    with (
        connected(settings, known) as bus,
        bus.following(bus.topics.events, start=start, keys=keys or None) as follower,
    ):
        for seen in follower.rest() if arguments.until_now else follower.read(math.inf):
            if (keys and seen.key not in keys) or (kinds and not kinds & _told(seen)):
                continue
            show.write(show.event(bus, seen, text=text))
    return Exit.DONE


def _kinds(asked: Collection[str], known: Catalogue) -> frozenset[str]:
    """As `_told` writes them. Raises Stop for one that no event can have."""
    of_notifications = known.notification.event.fields()["kind"].type
    assert isinstance(of_notifications, Enum)
    possible = {plain(name): name for name in (*known.events, *of_notifications.symbols)}
    unknown = [kind for kind in asked if plain(kind) not in possible]
    if unknown:
        raise Stop(
            *(f"--kind {kind}: there is no such kind" for kind in unknown), f"kinds: {', '.join(possible.values())}"
        )
    return frozenset(map(plain, asked))


def _told(seen: Seen) -> frozenset[str]:
    """The names in the event's ce_type: fault.event.FaultReportUpdated.RESOLVED."""
    return frozenset(plain(part) for part in seen.header("ce_type").split(".")[2:])
