"""The registry's client and the demo's registry, each held to what the other takes for granted, and the client to a
registry nobody here wrote."""

import asyncio
import base64
import json
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from aiohttp import web

from adapter import listen
from adapter.core.avro import Schema, UnknownFields, frame
from adapter.core.avro.lookup import Decoders
from adapter.core.errors import Stop, Unavailable, Undecodable
from adapter.demo.registry import serve
from adapter.transport.registry import REFERENCE_LIMIT, HttpRegistry
from tests.support.certificates import Trials
from tests.support.ports import free_port
from tests.support.wait import eventually

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def record(*fields: dict[str, object]) -> str:
    return json.dumps({"type": "record", "name": "Ticket", "namespace": "fault.event", "fields": list(fields)})


REFERENCE: dict[str, object] = {"name": "reference", "type": "string"}
NOTE: dict[str, object] = {"name": "note", "type": ["null", "string"], "default": None}
ONE, WITH_NOTE, OTHER_TYPE = record(REFERENCE), record(REFERENCE, NOTE), record({"name": "reference", "type": "long"})


@pytest.fixture(params=["demo", pytest.param("apicurio", marks=pytest.mark.apicurio)])
async def address(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    if request.param == "demo":
        registry = await serve()
        yield registry.url
        await registry.close()
    else:
        yield request.getfixturevalue("apicurio")


@pytest.fixture
async def client(address: str) -> AsyncIterator[HttpRegistry]:
    async with HttpRegistry(address) as registry:
        yield registry


@pytest.fixture
def subject() -> str:
    return f"fault.events-{uuid4()}.Ticket"


@asynccontextmanager
async def serving(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with AsyncExitStack() as stack:
        yield await listen.serve(stack, app, "127.0.0.1", 0, tls=tls)


async def answers_schema(_request: web.Request) -> web.Response:
    return web.json_response({"schema": ONE})


class TestAnyRegistry:
    """What holds for ours and for Apicurio's."""

    async def test_a_registered_schema_is_found_by_its_id(
        self, address: str, client: HttpRegistry, subject: str
    ) -> None:
        identifier = await client.register(subject, ONE)
        async with HttpRegistry(address) as another:
            found = await another.schema(identifier)
        assert found is not None
        assert json.loads(found) == json.loads(ONE)

    async def test_the_id_is_found_by_subject_and_schema(
        self, address: str, client: HttpRegistry, subject: str
    ) -> None:
        identifier = await client.register(subject, ONE)
        async with HttpRegistry(address) as another:
            assert await another.identifier(subject, ONE) == identifier

    async def test_an_id_that_nobody_gave_is_none(self, client: HttpRegistry) -> None:
        assert await client.schema(987_654) is None

    async def test_a_subject_that_nobody_made_has_no_id(self, client: HttpRegistry, subject: str) -> None:
        assert await client.identifier(subject, ONE) is None

    async def test_a_schema_that_the_subject_has_not_has_no_id(self, client: HttpRegistry, subject: str) -> None:
        await client.register(subject, ONE)
        assert await client.identifier(subject, WITH_NOTE) is None

    async def test_registering_again_gives_the_same_id(self, client: HttpRegistry, subject: str) -> None:
        assert await client.register(subject, ONE) == await client.register(subject, ONE)

    async def test_one_schema_has_one_id_in_all_subjects(self, client: HttpRegistry, subject: str) -> None:
        assert await client.register(subject, ONE) == await client.register(f"{subject}-2", ONE)

    async def test_a_compatible_version_is_taken(self, client: HttpRegistry, subject: str) -> None:
        first = await client.register(subject, ONE)
        await client.set_compatibility(subject, "FULL_TRANSITIVE")
        assert await client.compatible(subject, WITH_NOTE)
        assert await client.register(subject, WITH_NOTE) != first

    async def test_an_incompatible_version_is_refused(self, client: HttpRegistry, subject: str) -> None:
        await client.register(subject, ONE)
        await client.set_compatibility(subject, "FULL_TRANSITIVE")
        assert not await client.compatible(subject, OTHER_TYPE)
        with pytest.raises(Stop, match="refuses the schema: HTTP 409"):
            await client.register(subject, OTHER_TYPE)

    async def test_a_schema_of_a_new_subject_is_compatible(self, client: HttpRegistry, subject: str) -> None:
        assert await client.compatible(subject, ONE)

    async def test_no_schema_at_all_is_refused(self, client: HttpRegistry, subject: str) -> None:
        with pytest.raises(Stop, match="HTTP 4"):
            await client.register(subject, '{"type": "recor')


PART = json.dumps({"type": "record", "name": "Part", "namespace": "x", "fields": [REFERENCE]})
MIDDLE = json.dumps(
    {"type": "record", "name": "Middle", "namespace": "x", "fields": [{"name": "part", "type": "Part"}]}
)
TO_MIDDLE = {"name": "x.Middle", "subject": "middle", "version": 2}
MAIN = record({"name": "middle", "type": "x.Middle"})
WHOLE = Schema.parse(record({"name": "middle", "type": json.loads(MIDDLE.replace('"Part"', PART))}))


class TestReferences:
    """Schemas whose types are schemas of their own."""

    @pytest.mark.apicurio
    async def test_what_is_written_with_one_is_read(self, apicurio: str, subject: str) -> None:
        async def register(name: str, schema: str, *references: str) -> int:
            to = [{"name": each, "subject": f"{each}-{subject}", "version": 1} for each in references]
            path = f"{apicurio}/subjects/{name}-{subject}/versions"
            reply = await http.post(path, json={"schema": schema, "references": to})
            return int(reply.raise_for_status().json()["id"])

        async with httpx.AsyncClient() as http:
            await register("x.Part", PART)
            await register("x.Middle", MIDDLE, "x.Part")
            identifier = await register("main", MAIN, "x.Middle")
        async with HttpRegistry(apicurio) as registry:
            decoders = Decoders(registry, [WHOLE], UnknownFields.REJECT)
            decoded = await decoders.decode(frame(identifier, b"\x06T-1"))
        assert decoded.record == {"middle": {"part": {"reference": "T-1"}}}

    @pytest.mark.parametrize(
        ("answers", "why"),
        [
            pytest.param({}, "nothing declares the type x.Middle", id="to nothing"),
            pytest.param({"middle": {"schema": MIDDLE}}, "nothing declares the type Part", id="to what lacks its own"),
            pytest.param(
                {"middle": {"schema": MIDDLE, "references": [{"name": "x.Part", "subject": "part", "version": 2}]}},
                "nothing declares the type Part",
                id="to what refers to nothing",
            ),
            pytest.param(
                {"middle": {"schema": MIDDLE, "references": [{"name": "x.Middle", "subject": "middle", "version": 2}]}},
                "nothing declares the type Part",
                id="in a circle",
            ),
            pytest.param(
                {"middle": {"schema": MIDDLE, "references": ["x", {"subject": 1, "version": "1"}]}},
                "nothing declares the type Part",
                id="that are none",
            ),
        ],
    )
    async def test_one_that_never_can_be_read_is_no_reason_to_wait(self, answers: dict[str, object], why: str) -> None:
        async with serving(keeping(answers)) as url, HttpRegistry(url, waits=()) as registry:
            decoders = Decoders(registry, [WHOLE], UnknownFields.REJECT)
            with pytest.raises(Undecodable, match=f"bad-schema: .*{why}"):
                await decoders.decode(frame(1, b"\x06T-1"))

    async def test_references_without_end_are_followed_for_a_while(self) -> None:
        asked: list[str] = []

        async def endless(request: web.Request) -> web.Response:
            asked.append(request.path)
            to = [{"name": "x", "subject": str(len(asked)), "version": 1}]
            return web.json_response({"schema": ONE, "references": to})

        async with serving(endless) as url, HttpRegistry(url) as registry:
            assert await registry.schema(1) is not None
        assert len(asked) == 1 + REFERENCE_LIMIT

    async def test_a_registry_that_fails_half_way_is_asked_again(self) -> None:
        healthy, now = False, 0.0
        whole = keeping({"middle": {"schema": MIDDLE.replace('"Part"', PART)}})

        async def moody(request: web.Request) -> web.StreamResponse:
            return await whole(request) if healthy or "ids" in request.path else web.Response(status=500)

        async with serving(moody) as url, HttpRegistry(url, clock=lambda: now) as registry:
            with pytest.raises(Unavailable, match=r"middle, version 2, to which a schema refers: .* HTTP 500"):
                await registry.schema(1)
            healthy, now = True, 1.0
            found = await registry.schema(1)
        assert found is not None
        assert Schema.parse(found).record == WHOLE.record


def keeping(schemas: Mapping[str, object]) -> Handler:
    """A registry that has MAIN as schema 1, and of each of these subjects a version 2."""

    async def answer(request: web.Request) -> web.Response:
        match request.path.split("/"):
            case [_, "schemas", "ids", "1"]:
                return web.json_response({"schema": MAIN, "references": [TO_MIDDLE]})
            case [_, "subjects", name, "versions", "2"] if name in schemas and "deleted=true" in request.query_string:
                return web.json_response(schemas[name])
            case _:
                return web.json_response({"error_code": 40401, "message": "Subject not found"}, status=404)

    return answer


class TestLookingUp:
    async def test_an_absent_id_is_asked_for_again_after_a_while(self) -> None:
        now = 0.0
        asked: list[str] = []

        async def absent(request: web.Request) -> web.Response:
            asked.append(request.path)
            return web.json_response({"error_code": 40403, "message": "Schema 7 not found"}, status=404)

        async with (
            serving(absent) as url,
            HttpRegistry(url, waits=(), absent_for=timedelta(seconds=5), clock=lambda: now) as registry,
        ):
            assert await registry.schema(7) is None
            now = 4.9
            assert await registry.schema(7) is None
            assert len(asked) == 1
            now = 5.1
            assert await registry.schema(7) is None
        assert len(asked) == 2

    async def test_an_id_that_a_registry_has_not_heard_of_yet_is_no_absent_one(self) -> None:
        asked: list[str] = []

        async def lagging(request: web.Request) -> web.Response:
            asked.append(request.path)
            if len(asked) < 3:
                return web.json_response({"error_code": 40403, "message": "Schema 1 not found"}, status=404)
            return await answers_schema(request)

        async with serving(lagging) as url, HttpRegistry(url, waits=(0.01, 0.01)) as registry:
            assert await registry.schema(1) == ONE
        assert len(asked) == 3

    async def test_requests_one_after_the_other_share_a_connection(self) -> None:
        connections: set[object] = set()

        async def noting(request: web.Request) -> web.Response:
            connections.add(request.transport)
            return await answers_schema(request)

        async with serving(noting) as url, HttpRegistry(url) as registry:
            for identifier in range(3):
                assert await registry.schema(identifier) == ONE
        assert len(connections) == 1

    async def test_many_at_once_make_one_request_and_one_that_gives_up_leaves_its_answer_to_the_others(self) -> None:
        asked: list[str] = []
        let_go = asyncio.Event()

        async def slow(request: web.Request) -> web.Response:
            asked.append(request.path)
            await let_go.wait()
            return await answers_schema(request)

        async with serving(slow) as url, HttpRegistry(url) as registry:
            first, *others = (asyncio.create_task(registry.schema(1)) for _ in range(20))
            await eventually(lambda: asked)
            first.cancel()
            let_go.set()
            assert await asyncio.gather(*others) == [ONE] * 19
        assert first.cancelled()
        assert asked == ["/schemas/ids/1"]

    async def test_a_registry_that_fails_is_asked_once_a_second_however_many_commands_wait(self) -> None:
        now = 0.0
        asked: list[str] = []

        async def moody(request: web.Request) -> web.Response:
            asked.append(request.path)
            return web.Response(status=500) if now < 1 else await answers_schema(request)

        async with serving(moody) as url, HttpRegistry(url, clock=lambda: now) as registry:
            for _ in range(3):
                with pytest.raises(Unavailable, match="HTTP 500"):
                    await registry.schema(1)
            assert len(asked) == 1
            now = 1.0
            assert await registry.schema(1) == ONE


class TestBadRegistries:
    @pytest.mark.parametrize(
        ("status", "body"),
        [
            pytest.param(500, b'{"error_code": 50001, "message": "store"}', id="its store fails"),
            pytest.param(503, b"<html>", id="a proxy's page"),
            pytest.param(429, b"{}", id="too many requests"),
            pytest.param(302, b"{}", id="a redirect"),
            pytest.param(401, b'{"error_code": 401, "message": "Unauthorized"}', id="no access"),
            pytest.param(404, b"<html>", id="another server's 404"),
            pytest.param(404, b'{"error_code": 404, "message": "HTTP 404 Not Found"}', id="another base path"),
            pytest.param(404, b"{}", id="a 404 that says nothing"),
            pytest.param(200, b"", id="an empty 200"),
            pytest.param(200, b"[" * 100_000, id="deep JSON"),
            pytest.param(200, b'{"schema": 1}', id="a schema that is no text"),
            pytest.param(200, b'{"id": 2147483648}', id="an id that no record can carry"),
            pytest.param(200, b'{"id": -1}', id="an id below zero"),
            pytest.param(200, b'{"id": 1, "schema": "", "pad": "' + b" " * 3_000_000 + b'"}', id="too large"),
        ],
    )
    async def test_an_answer_that_is_none_means_wait(self, status: int, body: bytes) -> None:
        async def answer(_request: web.Request) -> web.Response:
            return web.Response(status=status, body=body, headers={"Location": "/elsewhere"})

        async with serving(answer) as url, HttpRegistry(url) as registry:
            with pytest.raises(Unavailable):
                await registry.schema(1)
            with pytest.raises(Unavailable):
                await registry.identifier("tickets", ONE)
            with pytest.raises(Unavailable):
                await registry.register("tickets", ONE)

    async def test_nobody_listens(self) -> None:
        async with HttpRegistry(f"http://127.0.0.1:{free_port()}") as registry:
            with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
                await registry.schema(1)

    async def test_silence(self) -> None:
        over = asyncio.Event()

        async def silent(request: web.Request) -> web.Response:
            await over.wait()
            return await answers_schema(request)

        async with serving(silent) as url, HttpRegistry(url, timeout=timedelta(milliseconds=200)) as registry:
            with pytest.raises(Unavailable, match=r"no answer within 0\.2 s"):
                await registry.schema(1)
            over.set()

    async def test_an_answer_that_drips(self) -> None:
        async def dripping(request: web.Request) -> web.StreamResponse:
            reply = web.StreamResponse()
            await reply.prepare(request)
            while True:
                await reply.write(b" ")
                await asyncio.sleep(0.02)

        async with serving(dripping) as url, HttpRegistry(url, timeout=timedelta(milliseconds=200)) as registry:
            with pytest.raises(Unavailable, match=r"no answer within 0\.2 s"):
                await registry.schema(1)

    async def test_the_next_address_is_tried(self) -> None:
        async def broken(_request: web.Request) -> web.Response:
            return web.Response(status=503)

        asked: list[str] = []

        async def healthy(request: web.Request) -> web.Response:
            asked.append(request.path)
            return await answers_schema(request)

        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(serving(broken))
            second = await stack.enter_async_context(serving(healthy))
            nobody = f"http://127.0.0.1:{free_port()}"
            registry = await stack.enter_async_context(HttpRegistry(f"{nobody},{first},{second}"))
            assert await registry.schema(1) == ONE
        assert asked == ["/schemas/ids/1"]

    async def test_all_addresses_are_named_when_none_answers(self) -> None:
        ports = free_port(), free_port()
        async with HttpRegistry(",".join(f"http://127.0.0.1:{port}" for port in ports)) as registry:
            with pytest.raises(Unavailable) as caught:
                await registry.schema(1)
        assert str(caught.value).startswith(f"the schema registry at 127.0.0.1:{ports[0]}: Connection refused")
        assert all(str(port) in str(caught.value) for port in ports)


class TestAccess:
    async def test_credentials_are_read_when_they_are_needed(self, tmp_path: Path) -> None:
        seen: list[str | None] = []

        async def look(request: web.Request) -> web.Response:
            seen.append(request.headers.get("Authorization"))
            return await answers_schema(request)

        file = tmp_path / "credentials"
        async with serving(look) as url, HttpRegistry(url, credentials=file) as registry:
            with pytest.raises(Unavailable, match=r"REGISTRY__CREDENTIALS: .*No such file"):
                await registry.schema(1)
            file.write_text("user:pass:word\n", encoding="utf-8-sig")
            await registry.schema(2)
            file.write_text("a-token\n")
            await registry.schema(3)
        assert seen == ["Basic " + base64.b64encode(b"user:pass:word").decode(), "Bearer a-token"]

    async def test_credentials_that_fit_no_header_are_not_sent(self, tmp_path: Path) -> None:
        file = tmp_path / "credentials"
        file.write_text("tokén\nX-Evil: 1")
        async with serving(answers_schema) as url, HttpRegistry(url, credentials=file) as registry:
            with pytest.raises(Unavailable, match="one line") as caught:
                await registry.schema(1)
        assert "Evil" not in str(caught.value)
        file.write_text("\n")
        async with serving(answers_schema) as url, HttpRegistry(url, credentials=file) as registry:
            with pytest.raises(Unavailable, match="credentials file is empty"):
                await registry.schema(1)

    def test_an_address_that_is_not_usable_stops_the_start(self) -> None:
        with pytest.raises(Stop, match="ADAPTER_REGISTRY__URL: can't be used as a web address"):
            HttpRegistry("http://registry:8081,http://\u2603.example:8081")

    async def test_a_proxy_of_the_environment_is_not_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
        async with serving(answers_schema) as url, HttpRegistry(url) as registry:
            assert await registry.schema(1) == ONE

    async def test_tls_with_our_own_authority(self, trials: Trials) -> None:
        async with serving(
            answers_schema, tls=server_tls(trials.good.server_certificate, trials.good.server_key)
        ) as url:
            async with HttpRegistry(url, ca=trials.good.ca) as registry:
                assert await registry.schema(1) == ONE
            async with HttpRegistry(url, ca=trials.unknown_ca) as registry:
                with pytest.raises(Unavailable):
                    await registry.schema(1)

    async def test_authorities_that_are_replaced_count_from_the_next_request_on(
        self, trials: Trials, tmp_path: Path
    ) -> None:
        ca = tmp_path / "ca.crt"
        async with distrusted(trials, ca) as registry:
            with pytest.raises(Unavailable):
                await registry.schema(1)
            ca.write_bytes(trials.unknown_ca.read_bytes())
            assert await registry.schema(2) == ONE
            ca.write_text("no certificate")  # the ones before stay in use
            assert await registry.schema(3) == ONE

    async def test_authorities_that_can_not_be_used_are_told_where_those_before_do_not_help(
        self, trials: Trials, tmp_path: Path
    ) -> None:
        ca = tmp_path / "ca.crt"
        async with distrusted(trials, ca) as registry:
            ca.write_text("no certificate")
            for identifier in (1, 2):
                with pytest.raises(Unavailable, match=f"certificate is refused: .*; {ca}: .*stay in use"):
                    await registry.schema(identifier)

    @pytest.mark.parametrize("kind", ["expired_server", "wrong_host_server", "unknown_server"])
    async def test_a_bad_server_certificate_is_refused(self, trials: Trials, kind: str) -> None:
        pair = getattr(trials, kind)
        async with (
            serving(answers_schema, tls=server_tls(pair.certificate, pair.key)) as url,
            HttpRegistry(url, ca=trials.good.ca) as registry,
        ):
            with pytest.raises(Unavailable):
                await registry.schema(1)


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@asynccontextmanager
async def distrusted(trials: Trials, ca: Path) -> AsyncIterator[HttpRegistry]:
    """A registry whose certificate is of none of the authorities in `ca`, a file that is made here."""
    pair = trials.unknown_server
    shutil.copyfile(trials.good.ca, ca)
    async with (
        serving(answers_schema, tls=server_tls(pair.certificate, pair.key)) as url,
        HttpRegistry(url, ca=ca) as registry,
    ):
        yield registry
