"""One notification from its head to its answer. 200 leaves only when the event is safe."""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, TypeVarTuple

from adapter.core.answer import AnswerWriter, Written, refused
from adapter.core.errors import Unavailable
from adapter.core.notification import Delivery, Readable, Refusal
from adapter.core.overdue import Recurring
from adapter.ports import Answer, Arrival, Caller, Head, Outgoing, Peer, Publisher, Spool
from adapter.server.admission import Admission, Reason, Refused
from adapter.server.keeper import Keeper, Stored
from adapter.server.records import REASONS, Records
from adapter.telemetry import Log, Metrics, Role, Trace, Tracer, parse_traceparent
from adapter.telemetry import metrics as m

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")

LONG: Final = 32 * 1024
"""Bytes of a body that is read on another thread."""

_HEALTH: Final = re.compile(r"/health/?(?:\?|$)")
"""The end of a path, or of a whole URL, as some proxies send it."""
_PATH_LIMIT: Final = 200
"""Characters of a path that a span carries."""
_NO_WORD: Final = re.compile(r"[^/]*[^/A-Za-z][^/]*")
_TOO_LARGE: Final = 413
_RETRY_AFTER: Final = {"Retry-After": "5"}
RESULTS: Final = (*Stored, "repeated", "quarantined", "unavailable")
"""What may become of a notification that was read to its end: a label of metrics."""


def begin(metrics: Metrics) -> None:
    """Show the counters that alerts look at, at zero, before anything is counted."""
    metrics.begin(m.NOTIFICATIONS, RESULTS)
    metrics.begin(m.QUARANTINED, REASONS)
    metrics.begin(m.REQUESTS_REFUSED, [str(_TOO_LARGE)])
    metrics.begin(m.CALLERS_REFUSED, tuple(Reason))


@dataclass(frozen=True, slots=True)
class Deployment:
    """Who we are, and our limits."""

    api_version: str
    buyer: str
    """Stands in where a notification names none."""
    own_message_id: bool
    max_body_bytes: int
    publish_limit: float
    """Seconds."""
    remembered: int
    """Ids of stored notifications."""
    scheme: str
    """Of the listener's address, as spans name it."""


