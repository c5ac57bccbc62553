"""What a reply means: the table of design section 4, as one class.

The body is read before the status, since SOAP 1.1 sends every fault with HTTP 500 (section 6.2) and this supplier
documents refusals with 400. A status decides on its own only if it concerns the connection rather than the request
(401, 403, 429, 503, redirects, 404 without the operation's own answer), and all of these but the last do so even if the
body broke off. If the operation's own answer says yes under one of them, the request may have been taken, and is not
sent again as if it had not. Some bodies concern the connection as well: the 400 of a server that wants another
certificate or TLS, Envoy's 503 after it had passed the request on, and Varnish's after it may have done so.

Acceptance and refusal must be explicit. Whatever could be either (a code that is no number, both at once, an
undocumented word, another ticket's answer) is unclear: if we wrongly take an answer for a refusal, the request may be
sent a second time; if we wrongly take it for an acceptance, it is never carried out.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from lxml import etree

from adapter.core import document, soap
from adapter.core.command import Accepted, By, Forbidden, Misdirected, Rejected, Unavailable, Unclear, Verdict
from adapter.core.document import DocumentLimits, folded_text, local_name, plain, trimmed
from adapter.core.errors import Unreadable
from adapter.core.instant import of_http
from adapter.core.mapping import MessageReader, Read
from adapter.core.mapping.notes import NOT_UTF_8
from adapter.core.operation import Operation, Replies

_LONGEST_RETRY_AFTER: Final = 3600.0
"""Seconds; a longer time counts as this one, so that a mistake of the supplier does not stop us for days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Judges the replies of one supplier."""

    replies: Replies
    accepted_codes: frozenset[int]
    """Response codes that say yes."""
    limits: DocumentLimits

    def verdict(
        self,
        *,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        operation: Operation,
        reader: MessageReader,
        reference: str | None,
        now: datetime,
        broken: Unclear | None = None,
    ) -> Verdict:
        """The verdict on the reply to a request. Header names are lower case, `reader` reads the operation's replies,
        `reference` is the buyer's of the ticket that the request was about. `broken` is what the call came to if its
        body did not come whole: then the body does not count.
        """
        of_connection = _of_connection(status, headers, body, now)
        alone = None if status in _NOT_THERE else of_connection
        if broken is not None:
            return alone or broken
        content_type = headers.get("content-type")
        record = None if of_connection is not None else reader.forms.read(body, content_type, self.limits)
        if record is not None:
            return self._content(status, Read(record, (), ()), operation, reference)
        found = self._answer(status, of_connection, body, content_type, operation=operation, reader=reader)
        return self._content(status, found, operation, reference, alone) if isinstance(found, Read) else found

    def _answer(
        self,
        status: int,
        of_connection: Verdict | None,
        body: bytes,
        content_type: str | None,
        *,
        operation: Operation,
        reader: MessageReader,
    ) -> Read | Verdict:
        """The operation's own answer in the body, or the verdict if there is none."""
        fine = 200 <= status < 300
        silenced = operation.silent and fine
        try:
            root, mended = document.admit_mended(body, limits=self.limits, charset=document.charset(content_type))
        except Unreadable as error:
            if silenced and error.reason == "empty":
                return Accepted(None)
            return of_connection or (
                _unclear(f"unreadable-{error.reason}", error.detail) if fine else Unclear(f"http-{status}")
            )
        message = soap.unwrap(root)
        element = None if message.extra else message.element
        own = element is not None and local_name(element).lower() == reader.element.lower()
        if of_connection is not None and not own:
            return _explained(of_connection, message.fault)
        if message.fault is not None and not message.extra:
            return _fault(status, message.fault)
        if silenced and message.empty:
            return Accepted(None)
        # The root of a documented 400 was never seen: any element that carries its fields will do.
        if element is None or not (own or (status == 400 and _speaks(element, self.replies))):
            return _unclear("unexpected-body" if fine else f"http-{status}", *_instead(message))
        read = reader.read(element)
        if mended:
            return replace(read, deviations=(*read.deviations, NOT_UTF_8))
        if own and read.conforms:
            reader.forms.learn(body, content_type, self.limits, element, read.record)
        return read

    def _content(
        self, status: int, read: Read, operation: Operation, reference: str | None, alone: Verdict | None = None
    ) -> Verdict:
        """What the operation's own answer says; `alone` is what its status says unless the answer is a yes."""
        reply: Mapping[str, Any] = read.record
        replies = self.replies
        code, text = reply.get(replies.code), reply.get(replies.text)
        bad_code: int | None = None if code in self.accepted_codes else code
        words = _words(read, replies.status)
        noes = [word.startswith(replies.refused) for word in words]
        refused, pending = bool(noes) and all(noes), not words.isdisjoint(replies.taken)
        taken = not refused and _may_be_yes(bad_code) and (pending or (code is not None and bad_code != 0))
        if alone is not None and not taken:
            return replace(alone, text=text or None) if isinstance(alone, Forbidden) else alone
        if _of_another(reply.get(replies.reference), reference):
            return _unclear("other-reference", *_outcome_fields(read, replies))
        said = "rejected" if refused else str(status)
        rejected = Rejected(By.SUPPLIER, said if bad_code is None else str(bad_code), text, aside=read.aside)
        if 400 <= status < 500:
            # A yes in the body with a no in the status is neither.
            return _unclear(f"http-{status}", *_outcome_fields(read, replies)) if taken else rejected
        fine = 200 <= status < 300
        garbled = any(_unread(read, replies.code))  # no number, or there twice
        if refused or (bad_code is not None and not garbled and not pending and _refuses(bad_code, fine=fine)):
            return rejected
        if not fine:
            return _unclear(f"http-{status}", *_outcome_fields(read, replies))
        if (
            garbled
            or bad_code is not None
            or any(noes)
            or (not operation.silent and _refused_within(read, replies))
            or (not taken and (words or text or _may_say_no(read, silent=operation.silent)))
            or (operation.finds is not None and read.aside and _unfound(read, operation.finds))
        ):
            return _unclear("unclear-answer", *_outcome_fields(read, replies))
        return Accepted(reply, deviations=len(read.unknown) + len(read.deviations), aside=read.aside)


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait from `now`, by the supplier's clock: delay-seconds or an HTTP date (RFC 9110 section 10.2.3).
    None for what is neither, and for a date that is past.
    """
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"[0-9]+", text):
        return min(float(text), _LONGEST_RETRY_AFTER)
    at = of_http(text)
    seconds = 0.0 if at is None else (at - now).total_seconds()
    return min(seconds, _LONGEST_RETRY_AFTER) if seconds > 0 else None


_NOT_THERE: Final = frozenset({404, 405, 410, 415, 421, 501})
"""No such endpoint, or one that does not accept our kind of request, unless the operation's own answer comes with it.
"""
_NO_ENTRY: Final = re.compile(rb"<title>400 (The SSL certificate error|No required SSL certificate was sent)</title>")
"""How nginx refuses a client certificate: the handshake succeeds, and the request is not passed on."""
_NO_TLS: Final = re.compile(
    rb"The plain HTTP request was sent to HTTPS port"
    rb"|You're speaking plain HTTP to an SSL-enabled server port"
    rb"|Client sent an HTTP request to an HTTPS server"
)
"""How nginx, Apache and servers written in Go say that they expect TLS: the request is not passed on either."""
_LOST: Final = re.compile(
    rb"reset reason: "
    rb"(connection termination|remote reset|local reset|protocol error|HTTP/1 premature upstream half close)\b"
    rb"|<title>503 (Backend fetch failed)</title>"
)
"""How Envoy says that it lost whoever had the request already; other reasons of its 503 are that nobody had. And how
Varnish says both.
"""


def _of_connection(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> Verdict | None:
    """The verdict of a status or body that concerns the connection; None if there is none."""
    match status:
        case 503 if lost := _LOST.search(body, 0, 1000):
            return Unclear("http-503", (lost[1] or lost[2]).decode())
        case 429 | 503:
            said = of_http(headers.get("date", "")) or now
            return Unavailable(f"http-{status}", retry_after(headers.get("retry-after"), said))
        case 400 if refused := _NO_ENTRY.search(body, 0, 1000):
            return Misdirected("client-certificate", refused[1].decode())
        case 400 if refused := _NO_TLS.search(body, 0, 1000):
            return Misdirected("plain-http", refused[0].decode())
        case 401 | 403:
            return Forbidden(f"http-{status}")
        case 408:
            return Unclear("http-408")
        case _ if 300 <= status < 400 or status in _NOT_THERE:
            return Misdirected(f"http-{status}")
        case _:
            return None


def _explained(verdict: Verdict, fault: soap.Fault | None) -> Verdict:
    """With what a fault in the body gives as the reason, if that status takes one."""
    if fault is None or not isinstance(verdict, Forbidden):
        return verdict
    return replace(verdict, text=_said(fault.code, fault.text, fault.detail))


def _fault(status: int, fault: soap.Fault) -> Verdict:
    if fault.blame is soap.Blame.CLIENT or (status == 400 and fault.blame is soap.Blame.OTHER):
        if _CODE.fullmatch(fault.code):
            return Rejected(By.SUPPLIER, fault.code, _said(fault.text, fault.detail))
        return Rejected(By.SUPPLIER, "fault", _said(fault.code, fault.text, fault.detail))
    reason = "fault-server" if fault.blame is soap.Blame.SERVER else "fault"
    return _unclear(reason, fault.code, fault.text, fault.detail)


def _may_be_yes(bad_code: int | None) -> bool:
    """Whether no code means refusal: 0 or one like a success may be an acceptance that is not documented."""
    return not bad_code or 200 <= bad_code < 300


def _refuses(code: int, *, fine: bool) -> bool:
    """Whether a code that is no yes is a no: one like a server's fault or a time limit leaves open what was done by
    then, and under a bad status only one like a client's is believed.
    """
    if _may_be_yes(code) or code == 408 or 500 <= code < 600:
        return False
    return fine or 400 <= code < 500


def _words(read: Read, status: str) -> set[str]:
    """What the answer's status says, even where no status is documented."""
    found = (read.record.get(status), *_unread(read, status))
    return {plain(text) for text in found if text and not text.isspace()}


