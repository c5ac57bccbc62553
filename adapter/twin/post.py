"""Posting a message to the buyer: mutual TLS if there are certificates, one answer or the reason why there is none."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from adapter.core.errors import Stop
from adapter.twin.settings import TlsFiles

MAX_ANSWER = 1024 * 1024
"""Maximum size of an answer in bytes; a longer one counts as none."""

_TIMEOUT = 30.0
"""Seconds for one attempt."""


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    content_type: str
    body: bytes
    retry_after: float | None
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    why: str
    """What went wrong in a word or two."""


def session(tls: TlsFiles | None, *, at_once: int) -> aiohttp.ClientSession:
    """A session for one receiver, which the caller closes. Raises Stop, naming the file that can't be used."""
    connector = aiohttp.TCPConnector(limit=at_once, ssl=tls.context(ssl.PROTOCOL_TLS_CLIENT) if tls else True)
    limits = aiohttp.ClientTimeout(total=_TIMEOUT)
    return aiohttp.ClientSession(connector=connector, timeout=limits, auto_decompress=False)


async def post(http: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str]) -> Answered | Unanswered:
    """Posts it once; follows no redirect. Raises Stop if the URL is none."""
    try:
        async with http.post(url, data=body, headers=headers, allow_redirects=False) as response:
            answer = await response.content.read(MAX_ANSWER + 1)
            while len(answer) <= MAX_ANSWER and (more := await response.content.read(MAX_ANSWER + 1 - len(answer))):
                answer += more
            if len(answer) > MAX_ANSWER:
                return Unanswered("the answer is too long")
            after = response.headers.get("Retry-After", "")
            content_type = response.headers.get("Content-Type", "")
            return Answered(response.status, content_type, answer, float(after) if after.isdecimal() else None)
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise Stop(f"{url}: not an address to post to") from error
    except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
        return Unanswered(_why(error))


def _why(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as cause):
            return f"TLS failed: {cause.verify_message}"
        case aiohttp.ClientConnectorSSLError(os_error=ssl.SSLError() as cause) | (ssl.SSLError() as cause):
            return f"TLS failed: {cause.reason or 'unknown'}"
        case aiohttp.ClientConnectorError():
            return "no connection"
        case aiohttp.ClientPayloadError():
            return "the answer broke off"
        case _:
            return "the connection ended"
