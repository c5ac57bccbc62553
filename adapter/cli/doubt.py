"""`adapter doubt`: lists the commands whose outcome is unknown, and records an operator's decision about some."""

import argparse
import getpass
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

from adapter.cli import journal, show
from adapter.cli.bus import Client, compiled, connected
from adapter.cli.complaints import complain
from adapter.cli.exits import Exit
from adapter.cli.follow import Outcomes, seconds, timeline
from adapter.cli.journal import Held
from adapter.core import cloudevents, wording
from adapter.core.document import trimmed
from adapter.core.doubt import WHY_LIMIT
from adapter.core.errors import Stop, Undecodable
from adapter.core.instant import utc
from adapter.core.ticket import Ruling
from adapter.core.ticket.fold import DECISION
from adapter.ports import Outgoing
from adapter.settings import Bus, load
from adapter.transport.kafka.client import Sender, moment

NAMESPACE: Final = UUID("0c6c6a5e-38a5-5a4e-a9a5-7d6b1d0a3f52")
"""Namespace of the ids of decisions (uuid5): the same decision about the same doubt always has the same id."""

_RULINGS: Final = {"accepted": Ruling.ACCEPTED, "rejected": Ruling.REJECTED, "repeat": Ruling.REPEAT}

_MEANINGS = """\
  accepted   the supplier has taken the command
  rejected   the supplier has not taken it, and it must not be sent again
  repeat     the supplier has not taken it: send it again. If it was taken after all, it then exists twice
"""
_EPILOG = f"""\
A command is in doubt if its request may have arrived but no clear answer came. It blocks only its own ticket, until the
supplier's next fitting notification, a decision, or its time limit settles it. Look the ticket up on the supplier's
portal before you decide. A decision is an event like any other: it or the notification counts, whichever came first.

{_MEANINGS}
needs ADAPTER_KAFKA__BOOTSTRAP_SERVERS and ADAPTER_REGISTRY__URL, and a running projector.

examples:
  adapter doubt list
  adapter doubt settle 4f7c2d1e-… accepted --why "CF-1002 is on the portal" --wait
  adapter doubt settle 4f7c2d1e-… 9b1c03aa-… rejected --why "not on the portal after the outage"
"""