def _refused_within(read: Read, replies: Replies) -> bool:
    """Whether a status says no where none is expected, as in the details in which notifications have theirs."""
    return any(
        path.rpartition(".")[2].lower() == replies.status.lower() and plain(text).startswith(replies.refused)
        for path, text in read.aside
    )


def _unread(read: Read, name: str) -> Iterator[str]:
    """The texts of that name which are not in the record, those of elements within it too. Attributes say no more."""
    return (text for path, text in read.aside if path.partition(".")[0] == name and "@" not in path)


_ANSWER: Final = re.compile(r"code|status|error|fault|reason|result|outcome|reject|fail|accept|success", re.IGNORECASE)
"""Parts of element names that suggest acceptance or refusal."""


def _of_another(named: str | None, reference: str | None) -> bool:
    """Whether the answer names another ticket. Its message id says nothing: the samples answer under another one than
    that of the request (section 8, number 16).
    """
    if not named or not reference or named == reference:
        return False
    named, ours = trimmed(named).casefold(), trimmed(reference).casefold()
    return bool(named and ours) and named != ours


def _may_say_no(read: Read, *, silent: bool) -> bool:
    """Whether an answer without code and status may be a refusal: something in it that could not be read may say so, or
    nothing in it could be read. If not, the answer is an acceptance because it came at all.
    """
    return not (silent or any(read.record.values())) or any(not path or _ANSWER.search(path) for path, _ in read.aside)


