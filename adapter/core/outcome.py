"""What a reply means: the table of design section 4, as one function.

The body is read before the status, since SOAP 1.1 sends every fault with HTTP 500 (section 6.2) and this supplier
documents refusals with 400. Only where a status speaks of the way and not of the request (401, 403, 404, 429, 503,
redirects) does it decide whatever the body says.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from lxml import etree

from adapter.core import document, soap
from adapter.core.command import Accepted, By, Forbidden, Misdirected, Rejected, Unavailable, Unclear, Verdict
from adapter.core.document import Limits, local_name
from adapter.core.errors import Unreadable
from adapter.core.mapping import ReplyReader

_CHARSET: Final = re.compile(r'charset\s*=\s*"?([^\s";]+)', re.IGNORECASE)
_LONGEST_RETRY_AFTER: Final = 3600.0
"""Seconds; more is taken as this much, so that a slip at the supplier does not stop us for days."""


def judge(
    *,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    reader: ReplyReader,
    accepted_codes: frozenset[int],
    limits: Limits,
    now: datetime,
) -> Verdict:
    """The verdict on a whole reply. Header names are lower case."""
    by_way = _way(status, headers, now)
    if by_way is not None:
        return by_way
    try:
        message = soap.unwrap(document.admit(body, limits=limits, charset=charset(headers.get("content-type"))))
    except Unreadable as error:
        return Unclear(f"unreadable-{error.reason}" if 200 <= status < 300 else f"http-{status}")
    if message.fault is not None:
        return _fault(status, message.fault)
    if message.element is None or message.extra:
        return Unclear("unexpected-body" if 200 <= status < 300 else f"http-{status}")
    return _content(status, message.element, reader, accepted_codes)


def charset(content_type: str | None) -> str | None:
    """The charset parameter of a media type (RFC 9110 section 8.3.2)."""
    found = _CHARSET.search(content_type or "")
    return found[1] if found else None


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait: delay-seconds or an HTTP date (RFC 9110 section 10.2.3). None for what is neither."""
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return min(float(text), _LONGEST_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return min(max(0.0, (at - now).total_seconds()), _LONGEST_RETRY_AFTER)


def _way(status: int, headers: Mapping[str, str], now: datetime) -> Verdict | None:
    """What the status alone decides."""
    match status:
        case 429 | 503:
            return Unavailable(f"http-{status}", retry_after(headers.get("retry-after"), now))
        case 401 | 403:
            return Forbidden(f"http-{status}")
        case 404 | 405 | 410 | 421 | 501:
            return Misdirected(f"http-{status}")
        case 408:
            return Unclear("http-408")
        case _ if 300 <= status < 400:
            return Misdirected(f"http-{status}")
        case _:
            return None


def _fault(status: int, fault: soap.Fault) -> Verdict:
    if fault.blame is soap.Blame.CLIENT or (status == 400 and fault.blame is soap.Blame.OTHER):
        return Rejected(By.SUPPLIER, fault.code or "fault", _said(fault.text, fault.detail))
    return Unclear("fault-server" if fault.blame is soap.Blame.SERVER else "fault")


def _content(status: int, element: etree._Element, reader: ReplyReader, accepted_codes: frozenset[int]) -> Verdict:
    expected = local_name(element) == reader.element
    # The root of a documented 400 was never seen: any element that carries its fields will do.
    if not expected and not (status == 400 and _speaks(element)):
        return Unclear("unexpected-body" if 200 <= status < 300 else f"http-{status}")
    read = reader.read(element)
    reply: Mapping[str, Any] = read.record
    code, text = reply.get("responseCode"), reply.get("errorMessage")
    said = re.sub(r"[\s_-]", "", str(reply.get("status") or "")).lower()
    good = said != "rejected" and (code is None or code in accepted_codes)
    if 200 <= status < 300:
        accepted = Accepted(reply, deviations=len(read.unknown) + len(read.deviations))
        return accepted if good else Rejected(By.SUPPLIER, _code(code, said), text)
    if 400 <= status < 500:
        # A yes in the body under a no in the status is neither.
        contradicts = code is not None and good
        return Unclear(f"http-{status}") if contradicts else Rejected(By.SUPPLIER, _code(code, str(status)), text)
    refused = said == "rejected" or (code is not None and 400 <= code < 500)
    return Rejected(By.SUPPLIER, _code(code, said), text) if refused else Unclear(f"http-{status}")


def _speaks(element: etree._Element) -> bool:
    return any(local_name(child) in {"responseCode", "errorMessage"} for child in element)


def _code(code: int | None, otherwise: str) -> str:
    return otherwise or "rejected" if code is None else str(code)


def _said(text: str, detail: str) -> str | None:
    return "; ".join(part for part in (text, detail) if part) or None