def add(_name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    ways = parser.add_subparsers(title="what to do", metavar="list | settle", required=True)
    listing = ways.add_parser("list", help="list the commands in doubt, oldest first")
    show.add_form(listing)
    listing.set_defaults(run=_list)
    settle = ways.add_parser(
        "settle",
        help="decide about some of them",
        epilog=f"decisions:\n{_MEANINGS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    settle.add_argument("command_ids", nargs="+", metavar="COMMAND", help="the commandId")
    settle.add_argument("ruling", choices=sorted(_RULINGS), help="the decision, the same for all of them")
    settle.add_argument("--why", required=True, metavar="TEXT", help="the reason, published with the decision")
    settle.add_argument("--who", metavar="NAME", help="who decides (default: the user of this machine)")
    settle.add_argument("--wait", action="store_true", help="print the commands' events until all are settled")
    settle.add_argument("--timeout", default="60s", help="how long to wait for that (%(default)s)")
    settle.set_defaults(run=_settle)


# -- list --------------------------------------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace) -> Exit:
    settings, text, now = load(Bus), show.as_text(arguments), datetime.now(UTC)
    with connected(settings, compiled(settings)) as bus:
        doubts = [held for found in journal.partitions(bus) for held in journal.held(bus, found)]
    show.listing(
        sorted(doubts, key=lambda held: held.entry.called_at),
        text=text,
        record=_record,
        head=_HEAD,
        cells=lambda held: _row(held, now),
        nothing="no command is in doubt",
    )
    return Exit.DONE


_HEAD: Final = ("COMMAND", "OPERATION", "REFERENCE", "SENT", "ENDS BY ITSELF", "BEHIND IT")


def _row(held: Held, now: datetime) -> tuple[str, ...]:
    until = moment(held.entry.ends_at)
    return (
        held.entry.command_id,
        held.operation.name,
        held.reference or held.key,
        f"{wording.span(now - moment(held.entry.called_at))} ago",
        f"in {wording.span(until - now)}" if until > now else "now",
        str(held.parked) if held.parked else "",
    )


def _record(held: Held) -> dict[str, object]:
    return {
        "commandId": held.entry.command_id,
        "operation": held.operation.name,
        "key": held.key,
        "attempts": held.entry.attempt,
        "sentAt": utc(moment(held.entry.called_at)),
        "doubtUntil": utc(moment(held.entry.ends_at)),
        "parkedBehind": held.parked,
        "partition": held.entry.source.partition if held.entry.source else None,
        "offset": held.entry.offset,
    }


# -- settle ------------------------------------------------------------------------------------------------------------


def _settle(arguments: argparse.Namespace) -> Exit:
    timeout = seconds("--timeout", arguments.timeout)
    why, who = arguments.why.strip(), (arguments.who or _user()).strip()
    if not why or not who or len(why) + len(who) + 2 > WHY_LIMIT:
        raise Stop(f"--why: say it in a few words, with --who at most {WHY_LIMIT - 2} characters")
    settings = load(Bus)
    with connected(settings, compiled(settings)) as bus, ExitStack() as stack:
        doubts = _doubts(bus, arguments.command_ids)
        ruling = _RULINGS[arguments.ruling]
        _raise_if_decided_otherwise(bus, doubts, ruling)
        decisions = _decisions(bus, doubts, ruling, why=why, who=who)
        # Opened before anything is sent, because it starts at the present end of the topic.
        follower = stack.enter_context(bus.following(bus.topics.events)) if arguments.wait else None
        sender = Sender(settings.kafka.client(), max_message_bytes=settings.topics.max_message_bytes)
        decided = set()
        for (command_id, held), fault in zip(doubts.items(), sender.send(decisions), strict=True):
            if fault is not None:
                complain(f"{command_id}: not decided: {fault}")
                continue
            decided.add(command_id)
            if follower is None:
                show.write(show.json_line({"decided": ruling.value, "commandId": command_id, "key": _ticket(held)}))
        outcomes = Outcomes(bus, decided if follower else ())
        if follower is not None:
            outcomes.follow(follower.read(time.monotonic() + timeout))
    for command_id in sorted(outcomes.pending):
        complain(f"{command_id}: not settled within {arguments.timeout}; do worker and projector run?")
    if len(decided) < len(doubts):
        return Exit.FAILED
    return Exit.NOT_ACCEPTED if outcomes.pending else Exit.DONE


def _user() -> str:
    """The name of the user. Raises Stop if there is none, as for a bare user id in a container."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        raise Stop("--who: this machine has no name for its user; say who decides") from None


def _doubts(bus: Client, command_ids: Iterable[str]) -> dict[str, Held]:
    """Those commands, by their ids. Raises Stop with all about which nothing can be decided."""
    partitions = journal.partitions(bus)
    known = {held.entry.command_id: held for found in partitions for held in journal.held(bus, found)}
    doubts, problems = {}, []
    for command_id in dict.fromkeys(command_ids):
        held = known.get(command_id)
        if held is None and any(command_id in found.known.settled for found in partitions):
            problems.append(f"{command_id}: has ended already; adapter watch --since shows how")
        elif held is None:
            problems.append(f"{command_id}: is not in doubt; adapter doubt list shows what is")
        elif held.reference is None:
            what, ends = held.operation.name, wording.moment(moment(held.entry.ends_at))
            problems.append(f"{command_id}: {what} is about an address and has no ticket; it ends by itself at {ends}")
        else:
            doubts[command_id] = held
    if problems:
        raise Stop(*problems)
    return doubts


def _ticket(held: Held) -> str:
    """The ticket to whose events the decision is added."""
    assert held.reference is not None, "a command about an address is not decided about"
    return trimmed(held.reference)


def _raise_if_decided_otherwise(bus: Client, doubts: Mapping[str, Held], ruling: Ruling) -> None:
    """Raises Stop if somebody has made another decision about one of these doubts: the first one counts, though no
    worker may have acted on it yet.
    """
    firsts: dict[str, Mapping[str, Any]] = {}
    keys = {_ticket(held).encode() for held in doubts.values()}
    for seen in timeline(bus, keys, moment(min(held.entry.called_at for held in doubts.values()))):
        try:
            event = bus.decode(seen.value, bus.known.events)
        except Undecodable:  # none of ours: others may write here too
            continue
        held = doubts.get(event.record["commandId"]) if event.name == DECISION else None
        if held is not None and event.record["attempts"] == held.entry.attempt:
            firsts.setdefault(held.entry.command_id, event.record)
    others = {command_id: first for command_id, first in firsts.items() if first["decision"] != ruling.value}
    if others:
        already = "{}: {} has decided already: {}; the first decision counts"
        raise Stop(*(already.format(i, first["who"], wording.word(first["decision"])) for i, first in others.items()))


def _decisions(bus: Client, doubts: Mapping[str, Held], ruling: Ruling, *, why: str, who: str) -> list[Outgoing]:
    """Raises Stop if the registry lacks the schema, Unavailable."""
    schema, now = bus.known.events[DECISION], datetime.now(UTC)
    encoder, decisions = bus.encoder(bus.topics.events, schema), []
    for command_id, held in doubts.items():
        reference, attempts = _ticket(held), held.entry.attempt
        value = encoder.encode(
            {
                "commandId": command_id,
                "buyerFaultReference": reference,
                "attempts": attempts,
                "decision": ruling.value,
                "why": why,
                "who": who,
                "decidedAt": now,
            }
        )
        headers = cloudevents.headers(
            str(uuid5(NAMESPACE, f"{command_id}/{attempts}/{ruling.value}")),
            source=b"/fault-adapter/doubt",
            kind=schema.fullname,
            at=now,
            traceparent=None,
        )
        decisions.append(Outgoing(bus.topics.events, reference.encode(), value, headers))
    return decisions
