"""The demo's registry answers as the Confluent HTTP API says, down to the codes that clients look at."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from adapter.core.errors import Stop
from adapter.demo.registry import CONTENT_TYPE, serve
from tests.support.wait import PATIENCE

ONE = json.dumps({"type": "record", "name": "T", "fields": [{"name": "a", "type": "string"}]})
MORE = json.dumps(
    {
        "type": "record",
        "name": "T",
        "fields": [{"name": "a", "type": "string"}, {"name": "b", "type": ["null", "string"], "default": None}],
    }
)
NEEDS_MORE = json.dumps(
    {"type": "record", "name": "T", "fields": [{"name": "a", "type": "string"}, {"name": "b", "type": "string"}]}
)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    registry = await serve()
    async with httpx.AsyncClient(base_url=registry.url, trust_env=False, timeout=PATIENCE) as client:
        yield client
    await registry.close()


async def register(http: httpx.AsyncClient, subject: str, schema: str) -> httpx.Response:
    return await http.post(f"/subjects/{subject}/versions", json={"schema": schema})


@pytest.mark.parametrize(
    ("method", "path", "document", "status", "code"),
    [
        ("GET", "/schemas/ids/9", None, 404, 40403),
        ("GET", "/schemas/ids/nine", None, 404, 40403),
        ("GET", "/subjects/none/versions", None, 404, 40401),
        ("GET", "/subjects/none/versions/latest", None, 404, 40401),
        ("GET", "/subjects/t/versions/2", None, 404, 40402),
        ("GET", "/subjects/t/versions/0", None, 422, 42202),
        ("GET", "/subjects/t/versions/last", None, 422, 42202),
        ("POST", "/subjects/none", {"schema": ONE}, 404, 40401),
        ("POST", "/subjects/t", {"schema": MORE}, 404, 40403),
        ("POST", "/subjects/t/versions", {"schema": NEEDS_MORE}, 409, 409),
        ("POST", "/subjects/t/versions", {"schema": "{"}, 422, 42201),
        ("POST", "/subjects/t/versions", {"schema": ONE, "schemaType": "JSON"}, 422, 42201),
        ("POST", "/subjects/t/versions", ["no object"], 400, 400),
        ("GET", "/config/t", None, 404, 40408),
        ("PUT", "/config", {"compatibility": "SOMEWHAT"}, 422, 42203),
        ("GET", "/nowhere", None, 404, 404),
    ],
)
async def test_errors_have_their_code(
    http: httpx.AsyncClient, *, method: str, path: str, document: object, status: int, code: int
) -> None:
    await register(http, "t", ONE)
    answer = await http.request(method, path, json=document)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert answer.json()["message"]
    assert answer.headers["Content-Type"].startswith(CONTENT_TYPE)


async def test_versions_of_a_subject_count_from_one(http: httpx.AsyncClient) -> None:
    first = (await register(http, "t", ONE)).json()["id"]
    second = (await register(http, "t", MORE)).json()["id"]
    assert (await http.get("/subjects")).json() == ["t"]
    assert (await http.get("/subjects/t/versions")).json() == [1, 2]
    described = (await http.get("/subjects/t/versions/1")).json()
    assert (described["subject"], described["version"], described["id"]) == ("t", 1, first)
    assert (await http.get("/subjects/t/versions/latest")).json()["id"] == second
    assert (await http.get("/subjects/t/versions/2/schema")).json() == json.loads(MORE)


async def test_a_look_up_tells_version_and_id(http: httpx.AsyncClient) -> None:
    identifier = (await register(http, "t", ONE)).json()["id"]
    found = (await http.post("/subjects/t", json={"schema": ONE})).json()
    assert (found["subject"], found["version"], found["id"]) == ("t", 1, identifier)


async def test_white_space_in_a_schema_makes_no_new_version(http: httpx.AsyncClient) -> None:
    spaced = json.dumps(json.loads(ONE), indent=4)
    assert (await register(http, "t", ONE)).json() == (await register(http, "t", spaced)).json()


async def test_a_subjects_level_goes_before_the_global_one(http: httpx.AsyncClient) -> None:
    await register(http, "t", ONE)
    assert (await http.get("/config")).json() == {"compatibilityLevel": "BACKWARD"}
    assert (await http.put("/config/t", json={"compatibility": "NONE"})).json() == {"compatibility": "NONE"}
    assert (await http.get("/config/t")).json() == {"compatibilityLevel": "NONE"}
    assert (await http.get("/config/u?defaultToGlobal=true")).json() == {"compatibilityLevel": "BACKWARD"}
    assert (await register(http, "t", NEEDS_MORE)).status_code == 200


@pytest.mark.parametrize(
    ("level", "taken"),
    [("NONE", True), ("BACKWARD", False), ("FORWARD", True), ("FULL", False), ("FULL_TRANSITIVE", False)],
)
async def test_each_level_looks_in_its_direction(http: httpx.AsyncClient, level: str, *, taken: bool) -> None:
    await register(http, "t", ONE)
    await http.put("/config", json={"compatibility": level})
    verdict = await http.post("/compatibility/subjects/t/versions/latest", json={"schema": NEEDS_MORE})
    assert verdict.json() == {"is_compatible": taken}
    assert ((await register(http, "t", NEEDS_MORE)).status_code == 200) == taken


@pytest.mark.parametrize(("level", "taken"), [("BACKWARD", True), ("BACKWARD_TRANSITIVE", False)])
async def test_transitive_levels_look_at_all_versions(http: httpx.AsyncClient, level: str, *, taken: bool) -> None:
    of_string = MORE
    of_nothing = ONE
    of_int = MORE.replace('["null", "string"]', '["null", "int"]')
    for schema in (of_string, of_nothing):
        await register(http, "t", schema)
    await http.put("/config/t", json={"compatibility": level})
    assert ((await register(http, "t", of_int)).status_code == 200) == taken


async def test_a_verdict_says_why_when_asked(http: httpx.AsyncClient) -> None:
    await register(http, "t", ONE)
    verdict = await http.post("/compatibility/subjects/t/versions/1?verbose=true", json={"schema": NEEDS_MORE})
    assert verdict.json()["is_compatible"] is False
    assert any("b" in message for message in verdict.json()["messages"])


async def test_a_second_one_on_the_same_port_is_refused() -> None:
    first = await serve()
    with pytest.raises(Stop, match="address already in use"):
        await serve(port=int(first.url.rpartition(":")[2]))
    await first.close()
