"""One request to the supplier: written from a command, sent, and what came back judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from adapter.core.command import Unavailable, Unclear, Verdict
from adapter.core.errors import Refused
from adapter.core.operation import Operation, Supplier
from adapter.core.outcome import Judge
from adapter.core.soap import wrap
from adapter.ports import Calls, NotSent, Reply
from adapter.ports import Unclear as UnclearCall
from adapter.telemetry import Log, Metrics, Role, Span, Tracer, continued
from adapter.telemetry import metrics as m
from adapter.worker.reader import Task


@dataclass(frozen=True, slots=True)
class Terms:
    """What every request says about us."""

    protocol: Mapping[str, Any]
    """Protocol values that do not depend on the command."""
    content_type: str
    soap_actions: Mapping[str, str]
    """SOAPAction per operation name, without quotes; empty where absent (SOAP 1.1, section 6.1.1)."""
    base_url: str
    """Where the operations are, as spans name it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Writes the requests of one deployment and makes the calls."""

    supplier: Supplier
    calls: Calls
    terms: Terms
    judge: Judge
    log: Log
    metrics: Metrics
    tracer: Tracer | None = None

    def write(self, task: Task, reference: str | None) -> bytes:
        """The request, with the present time, and with `reference` as the supplier's if the command leaves it out.

        Raises Refused with every reason why it must not or can't be written.
        """
        subject = task.subject
        record = task.record
        if reference is not None:
            record = {**record, self.supplier.notification.supplier_reference: reference}
        try:
            element = task.compiled.writer.write(
                record,
                {
                    **self.terms.protocol,
                    "sent_at": datetime.now(UTC),
                    "message_id": subject.message_id,
                    "correlation_id": subject.correlation_id or subject.message_id,
                },
            )
        except Refused as refused:
            raise Refused(*task.problems, *refused.problems) from None
        if task.problems:
            raise Refused(*task.problems)
        return wrap(element)

    def headers(self, operation: Operation) -> dict[str, str]:
        """The HTTP headers of every request of that operation, without the trace."""
        action = self.terms.soap_actions.get(operation.name, "")
        return {"content-type": self.terms.content_type, "soapaction": f'"{action}"'}

    async def send(
        self,
        task: Task,
        body: bytes,
        *,
        attempt: int,
        about: Callable[[], Mapping[str, Any]],
        keep: Callable[[Reply], None],
    ) -> Verdict:
        """Send it once; the verdict on the reply or the failure. `about` returns the fields of a log line, `keep` is
        called with the reply if it came whole.
        """
        operation, trace = task.subject.operation, task.subject.trace
        headers = self.headers(operation)
        span = None if self.tracer is None else self._span(self.tracer, task, attempt)
        if span is not None:
            headers["traceparent"] = str(span.trace)
        elif trace is not None:
            headers["traceparent"] = str(continued(trace))
        broken = None
        try:
            reply = await self.calls.post(operation.path, body, headers)
            keep(reply)
        except NotSent as failure:
            self.metrics.count(m.CALL_FAILURES, failure.reason)
            if span is not None:
                span.end(failure.reason)
            return Unavailable(failure.reason, detail=failure.detail)
        except UnclearCall as failure:
            self.metrics.count(m.CALL_FAILURES, failure.reason)
            broken = Unclear(failure.reason, failure.detail)
            if failure.head is None:
                if span is not None:
                    span.end(failure.reason)
                return broken
            reply = failure.head
        if span is not None:
            error = broken.reason if broken else (str(reply.status) if reply.status >= 400 else None)
            span.end(error, http__response__status_code=reply.status)
        try:
            return self.judge.verdict(
                status=reply.status,
                headers=reply.headers,
                body=reply.body,
                operation=operation,
                reader=task.compiled.reader,
                reference=task.subject.reference,
                now=datetime.now(UTC),
                broken=broken,
            )
        except Exception:  # it was sent: whatever we have overlooked, the outcome is unknown
            self.log.exception("reply not readable", status=reply.status, **about())
            return Unclear("unreadable-reply")

    def _span(self, tracer: Tracer, task: Task, attempt: int) -> Span:
        operation, place = task.subject.operation, urlsplit(self.terms.base_url)
        return tracer.span(
            f"POST {operation.path}",
            Role.CLIENT,
            task.subject.trace,
            http__request__method="POST",
            url__full=f"{self.terms.base_url.rstrip('/')}{operation.path}",
            url__template=operation.path,
            server__address=place.hostname or "",
            server__port=place.port or (443 if place.scheme == "https" else 80),
            fault__operation=operation.name,
            fault__attempt=attempt,
        )
