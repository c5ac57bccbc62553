"""The supplier's side of the load: notifications, in order per ticket, each again and again until it is acknowledged.

Imports nothing from `adapter`.
"""

import asyncio
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import aiohttp

_LIFE: Final = ("Pending", "Accepted", "In Progress", "on-hold", "In Progress", "Resolved", "Closed")
_AGAIN: Final = 0.3
"""Seconds before a notification is sent again."""
_PATIENCE: Final = 8.0
"""Seconds an answer may take."""
_TEXT: Final = """<?xml version="1.0" encoding="UTF-8"?>
<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Body>
<notifyFaultReportUpdate>
  <apiVersion>1.0</apiVersion>
  <buyerIdentifier>SPDEV1</buyerIdentifier>
  <sentAt>{sent_at}</sentAt>
  <messageId>{message_id}</messageId>
  <reportDateTime>2026-03-02T09:00:00.0000Z</reportDateTime>
  <reporterContactDetails><name>A</name><phone>1</phone></reporterContactDetails>
  <endUserContactDetails><name>B</name></endUserContactDetails>
  <serviceAffected>S1</serviceAffected>
  <buyerFaultReference>{reference}</buyerFaultReference>
  <maintainerFaultReference>M-{reference}</maintainerFaultReference>
  <parentFaultReference/>
  <faultDetails><description>no light</description><type>Impaired Service</type><status>{status}</status></faultDetails>
  <updates><update><description>{status}</description><updatedBy>supplier</updatedBy></update></updates>
</notifyFaultReportUpdate>
</soap:Body></soap:Envelope>
"""


@dataclass(frozen=True, slots=True)
class Posted:
    """A notification; a repeat of it is the same one."""

    reference: str
    message_id: str
    sent_at: datetime
    """Of its last sending, in milliseconds, as it is on the bus."""
    body: bytes
    readable: bool = True
    acknowledged: bool = False
    """It got its 200; the unreadable one its 400."""
    tries: int = 0


class Notices:
    """Posts the lives of seeded tickets to one URL and remembers them in `posted`."""

    def __init__(self, url: str, seed: int) -> None:
        self.posted: list[Posted] = []
        self._url = url
        self._random = random.Random(seed)
        self._stopping = False
        self.waiting = 0
        """Posts that are unanswered now."""
        self.statuses: dict[int, int] = {}
        """How often each HTTP status came; 0: no answer."""

    @property
    def acknowledged(self) -> int:
        return sum(posted.acknowledged for posted in self.posted)

    async def run(self, lanes: int, *, pause: float) -> None:
        """So many tickets side by side, about `pause` seconds between two notifications of one, until `stop`; then
        returns when all that was begun is acknowledged."""
        connector = aiohttp.TCPConnector(limit=0)
        limit = aiohttp.ClientTimeout(total=_PATIENCE)
        async with aiohttp.ClientSession(connector=connector, timeout=limit) as client, asyncio.TaskGroup() as group:
            for _ in range(lanes):
                group.create_task(self._lane(client, pause))

    def stop(self) -> None:
        self._stopping = True

    def _stopped(self) -> bool:
        return self._stopping

    async def _lane(self, client: aiohttp.ClientSession, pause: float) -> None:
        chance = random.Random(self._random.random())
        while not self._stopped():
            reference = f"N-{chance.getrandbits(48):012x}"
            for number, status in enumerate(_LIFE, 1):
                if self._stopped():
                    return
                await asyncio.sleep(chance.uniform(0, 2 * pause))
                message_id = f"{reference}-{number}"
                await self._deliver(client, _posted(reference, message_id, status))
                if chance.random() < 0.1:  # the supplier repeats what was acknowledged
                    await self._deliver(client, _posted(reference, message_id, status))
                if chance.random() < 0.02:
                    await self._deliver(client, _unreadable(message_id))

    async def _deliver(self, client: aiohttp.ClientSession, notice: Posted) -> None:
        wanted = 200 if notice.readable else 400
        place = len(self.posted)
        self.posted.append(notice)
        while True:
            notice = self.posted[place] = replace(notice, tries=notice.tries + 1)
            status = await self._post(client, notice.body)
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status == wanted:
                self.posted[place] = replace(notice, acknowledged=True)
                return
            await asyncio.sleep(_AGAIN)

    async def _post(self, client: aiohttp.ClientSession, body: bytes) -> int:
        self.waiting += 1
        try:
            async with client.post(self._url, data=body, headers={"Content-Type": "text/xml"}) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0
        finally:
            self.waiting -= 1


def _posted(reference: str, message_id: str, status: str) -> Posted:
    now = datetime.now(UTC)
    sent_at = now - timedelta(microseconds=now.microsecond % 1000)
    text = _TEXT.format(
        reference=reference, message_id=message_id, status=status, sent_at=f"{sent_at:%Y-%m-%dT%H:%M:%S.%f}"[:-2] + "Z"
    )
    return Posted(reference, message_id, sent_at, text.encode())


def _unreadable(message_id: str) -> Posted:
    return Posted("", message_id, datetime.now(UTC), f"<broken>{message_id}".encode(), readable=False)