class Server:
    """The flow behind the listener (`ports.Receiver`)."""

    def __init__(
        self,
        *,
        admission: Admission,
        read: Callable[[Delivery], Readable | Refusal],
        answers: AnswerWriter,
        publisher: Publisher,
        spool: Spool | None,
        deployment: Deployment,
        log: Log,
        metrics: Metrics,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._admission = admission
        self._read = read
        self._answers = answers
        self._records: Records | None = None
        self._deployment = deployment
        self._log = log
        self._metrics = metrics
        self._seconds = metrics.histogram(m.NOTIFICATION_SECONDS)
        self._loop = asyncio.get_running_loop()
        self._stored: OrderedDict[str, None] = OrderedDict()
        self._pending: dict[str, asyncio.Future[bool]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._said = Recurring()
        self.keeper = Keeper(
            publisher=publisher,
            spool=spool,
            limit=deployment.publish_limit,
            record=self._again,
            drained=lambda: metrics.count(m.SPOOL_DRAINED),
            log=log,
        )

    def start_publishing(self, records: Records) -> None:
        """From now on notifications are published, as made by `records`; until then only the spool takes them."""
        self._records = records

    # -- before the body ---------------------------------------------------------------------------------------------

    def admit(self, peer: Peer, head: Head) -> Caller | Answer:
        judged = self._admission.judge(peer, head)
        if isinstance(judged, Refused):
            caller = judged.caller
            self._metrics.count(m.CALLERS_REFUSED, judged.reason)
            detail = {} if judged.detail is None else {"detail": judged.detail}
            said = {"reason": judged.reason, **detail, "subject": caller.subject, "address": caller.address}
            if self._is_news(said):
                self._log.warning("caller refused", **said)
            return Answer(403, b"You are not on the list of callers.\n", close=True)
        return self._judge_head(head, judged) or judged

    def handshake_failed(self, address: str, reason: str) -> None:
        self._metrics.count(m.CALLERS_REFUSED, Reason.TLS)
        said = {"reason": Reason.TLS, "detail": reason, "address": address}
        if self._is_news(said):
            self._log.warning("caller refused", **said)

    def too_large(self, caller: Caller) -> Answer:
        return self._turned_away(_TOO_LARGE, f"At most {self._deployment.max_body_bytes} bytes are taken.", caller)

    def too_slow(self, caller: Caller) -> Answer:
        return self._turned_away(408, "The body did not come in time.", caller)

    def too_busy(self, caller: Caller) -> Answer:
        return self._turned_away(503, "Too much at once; send it again.", caller)

    def garbled(self, caller: Caller, why: str) -> Answer:
        return self._turned_away(400, f"This is not HTTP as we read it: {why}.", caller)

    def _judge_head(self, head: Head, caller: Caller) -> Answer | None:
        if head.method in {"GET", "HEAD"} and _HEALTH.search(head.path):
            return Answer(200, b"The listener is up. POST notifications to any path.\n")
        if head.method != "POST":
            told = "POST a notification, to any path; GET /health to try the connection."
            return self._turned_away(405, told, caller)
        coding = head.headers.get("transfer-encoding", "").strip().lower()
        if coding not in {"", "chunked"}:
            return self._turned_away(501, "Send the body without Transfer-Encoding, or in chunks alone.", caller)
        if not coding and "content-length" not in head.headers:
            return self._turned_away(411, "Send Content-Length, or the body in chunks.", caller)
        announced = head.headers.get("content-length", "0")
        if not announced.isdecimal() or len(announced) > 18:
            return self.garbled(caller, "Content-Length is no number")
        return self.too_large(caller) if int(announced) > self._deployment.max_body_bytes else None

    def _turned_away(self, status: int, text: str, caller: Caller) -> Answer:
        self._metrics.count(m.REQUESTS_REFUSED, str(status))
        said = {"status": status, "detail": text, "subject": caller.subject, "address": caller.address}
        if status != 503 and self._is_news(said):  # these come in crowds and are sent again; others may be lost
            self._log.warning("request refused", **said)
        headers = {405: {"Allow": "POST"}, 503: _RETRY_AFTER}.get(status, {})
        return Answer(status, f"{text}\n".encode(), headers=headers, close=True)

    def _is_news(self, said: Mapping[str, object]) -> bool:
        """Whether that was not said shortly before: whoever is turned away may come again at once, for ever."""
        return self._said.due(str(said), time.monotonic()) > 0

    # -- with the body -----------------------------------------------------------------------------------------------

    async def receive(self, arrival: Arrival) -> Answer:
        if self._tracer is None:
            return await self._receive(arrival)
        parent = parse_traceparent(arrival.traceparent)
        span = self._tracer.span(
            "POST",
            Role.SERVER,
            parent,
            http__request__method="POST",
            url__scheme=self._deployment.scheme,
            url__path=_shown(arrival.delivery.path),
        )
        answer = await self._receive(replace(arrival, traceparent=str(span.trace)))
        span.end(str(answer.status) if answer.status >= 500 else None, http__response__status_code=answer.status)
        return answer

    async def _receive(self, arrival: Arrival) -> Answer:
        began = time.monotonic()
        delivery = arrival.delivery
        read = await self._on_thread(self._read, delivery) if _long(arrival) else self._read(delivery)
        answer = await (self._refuse(read, arrival) if isinstance(read, Refusal) else self._store(read, arrival))
        self._seconds.observe(time.monotonic() - began)
        return answer

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    async def _store(self, readable: Readable, arrival: Arrival) -> Answer:
        identifier = readable.id
        if (pending := self._pending.get(identifier)) is not None:
            repeated = await asyncio.shield(pending)
            return self._repeated(readable) if repeated else self._unavailable()
        if identifier in self._stored:
            self._stored.move_to_end(identifier)
            return self._repeated(readable)
        ended: asyncio.Future[bool] = self._loop.create_future()
        self._pending[identifier] = ended
        kept = None
        try:
            event = await self._event(readable, arrival)
            if isinstance(event, Refusal):
                return await self._refuse(event, arrival)
            readable.record.clear()  # it is written, and its texts may take four times the bytes of the body
            key = readable.reference.encode()
            kept = await self._keep(key, event, arrival, late=lambda: self._remember(identifier))
        finally:
            del self._pending[identifier]
            ended.set_result(kept is not None)
        if kept is None:
            return self._unavailable()
        self._remember(identifier)
        self._report(readable, kept)
        return self._accepted(readable)

    async def _event(self, readable: Readable, arrival: Arrival) -> Outgoing | Refusal | None:
        """The event as a record; None while no record can be made, a Refusal if this event can't be written."""
        if self._records is None:
            return None
        write = self._records.event
        return await self._on_thread(write, readable, arrival) if _long(arrival) else write(readable, arrival)

    async def _refuse(self, refusal: Refusal, arrival: Arrival) -> Answer:
        records = self._records
        record = None if records is None else records.quarantined(refusal, arrival, at=datetime.now(UTC))
        if await self._keep(None, record, arrival) is None:
            return self._unavailable()
        caller = arrival.caller
        self._metrics.count(m.NOTIFICATIONS, "quarantined")
        self._metrics.count(m.QUARANTINED, refusal.reason)
        self._log.warning("notification not readable", reason=refusal.reason, subject=caller.subject)
        return _written(refused(refusal), 400)

    async def _keep(
        self, key: bytes | None, record: Outgoing | None, arrival: Arrival, *, late: Callable[[], None] = lambda: None
    ) -> Stored | None:
        span = None
        if self._tracer is not None and record is not None:
            span = self._tracer.span(
                f"send {record.topic}",
                Role.PRODUCER,
                parse_traceparent(arrival.traceparent),
                messaging__system="kafka",
                messaging__operation__type="send",
                messaging__operation__name="send",
                messaging__destination__name=record.topic,
            )
            record, arrival = _within(record, span.trace), replace(arrival, traceparent=str(span.trace))
        kept = None
        try:
            kept = await self.keeper.keep(key, record, arrival, late=late)
        except Unavailable as error:
            self._log.debug("notification not kept", reason=str(error))
        if span is not None:
            result = "unavailable" if kept is None else kept.value
            span.end("unavailable" if kept is None else None, fault__result=result)
        return kept

    async def _again(self, arrival: Arrival) -> Outgoing:
        """The record of a notification from the spool: read as the settings and schemas are now."""
        assert self._records is not None, "nothing is drained before"
        read = await self._on_thread(self._read, arrival.delivery)
        record = read if isinstance(read, Refusal) else self._records.event(read, arrival)
        if isinstance(record, Refusal):
            record = self._records.quarantined(record, arrival, at=datetime.now(UTC))
        return record

    async def _on_thread(self, act: Callable[[*_Arguments], _Result], *arguments: *_Arguments) -> _Result:
        """On another thread, so that the loop goes on."""
        return await self._loop.run_in_executor(self._thread, act, *arguments)

    def _remember(self, identifier: str) -> None:
        self._stored[identifier] = None
        if len(self._stored) > self._deployment.remembered:
            self._stored.popitem(last=False)

    def _report(self, readable: Readable, kept: Stored) -> None:
        count = self._metrics.count
        count(m.NOTIFICATIONS, kept.value)
        count(m.NOTIFICATION_KINDS, readable.kind)
        for path in readable.strayed:
            count(m.NOTIFICATION_DEVIATIONS, path)
        if readable.unknown:
            count(m.NOTIFICATION_UNKNOWN, by=readable.unknown)
        fields: dict[str, Any] = {"reference": readable.reference, "kind": readable.kind, "id": readable.id}
        self._log.info("notification", result=kept.value, deviations=len(readable.deviations), **fields)

    def _repeated(self, readable: Readable) -> Answer:
        self._metrics.count(m.NOTIFICATIONS, "repeated")
        return self._accepted(readable)

    def _accepted(self, readable: Readable) -> Answer:
        deployment = self._deployment
        written = self._answers.accepted(
            readable,
            api_version=deployment.api_version,
            buyer=deployment.buyer,
            at=datetime.now(UTC),
            own_id=deployment.own_message_id,
        )
        return _written(written, 200)

    def _unavailable(self) -> Answer:
        self._metrics.count(m.NOTIFICATIONS, "unavailable")
        return Answer(503, b"It could not be stored; send it again.\n", headers=_RETRY_AFTER)


def _long(arrival: Arrival) -> bool:
    return len(arrival.delivery.body) > LONG


def _shown(path: str) -> str:
    """The path for a span. Only words of letters are kept, since a caller may write anything into it."""
    return _NO_WORD.sub("REDACTED", path.partition("?")[0][:_PATH_LIMIT])


def _within(record: Outgoing, trace: Trace) -> Outgoing:
    """The record with the headers of that trace."""
    others = [header for header in record.headers if header[0] != "traceparent"]
    return replace(record, headers=[*others, ("traceparent", str(trace).encode())])


def _written(written: Written, status: int) -> Answer:
    return Answer(status, written.body, written.content_type)
