"""Spans, as a collector of OpenTelemetry gets them: from command to call to event, from notification to event."""

import re
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from tests.server.bus import records
from tests.server.conftest import PLAIN, notification
from tests.support.collector import collector
from tests.support.estate import add, unique
from tests.support.processes import Processes
from tests.support.rig import open_rig
from tests.support.wait import eventually

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT: Final = "00f067aa0ba902b7"


async def test_a_trace_goes_from_command_to_call_to_event_and_from_notification_to_event(
    kafka: str, processes: Processes
) -> None:
    spans: list[Any] = []
    async with open_rig(kafka) as rig, collector(spans) as endpoint:
        standard = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        process = processes.adapter("run", env=rig.environment(**PLAIN, TELEMETRY__TRACING="true") | standard)
        await process.ready(lambda p: len(set(re.findall('"event":"(worker|server|projector) starts"', p.output))) == 3)
        command = add(unique())
        rig.estate.send(command, headers={"traceparent": f"00-{TRACE}-{PARENT}-01".encode()})
        event = await rig.estate.final(command)
        port = process.said('"event":"server starts","flow":"server","port":([0-9]+)')
        asked = {"traceparent": f"00-{TRACE}-{PARENT[::-1]}-01"}
        async with (
            aiohttp.ClientSession() as client,
            client.post(
                f"http://127.0.0.1:{port}/notifyAmended?to=us", data=notification(command.key), headers=asked
            ) as answer,
        ):
            assert answer.status == 200
        telemetry = process.said('"telemetry":"([^"]+)"')
        openmetrics = {"Accept": "application/openmetrics-text"}
        async with aiohttp.ClientSession() as client, client.get(f"{telemetry}/metrics", headers=openmetrics) as answer:
            exposed = await answer.text()
        await eventually(lambda: len(spans) >= 4, what="the spans")
        events = records(rig.bootstrap, rig.topics.events)
        heard = rig.twin.heard
        assert await process.stop() == 0

    found = {(span.name.split()[0], span.kind): span for span in spans}
    work, call, received, sent = found["process", 5], found["POST", 3], found["POST", 2], found["send", 4]
    assert work.name == f"process {rig.topics.commands}"
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert work.parent_span_id.hex() == PARENT
    assert call.parent_span_id == work.span_id
    assert received.parent_span_id.hex() == PARENT[::-1]
    assert heard[0].headers["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"
    assert event.headers["traceparent"] == f"00-{TRACE}-{work.span_id.hex()}-01".encode()
    told = [e.headers["traceparent"] for e in events if "FaultReportUpdated" in e.headers["ce_type"]]
    assert told == [f"00-{TRACE}-{sent.span_id.hex()}-01"]
    assert sent.parent_span_id == received.span_id
    # What OpenTelemetry's conventions for messaging and HTTP require, and of what they recommend what we know.
    at = urlsplit(rig.twin.url)
    assert _attributes(call) >= {
        ("http.request.method", "POST"),
        ("http.response.status_code", 200),
        ("server.address", at.hostname),
        ("server.port", at.port),
        ("url.full", f"{rig.twin.url}/addFaultReport"),
        ("url.template", "/addFaultReport"),
    }
    assert _attributes(received) >= {
        ("http.request.method", "POST"),
        ("http.response.status_code", 200),
        ("url.path", "/notifyAmended"),
        ("url.scheme", "http"),
    }
    assert _attributes(sent) >= {
        ("messaging.system", "kafka"),
        ("messaging.operation.type", "send"),
        ("messaging.operation.name", "send"),
        ("messaging.destination.name", rig.topics.events),
        ("fault.result", "published"),
    }
    assert sent.name == f"send {rig.topics.events}"
    assert _attributes(work) >= {
        ("messaging.system", "kafka"),
        ("messaging.operation.type", "process"),
        ("messaging.operation.name", "process"),
        ("messaging.destination.name", rig.topics.commands),
        ("fault.outcome", "accepted"),
    }
    assert f'# {{trace_id="{TRACE}"}}' in exposed, "an exemplar leads from the histogram to the trace"


def _attributes(span: Any) -> set[tuple[str, object]]:
    return {(a.key, a.value.string_value or a.value.int_value) for a in span.attributes}