def _unfound(read: Read, finds: str) -> bool:
    """Whether none of the items asked for could be read, but something that may be some: content of their list, or
    elements in an unknown one. A plain text beside the list is what suppliers add, and speaks of something else.
    """
    if any(value not in (None, []) for item in read.record[finds] for value in item.values()):
        return False
    return any(
        name == finds or (deeper and name not in read.record)
        for name, deeper, _ in (path.partition("[")[0].partition(".") for path, _ in read.aside)
    )


def _speaks(element: etree._Element, replies: Replies) -> bool:
    return any(local_name(child) in (replies.code, replies.text) for child in element)


_CODE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
"""A code that may stand in logs. Anything else in its place is free text, which may name people."""


_TOLD: Final = 1000
"""Characters of an unclear answer that are told: it may have millions, and thousands of commands may wait with one."""


def _unclear(reason: str, *parts: str) -> Unclear:
    said = _said(*parts)
    return Unclear(reason, said and said[:_TOLD])


def _instead(message: soap.Message) -> Iterator[str]:
    """A description of what was found in place of the operation's answer."""
    if message.fault is not None:
        yield from (message.fault.code, message.fault.text, message.fault.detail)
    elif message.element is not None:
        yield f"{local_name(message.element)}: {folded_text(message.element)}"
    yield message.text
    if message.extra:
        yield f"and more elements: {message.extra}"


def _outcome_fields(read: Read, replies: Replies) -> Iterator[str]:
    """What an answer says about the outcome."""
    for name in (replies.reference, replies.status, replies.code, replies.text):
        value = read.record.get(name)
        if value not in (None, ""):
            yield f"{name}: {value}"
    for path, text in read.aside:
        yield f"{path}: {text}"


def _said(*parts: str) -> str | None:
    return "; ".join(filter(None, parts)) or None
