"""The twin notifies a real server before a real broker, in every dialect, with repeats and disorder."""

from collections import Counter

import aiohttp

from adapter.twin import Delivery, Dialect, Notify, Rules, Twin, TwinSettings
from adapter.twin.deliveries import End
from tests.server.conftest import Serve
from tests.support.wait import eventually
from tests.twin.caller import addition, post

TICKETS = 12


async def test_all_that_happens_to_tickets_is_acknowledged_and_published_once(serve: Serve) -> None:
    async with serve(SUPPLIER__BUYER_IDENTIFIER="SPDEV1") as server:
        notify = Notify(
            server.url,
            repeats=0.2,
            disorder=0.2,
            hold=0.1,
            dialects=frozenset(Dialect) - {Dialect.NO_HINTS},
            dialect_chance=0.3,
            retry=0.05,
        )
        async with Twin(TwinSettings(rules=Rules(speed=100_000, full_life=True), notify=notify)) as twin:
            async with aiohttp.ClientSession() as http:
                for number in range(TICKETS):
                    outage = "<type>Service Outage</type>"
                    await post(http, twin, "addFaultReport", addition(f"SP-{number}", details=outage, key="1000001"))

            def ended() -> list[Delivery]:
                entries = twin.deliveries
                closed = sum(entry.kind == "closed" and entry.repeat_of is None for entry in entries)
                return entries if closed == TICKETS and all(entry.end for entry in entries) else []

            entries = await eventually(ended, what="all tickets told to their end")
        events = server.events()
    assert {entry.end for entry in entries} == {End.ACKNOWLEDGED}
    assert Counter(entry.problems for entry in entries) == {(): len(entries)}
    assert {dialect for entry in entries for dialect in entry.dialects} == notify.dialects
    first = [entry for entry in entries if entry.repeat_of is None]
    assert len(first) < len(entries), "there were repeats"
    assert len(events) == len({event.id for event in events}) == len(first)
    # Not one by one: work that goes on after a visit has failed is told by a report that still has the failed visit.
    told = {event.headers["ce_type"].rpartition(".")[2] for event in events}
    assert told == {entry.kind.replace("-", "_").upper() for entry in first}
