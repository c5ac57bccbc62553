"""An in-memory schema registry with the Confluent HTTP API: as much of it as clients of Avro records use to register,
look up and check (subjects, versions, ids, config, compatibility). Nothing can be deleted, references between schemas
and types other than Avro records are refused. It serves the demo and the tests; the port is one's own only.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from adapter import listen
from adapter.core.avro import Schema, compatibility

CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"

LEVELS: Final = (
    "NONE",
    "BACKWARD",
    "BACKWARD_TRANSITIVE",
    "FORWARD",
    "FORWARD_TRANSITIVE",
    "FULL",
    "FULL_TRANSITIVE",
)


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry."""

    url: str
    _stack: AsyncExitStack

    async def close(self) -> None:
        await self._stack.aclose()


async def serve(host: str = "127.0.0.1", port: int = 0, *, holding: Iterable[tuple[str, Schema]] = ()) -> Registry:
    """Starts a registry that holds these schemas by subject; port 0 takes a free one. Raises Stop if it is taken."""
    subjects = _Subjects()
    for subject, schema in holding:
        subjects.register(subject, schema)
    async with AsyncExitStack() as stack:
        url = await listen.serve(stack, _application(subjects), host, port)
        return Registry(url, stack.pop_all())


def _application(subjects: "_Subjects") -> web.Application:
    endpoints = _Endpoints(subjects)
    app = web.Application(middlewares=[_errors_as_json], client_max_size=4 * 1024 * 1024)
    subject, version = "/subjects/{subject}", "/subjects/{subject}/versions/{version}"
    app.add_routes(
        [
            web.get("/", endpoints.root),
            web.get("/schemas/types", endpoints.types),
            web.get("/schemas/ids/{id}", endpoints.schema),
            web.get("/schemas/ids/{id}/versions", endpoints.uses),
            web.get("/subjects", endpoints.subjects),
            web.post(subject, endpoints.look_up),
            web.get(f"{subject}/versions", endpoints.versions),
            web.post(f"{subject}/versions", endpoints.register),
            web.get(version, endpoints.version),
            web.get(f"{version}/schema", endpoints.version_schema),
            web.get("/config", endpoints.config),
            web.put("/config", endpoints.configure),
            web.get("/config/{subject}", endpoints.config),
            web.put("/config/{subject}", endpoints.configure),
            web.post(f"/compatibility{subject}/versions", endpoints.compatible),
            web.post(f"/compatibility{version}", endpoints.compatible),
        ]
    )
    return app


class _Refused(Exception):  # noqa: N818 -- named for what it says
    """The answer is an error: its HTTP status is the code's first three digits."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = int(str(code)[:3])


@dataclass(frozen=True, slots=True)
class _Version:
    """One registered version of a subject."""

    subject: str
    number: int
    identifier: int
    schema: Schema

    def describe(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "version": self.number,
            "id": self.identifier,
            "schema": self.schema.text,
        }


@dataclass(slots=True)
class _Subjects:
    """The registered schemas, with the rules for ids, versions and compatibility, without HTTP."""

    level: str = "BACKWARD"  # the Confluent registry's default
    levels: dict[str, str] = field(default_factory=dict)
    versions: dict[str, list[_Version]] = field(default_factory=dict)
    _identifiers: dict[str, int] = field(default_factory=dict)

    def register(self, subject: str, schema: Schema) -> _Version:
        """The version that holds this schema, a new one if need be. Equal schemas have one id everywhere."""
        if known := self.find(subject, schema):
            return known
        if problems := self.problems(subject, schema, against=None):
            raise _Refused(409, f"Schema being registered is incompatible with an earlier schema: {problems[0]}")
        identifier = self._identifiers.setdefault(_canonical(schema), len(self._identifiers) + 1)
        versions = self.versions.setdefault(subject, [])
        versions.append(_Version(subject, len(versions) + 1, identifier, schema))
        return versions[-1]

    def find(self, subject: str, schema: Schema) -> _Version | None:
        wanted = _canonical(schema)
        return next((v for v in self.versions.get(subject, ()) if _canonical(v.schema) == wanted), None)

    def of(self, subject: str) -> list[_Version]:
        if subject not in self.versions:
            raise _Refused(40401, f"Subject '{subject}' not found.")
        return self.versions[subject]

    def one(self, subject: str, number: str) -> _Version:
        versions = self.of(subject)
        if number in {"latest", "-1"}:
            return versions[-1]
        if not number.isdecimal() or int(number) == 0:
            raise _Refused(
                42202, "The specified version is not a valid version id: a whole number from 1 up, or 'latest'."
            )
        if int(number) > len(versions):
            raise _Refused(40402, f"Version {number} not found.")
        return versions[int(number) - 1]

    def uses(self, identifier: str) -> list[_Version]:
        found = [v for vs in self.versions.values() for v in vs if str(v.identifier) == identifier]
        if not found:
            raise _Refused(40403, f"Schema {identifier} not found")
        return found

    def problems(self, subject: str, schema: Schema, *, against: _Version | None) -> list[str]:
        """Why the schema may not follow `against`, or without it the versions which the subject's level names."""
        level = self.levels.get(subject, self.level)
        earlier: Sequence[_Version] = [against] if against else self.versions.get(subject, [])
        if not level.endswith("_TRANSITIVE"):
            earlier = earlier[-1:]
        kind = level.removesuffix("_TRANSITIVE")
        problems: list[str] = []
        for version in earlier:
            if kind in {"BACKWARD", "FULL"}:
                problems += compatibility(schema, version.schema)
            if kind in {"FORWARD", "FULL"}:
                problems += compatibility(version.schema, schema)
        return problems


