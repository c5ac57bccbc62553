"""The telemetry endpoint, over real sockets."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from socket import has_dualstack_ipv6
from urllib.parse import urlsplit

import aiohttp
import pytest

from adapter.core.errors import Stop
from adapter.telemetry import Metrics, start_logging
from adapter.telemetry.metrics import DEAD_LETTERS, LANES
from adapter.transport import web


class Flow:
    """What the endpoint tells of."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.lines = io.StringIO()
        self.log = start_logging(stream=self.lines)
        self.reasons: list[str] = []
        self.broken = False

    def status(self) -> dict[str, object]:
        if self.broken:
            raise RuntimeError("state unreadable")
        return {"partitions": {"3": {"lag": 7}}}

    def served(self, port: int = 0, *, host: str = "127.0.0.1") -> AbstractAsyncContextManager[str]:
        return web.served(
            host,
            port,
            metrics=self.metrics,
            log=self.log,
            unready=lambda: self.reasons,
            status=self.status,
        )


@pytest.fixture
def flow() -> Flow:
    return Flow()


@pytest.fixture
async def url(flow: Flow) -> AsyncIterator[str]:
    async with flow.served() as url:
        yield url


async def get(url: str, path: str, **headers: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as client, client.get(url + path, headers=headers) as reply:
        return reply.status, reply.headers["Content-Type"], await reply.text()


async def test_metrics_in_the_format_that_is_asked_for(flow: Flow, url: str) -> None:
    flow.metrics.count(DEAD_LETTERS, "empty")
    status, kind, body = await get(url, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert (status, kind.partition(";")[0], body.endswith("# EOF\n")) == (200, "application/openmetrics-text", True)
    status, kind, body = await get(url, "/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert 'fault_adapter_dead_letters_total{reason="empty"} 1.0' in body


async def test_readiness_tells_its_reasons(flow: Flow, url: str) -> None:
    status, _, body = await get(url, "/health/ready")
    assert (status, json.loads(body)) == (200, {"ready": True, "reasons": []})
    flow.reasons = ["no partitions assigned"]
    status, _, body = await get(url, "/health/ready")
    assert (status, json.loads(body)) == (503, {"ready": False, "reasons": ["no partitions assigned"]})
    assert (await get(url, "/health/live"))[0] == 200


async def test_the_status_page_is_what_the_flow_says(url: str) -> None:
    status, kind, body = await get(url, "/status")
    assert (status, kind.partition(";")[0], json.loads(body)) == (
        200,
        "application/json",
        {"partitions": {"3": {"lag": 7}}},
    )


async def test_a_fault_in_answering_is_an_answer_and_a_line(flow: Flow, url: str) -> None:
    flow.broken = True
    flow.metrics.watch(LANES, lambda: 1 / 0)
    assert (await get(url, "/status"))[0] == 500
    assert (await get(url, "/metrics"))[0] == 500
    lines = [json.loads(line) for line in flow.lines.getvalue().splitlines()]
    assert [(line["event"], line["path"]) for line in lines] == [
        ("telemetry answer failed", "/status"),
        ("telemetry answer failed", "/metrics"),
    ]
    assert (await get(url, "/health/live"))[0] == 200


async def test_unknown_pages_and_other_methods_are_refused(url: str) -> None:
    status, _, text = await get(url, "/")
    assert (status, text) == (404, "Nothing is here; there are /metrics, /health/live, /health/ready, /status.\n")
    async with aiohttp.ClientSession() as client, client.post(url + "/status") as reply:
        assert reply.status == 405
        assert reply.headers["Server"] == "fault-adapter"


async def test_an_address_that_this_machine_lacks_stops_the_start_by_its_setting(flow: Flow) -> None:
    with pytest.raises(Stop, match=r"ADAPTER_TELEMETRY__HOST, ADAPTER_TELEMETRY__PORT: can't listen on 192\.0\.2\.1:"):
        await flow.served(host="192.0.2.1").__aenter__()


async def test_a_port_that_is_taken_stops_the_start_with_what_to_do(flow: Flow, url: str) -> None:
    with pytest.raises(Stop, match=r"ADAPTER_TELEMETRY__PORT: can't listen on 127\.0\.0\.1:"):
        await flow.served(urlsplit(url).port or 0).__aenter__()


@pytest.mark.skipif(not has_dualstack_ipv6(), reason="needs IPv6")
async def test_who_listens_for_ipv6_is_found_by_both_kinds_of_callers(flow: Flow) -> None:
    async with flow.served(host="::") as url, aiohttp.ClientSession() as client:
        for address in ("127.0.0.1", "[::1]"):
            async with client.get(f"http://{address}:{urlsplit(url).port}/health/live") as answer:
                assert answer.status == 200
