"""Client of a schema registry with the Confluent HTTP API."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from http import HTTPStatus
from math import inf
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import httpx

from adapter.catalogue import Catalogue
from adapter.core.avro import Encoder, Schema, SubjectStrategy, subject
from adapter.core.avro.lookup import LOST
from adapter.core.avro.references import inlined
from adapter.core.errors import Stop, Unavailable
from adapter.core.instant import of_http
from adapter.settings import Registry, Vocabulary, secret
from adapter.transport.address import parsed
from adapter.transport.failures import words
from adapter.transport.tls import ClientTls, TlsFiles

CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
SIZE_LIMIT: Final = 2 * 1024 * 1024
"""Maximum size of an answer in bytes."""

LAG: Final = (0.1, 0.3, 0.6)
"""Seconds between attempts to find an id: of several registries behind one address, one may not know yet what another
has just registered, and a record must not become a dead letter for that.
"""

FAILED_FOR: Final = 1.0
"""Seconds for which an id whose look-up failed is not asked for again. Each command that waits for it tries by itself,
and thousands of them must not fall upon a registry in trouble.
"""

REFERENCE_LIMIT: Final = 100
"""Schemas that a schema may refer to, with those that they refer to."""

LEVEL: Final = "FULL_TRANSITIVE"
"""The compatibility level of our subjects."""

TO_REGISTER: Final = (
    f"adapter schemas register does it, unless the registry has lost it: then new ids do harm, see {LOST}"
)
"""What to do about a schema of ours that is not registered."""

SUBJECT_NOT_FOUND: Final = 40401
VERSION_NOT_FOUND: Final = 40402
SCHEMA_NOT_FOUND: Final = 40403


class HttpRegistry:
    """Look-ups of schemas and of their ids (`core.avro.lookup.Lookup`), and what registering schemas needs.

    `url` may name several addresses of one registry, separated by commas; a request goes to the one that answered
    last, then to the others in turn if it is unavailable. `credentials` is a file with one line, `user:password` or a
    bearer token. It and the file of authorities `ca` are looked at for every request, so that they may change. An id
    counts as absent once it was not found after each of the `waits`, and is asked for again after `absent_for`; after
    FAILED_FOR where the look-up failed. Raises Stop if the addresses or the file of authorities can't be used.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: timedelta = timedelta(seconds=10),
        credentials: Path | None = None,
        ca: Path | None = None,
        waits: Sequence[float] = LAG,
        absent_for: timedelta = timedelta(seconds=5),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._addresses = url.split(",")
        for address in self._addresses:
            parsed("ADAPTER_REGISTRY__URL", address)
        self._tls = ClientTls(TlsFiles(ca=ca))
        self._timeout = timeout.total_seconds()
        self._clients = [self._client()]
        """The last one is in use. Those before it had other authorities, and may still have a request under way."""
        self._trusted = self._tls.context
        self._credentials = credentials
        self._waits = waits
        self.time: datetime | None = None
        """The registry's clock, from the Date header of its last answer."""
        self._schemas = _Schemas(self._fetch_schema, absent_for=absent_for, clock=clock)

    async def schema(self, identifier: int) -> str | None:
        """The schema of that id as JSON text, with the types that it refers to put in; None if the registry says there
        is none. A type that the registry does not have, or one too many, stays a name. Raises Unavailable.
        """
        return await self._schemas.get(identifier)

    async def identifier(self, subject: str, schema: str) -> int | None:
        """The id under which `subject` has this schema, None if it has not. Raises Unavailable."""
        status, answer = await self._ask("POST", f"/subjects/{_quoted(subject)}", {"schema": schema})
        if _error_code(answer) in {SUBJECT_NOT_FOUND, SCHEMA_NOT_FOUND}:
            return None
        if status != HTTPStatus.OK:
            raise Unavailable(f"the registry gives no id: {_said(status, answer)}")
        return _id(answer)

    async def register(self, subject: str, schema: str) -> int:
        """Register the schema as a new version of `subject`, unless it is one already; returns its id. Raises Stop with
        the registry's message if it refuses the schema, and Unavailable.
        """
        status, answer = await self._ask("POST", f"/subjects/{_quoted(subject)}/versions", {"schema": schema})
        if status != HTTPStatus.OK:
            raise Stop(f"{subject}: the registry refuses the schema: {_said(status, answer)}")
        return _id(answer)

    async def compatible(self, subject: str, schema: str) -> bool:
        """Whether `register` would accept it as the subject's next version. Raises Unavailable, and Stop if the
        registry does not accept it as a schema.
        """
        path = f"/compatibility/subjects/{_quoted(subject)}/versions"
        status, answer = await self._ask("POST", path, {"schema": schema})
        if _error_code(answer) in {SUBJECT_NOT_FOUND, VERSION_NOT_FOUND}:
            return True
        if status != HTTPStatus.OK:
            raise Stop(f"{subject}: the registry can't judge the schema: {_said(status, answer)}")
        verdict = answer.get("is_compatible")
        if not isinstance(verdict, bool):
            raise Unavailable("the registry's verdict is unreadable")
        return verdict

    async def set_compatibility(self, subject: str, level: str) -> None:
        """Set the compatibility level for the subject's next versions. Raises Stop, Unavailable."""
        status, answer = await self._ask("PUT", f"/config/{_quoted(subject)}", {"compatibility": level})
        if status != HTTPStatus.OK:
            raise Stop(f"{subject}: the registry refuses the compatibility level: {_said(status, answer)}")

    async def compatibility(self, subject: str) -> str | None:
        """The compatibility level set for the subject itself; None if there is none. Raises Unavailable."""
        status, answer = await self._ask("GET", f"/config/{_quoted(subject)}")
        level = answer.get("compatibilityLevel")
        return level if status == HTTPStatus.OK and isinstance(level, str) else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._schemas.close()
        for client in self._clients:
            await client.aclose()

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=self._tls.context, timeout=self._timeout, trust_env=False)

    async def _fetch_schema(self, identifier: int) -> str | None:
        answer = await self._find(f"/schemas/ids/{identifier}")
        if answer is None:
            return None
        texts: dict[tuple[str, int], str] = {}
        await self._follow(answer, texts)
        return inlined(answer["schema"], filter(None, texts.values())) if texts else answer["schema"]

    async def _follow(self, answer: dict[str, Any], texts: dict[tuple[str, int], str]) -> None:
        """Adds the schemas that this one refers to, each followed by those it refers to itself; "" if absent."""
        for reference in _references(answer):
            if reference in texts or len(texts) == REFERENCE_LIMIT:
                continue
            texts[reference] = ""  # so that a circle ends
            subject, version = reference
            # Whoever reads what was written long ago may meet a schema that has been deleted since.
            try:
                found = await self._find(f"/subjects/{_quoted(subject)}/versions/{version}?deleted=true")
            except Unavailable as error:
                raise Unavailable(f"{subject}, version {version}, to which a schema refers: {error}") from error
            if found is not None:
                texts[reference] = found["schema"]
                await self._follow(found, texts)

    async def _find(self, path: str) -> dict[str, Any] | None:
        """The answer with a schema, None if it was not found after each of the waits. Raises Unavailable."""
        waits = iter(self._waits)
        status, answer = await self._ask("GET", path)
        while _error_code(answer) in {SUBJECT_NOT_FOUND, VERSION_NOT_FOUND, SCHEMA_NOT_FOUND}:
            wait = next(waits, None)
            if wait is None:
                return None
            await asyncio.sleep(wait)
            status, answer = await self._ask("GET", path)
        if status != HTTPStatus.OK or not isinstance(answer.get("schema"), str):
            raise Unavailable(f"the registry gives no schema: {_said(status, answer)}")
        return answer

    async def _ask(self, method: str, path: str, document: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Status and body from the first address that gives a valid answer. Raises Unavailable if none does."""
        problems: list[str] = []
        for address in tuple(self._addresses):
            try:
                answer = await self._ask_one(method, address, path, document)
            except Unavailable as error:
                problems.append(f"{urlsplit(address).netloc}: {error}")
                continue
            # Next time this one first; no other request is between these two lines.
            self._addresses.remove(address)
            self._addresses.insert(0, address)
            return answer
        raise Unavailable(f"the schema registry at {'; at '.join(problems)}")

    async def _ask_one(
        self, method: str, address: str, path: str, document: dict[str, Any] | None
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Accept": CONTENT_TYPE, "Accept-Encoding": "identity"}
        if self._credentials is not None:
            headers["Authorization"] = _authorization(self._credentials)
        content = None
        if document is not None:
            headers["Content-Type"] = CONTENT_TYPE
            content = json.dumps(document).encode()
        self._tls.refresh()
        if self._trusted is not self._tls.context:  # a client keeps the authorities it was made with
            self._trusted = self._tls.context
            self._clients.append(self._client())
        try:
            # httpx limits each read only; a registry that answers byte by byte must not hold up a record for ever.
            async with (
                asyncio.timeout(self._timeout),
                self._clients[-1].stream(method, address + path, headers=headers, content=content) as reply,
            ):
                body = bytearray()
                async for chunk in reply.aiter_raw():
                    body += chunk
                    if len(body) > SIZE_LIMIT:
                        raise Unavailable("its answer is too large")
        except (httpx.TimeoutException, TimeoutError):
            raise Unavailable(f"no answer within {self._timeout:g} s") from None
        except httpx.TransportError as error:
            unused = (f"{problem}; the authorities before stay in use" for problem in self._tls.problems)
            raise Unavailable("; ".join((_why(error), *unused))) from error
        self.time = of_http(reply.headers.get("Date", ""))
        return reply.status_code, _answer(reply.status_code, bytes(body))


async def register(
    settings: Vocabulary, registry: HttpRegistry, known: Catalogue
) -> AsyncIterator[tuple[str, Schema, int]]:
    """Register our schemas, each subject with the level LEVEL. Yields each subject with its schema and id when it is
    done. Raises Stop with the registry's message if it refuses one, and Unavailable.
    """
    # Under the topic strategy one subject holds several records, which no level but NONE allows: that is the
    # operator's to decide.
    levelled = settings.registry.subject_strategy is not SubjectStrategy.TOPIC
    for name, schema in known.subjects(settings.registry.subject_strategy, asdict(settings.topics.names())):
        if levelled:
            await registry.set_compatibility(name, LEVEL)
        yield name, schema, await registry.register(name, schema.text)


def open_registry(settings: Registry) -> HttpRegistry:
    """The client of these settings. Raises Stop."""
    return HttpRegistry(settings.url, timeout=settings.timeout, credentials=settings.credentials, ca=settings.ca)


async def encoders(
    settings: Vocabulary, registry: HttpRegistry, written: Mapping[str, Collection[Schema]]
) -> dict[str, Encoder]:
    """Encoders by record name, with the registry's schema ids; `written` maps each topic to schemas of its records.

    Schemas are looked up, never registered. Raises Stop with every schema the registry does not have, Unavailable.
    """
    found: dict[str, Encoder] = {}
    missing: list[str] = []
    for topic, schemas in written.items():
        for schema in schemas:
            name = subject(settings.registry.subject_strategy, topic, schema)
            identifier = await registry.identifier(name, schema.text)
            if identifier is None:
                missing.append(f"{name}: this schema is not registered; {TO_REGISTER}")
            else:
                found[schema.name] = Encoder(schema, identifier)
    if missing:
        raise Stop(*missing)
    return found


class _Schemas:
    """Look-ups of schemas: concurrent ones of one id share one request, and the absence of a schema, or a failure, is
    remembered for a while.
    """

    def __init__(
        self,
        fetch: Callable[[int], Coroutine[Any, Any, str | None]],
        *,
        absent_for: timedelta,
        clock: Callable[[], float],
    ) -> None:
        self._fetch = fetch
        self._absent_for = absent_for.total_seconds()
        self._clock = clock
        self._vain: dict[int, tuple[float, str]] = {}
        """By id, until when it is not asked for, and why the look-up failed; an empty text if there is no schema."""
        self._flights: dict[int, asyncio.Task[str | None]] = {}

    async def get(self, identifier: int) -> str | None:
        until, failure = self._vain.get(identifier, (-inf, ""))
        if self._clock() < until:
            if failure:
                raise Unavailable(failure)
            return None
        flight = self._flights.get(identifier)
        if flight is None:
            flight = self._flights[identifier] = asyncio.create_task(self._fetch(identifier))
            flight.add_done_callback(lambda done: self._landed(identifier, done))
        # One caller that gives up must not take the answer from the others.
        return await asyncio.shield(flight)

    async def close(self) -> None:
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _landed(self, identifier: int, flight: asyncio.Task[str | None]) -> None:
        del self._flights[identifier]
        # Reading the exception also keeps asyncio from logging it as never retrieved, if all callers have gone.
        if flight.cancelled():
            return
        if isinstance(error := flight.exception(), Unavailable):
            self._remember(identifier, FAILED_FOR, str(error))
        elif error is None and flight.result() is None:
            self._remember(identifier, self._absent_for, "")

    def _remember(self, identifier: int, seconds: float, failure: str) -> None:
        # Foreign records may bring any number of unknown ids: entries that have expired are removed.
        now = self._clock()
        self._vain = {other: (until, why) for other, (until, why) in self._vain.items() if until > now}
        self._vain[identifier] = now + seconds, failure


def _authorization(file: Path) -> str:
    try:
        line = secret("ADAPTER_REGISTRY__CREDENTIALS", file).strip()
    except Stop as stop:
        raise Unavailable(str(stop)) from None
    if not line:
        raise Unavailable("the credentials file is empty")
    if not line.isascii() or not line.isprintable():
        raise Unavailable("the credentials file is not one line of ASCII text")
    # A token (RFC 6750 section 2.1) has no colon.
    if ":" in line:
        return "Basic " + base64.b64encode(line.encode()).decode()
    return f"Bearer {line}"


def _why(error: httpx.TransportError) -> str:
    """The reason lies below the exception of httpcore; httpx only says that all attempts to connect failed."""
    match error.__cause__:
        case Exception(__context__=OSError() as reason):
            return words(reason)
        case _:
            return f"{type(error).__name__}: {error}"


def _answer(status: int, body: bytes) -> dict[str, Any]:
    """The answer's JSON object. Raises Unavailable if it is not a registry's answer to the request: 5xx, 408, 429, a
    redirect, refused credentials, a 404 without the registry's code for what was not found.
    """
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in {408, 429} or 300 <= status < 400:
        raise Unavailable(f"HTTP {status}")
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise Unavailable(f"HTTP {status}: it does not accept our credentials")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Unavailable(f"HTTP {status} without a JSON object: is this a registry's base address?")
    if status == HTTPStatus.NOT_FOUND and _error_code(document) in {None, status}:
        raise Unavailable(f"HTTP {status} for this path: is this a registry's base address?")
    return document


def _error_code(answer: dict[str, Any]) -> int | None:
    code = answer.get("error_code")
    return code if isinstance(code, int) else None


def _id(answer: dict[str, Any]) -> int:
    value = answer.get("id")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise Unavailable("the registry's answer has no id that a record can carry")
    return value


def _references(answer: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Subject and version of each schema that the one in the answer refers to."""
    references = answer.get("references")
    for each in references if isinstance(references, list) else ():
        match each:
            case {"subject": str(subject), "version": int(version)}:
                yield subject, version
            case _:
                pass


def _said(status: int, answer: dict[str, Any]) -> str:
    message = answer.get("message")
    return f"HTTP {status}" + (f", {message[:500]}" if isinstance(message, str) else "")


def _quoted(subject: str) -> str:
    return quote(subject, safe="")