class _Endpoints:
    """The HTTP endpoints of the registry."""

    def __init__(self, subjects: _Subjects) -> None:
        self._subjects = subjects

    async def root(self, _request: web.Request) -> web.Response:
        return _answer({})

    async def types(self, _request: web.Request) -> web.Response:
        return _answer(["AVRO"])

    async def schema(self, request: web.Request) -> web.Response:
        return _answer({"schema": self._subjects.uses(request.match_info["id"])[0].schema.text})

    async def uses(self, request: web.Request) -> web.Response:
        found = self._subjects.uses(request.match_info["id"])
        return _answer([{"subject": v.subject, "version": v.number} for v in found])

    async def subjects(self, _request: web.Request) -> web.Response:
        return _answer(sorted(self._subjects.versions))

    async def versions(self, request: web.Request) -> web.Response:
        return _answer([v.number for v in self._subjects.of(request.match_info["subject"])])

    async def version(self, request: web.Request) -> web.Response:
        return _answer(self._named(request).describe())

    async def version_schema(self, request: web.Request) -> web.Response:
        return web.Response(text=self._named(request).schema.text, content_type=CONTENT_TYPE)

    async def register(self, request: web.Request) -> web.Response:
        schema = await _schema_of(request)
        return _answer({"id": self._subjects.register(request.match_info["subject"], schema).identifier})

    async def look_up(self, request: web.Request) -> web.Response:
        subject = request.match_info["subject"]
        schema = await _schema_of(request)
        self._subjects.of(subject)
        if found := self._subjects.find(subject, schema):
            return _answer(found.describe())
        raise _Refused(40403, "Schema not found")

    async def compatible(self, request: web.Request) -> web.Response:
        schema = await _schema_of(request)
        against = self._named(request) if "version" in request.match_info else None
        problems = self._subjects.problems(request.match_info["subject"], schema, against=against)
        detail = {"messages": problems} if request.query.get("verbose") == "true" else {}
        return _answer({"is_compatible": not problems} | detail)

    async def config(self, request: web.Request) -> web.Response:
        subject = request.match_info.get("subject")
        if subject is None:
            return _answer({"compatibilityLevel": self._subjects.level})
        own = self._subjects.levels.get(subject)
        if own is None and request.query.get("defaultToGlobal") == "true":
            own = self._subjects.level
        if own is None:
            raise _Refused(40408, f"Subject '{subject}' does not have subject-level compatibility configured")
        return _answer({"compatibilityLevel": own})

    async def configure(self, request: web.Request) -> web.Response:
        level = (await _document(request)).get("compatibility")
        if level not in LEVELS:
            raise _Refused(42203, f"Invalid compatibility level. Valid values are {', '.join(LEVELS)}")
        subject = request.match_info.get("subject")
        if subject is None:
            self._subjects.level = level
        else:
            self._subjects.levels[subject] = level
        return _answer({"compatibility": level})

    def _named(self, request: web.Request) -> _Version:
        return self._subjects.one(request.match_info["subject"], request.match_info["version"])


async def _document(request: web.Request) -> dict[str, Any]:
    try:
        document = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise _Refused(400, "The body is not a JSON document") from None
    if not isinstance(document, dict):
        raise _Refused(400, "The body is not a JSON object")
    return document


async def _schema_of(request: web.Request) -> Schema:
    document = await _document(request)
    text = document.get("schema")
    if document.get("schemaType", "AVRO") != "AVRO" or document.get("references") or not isinstance(text, str):
        raise _Refused(42201, "Only Avro records without references are taken here")
    try:
        return Schema.parse(text)
    except ValueError as error:
        raise _Refused(42201, f"Invalid schema: {error}") from error


def _canonical(schema: Schema) -> str:
    # White space and the order of attributes make no difference; documentation and defaults do, as in Confluent's.
    return json.dumps(json.loads(schema.text), sort_keys=True)


def _answer(document: object, *, status: int = 200) -> web.Response:
    return web.json_response(document, status=status, content_type=CONTENT_TYPE)


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except _Refused as refused:
        return _answer({"error_code": refused.code, "message": str(refused)}, status=refused.status)
    except web.HTTPException as error:
        return _answer(
            {"error_code": error.status, "message": f"HTTP {error.status} {error.reason}"}, status=error.status
        )
