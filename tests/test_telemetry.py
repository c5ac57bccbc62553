"""Logs, metrics and trace context."""

import asyncio
import errno
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from adapter.telemetry import (
    METRICS,
    Kind,
    Metrics,
    Trace,
    continued,
    markdown,
    parse_traceparent,
    start_logging,
    switch_debug,
)
from adapter.telemetry.metrics import (
    BREAKER_STATE,
    CALLS,
    DEAD_LETTERS,
    FRONTIER_LAG,
    KEYS_MISPLACED,
    OUTCOMES,
    PARTITIONS,
    TRANSACTION_SECONDS,
)
from tests.strategies import any_text
from tests.support.wait import PATIENCE

ROOT = Path(__file__).parents[1]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(autouse=True)
def unbridged() -> Iterator[None]:
    """The standard library's root logger as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_the_same_keys_first() -> None:
    stream = io.StringIO()
    log = start_logging(stream=stream).bind(role="worker").bind(partition=3)
    log.info("command ended", outcome="accepted", who="Zoë")
    (line,) = lines(stream)
    assert list(line) == ["time", "level", "event", "role", "partition", "outcome", "who"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line.pop("time")))
    assert line == {
        "level": "info",
        "event": "command ended",
        "role": "worker",
        "partition": 3,
        "outcome": "accepted",
        "who": "Zoë",
    }


def test_a_value_that_is_long_is_cut() -> None:
    stream = io.StringIO()
    start_logging(stream=stream).info("outcome", reference="x" * 1001, command_id="y" * 1000)
    (line,) = lines(stream)
    assert (line["reference"], line["command_id"]) == ("x" * 1000 + "…", "y" * 1000)


@given(
    fields=st.dictionaries(
        st.sampled_from(["flow", "reference", "attempts", "seconds", "für"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
            max_leaves=5,
        ),
    )
)
def test_a_line_is_the_json_of_its_fields_whatever_they_hold(fields: dict[str, object]) -> None:
    stream = io.StringIO()
    start_logging(stream=stream).info("outcome", **fields)
    assert stream.getvalue().count("\n") == 1
    line = json.loads(stream.getvalue())
    assert {key: line[key] for key in fields} == fields


def test_a_value_that_json_does_not_have_is_shown_as_python_does() -> None:
    stream = io.StringIO()
    start_logging(stream=stream).info("outcome", reference=b"K-1", path=[Path("/x")])
    (line,) = lines(stream)
    assert (line["reference"], line["path"]) == ("b'K-1'", [f"{Path('/x')!r}"])


def test_lines_below_the_level_are_not_written() -> None:
    stream = io.StringIO()
    log = start_logging(level="warning", stream=stream)
    log.info("quiet")
    log.warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_an_exception_is_one_line_with_its_traceback() -> None:
    stream = io.StringIO()
    log = start_logging(stream=stream)
    secret = "local values are no part of it"
    try:
        int(secret[:0])
    except ValueError:
        log.exception("failed")
    (line,) = lines(stream)
    assert line["level"] == "error"
    assert "ValueError: invalid literal" in str(line["exception"])
    assert list(line)[-1] == "exception"
    assert secret not in str(line["exception"])


def test_warnings_of_libraries_come_out_the_same_way_and_their_chatter_does_not() -> None:
    stream = io.StringIO()
    start_logging(stream=stream)
    library = logging.getLogger("some.library")
    library.info("chatter")
    library.warning("%s is odd", "this")
    assert [(line["event"], line["logger"], line["text"]) for line in lines(stream)] == [
        ("library", "some.library", "this is odd")
    ]


def test_what_a_library_says_again_and_again_is_counted_until_half_a_minute_has_passed() -> None:
    stream, now = io.StringIO(), [0.0]
    start_logging(stream=stream, clock=lambda: now[0])
    library = logging.getLogger("some.library")
    for milliseconds in range(5):
        library.error("no way in (after %sms in state AUTH)", milliseconds)
        library.error("another")
    now[0] = 30.0
    library.error("no way in (after 7ms in state AUTH)")
    library.error("a third")
    assert [(line["text"], line.get("repeated")) for line in lines(stream)] == [
        ("no way in (after 0ms in state AUTH)", None),
        ("another", None),
        ("no way in (after 7ms in state AUTH)", 4),
        ("a third", None),
    ]


def test_an_exception_that_a_library_tells_is_always_written() -> None:
    stream = io.StringIO()
    start_logging(stream=stream, clock=lambda: 0.0)
    for what in ("one", "another"):
        logging.getLogger("some.library").error("a callback failed", exc_info=ValueError(what))
    assert [str(line["exception"]).rpartition(" ")[2] for line in lines(stream)] == ["one", "another"]


def test_what_libraries_say_is_remembered_within_bounds_and_all_written_while_debugging() -> None:
    stream = io.StringIO()
    start_logging(stream=stream, clock=lambda: 0.0)
    library = logging.getLogger("some.library")
    for number in range(3000):
        library.error("%s", number)
    assert len(lines(stream)) == 3000
    switch_debug()
    for _ in range(5):
        library.error("0")
    assert len(lines(stream)) == 3005


def test_logging_started_again_replaces_the_former() -> None:
    first, second = io.StringIO(), io.StringIO()
    start_logging(stream=first)
    start_logging(stream=second)
    logging.getLogger("x").warning("once")
    assert (len(lines(first)), len(lines(second))) == (0, 1)


class Disk(io.StringIO):
    """Of a stream on it: while it is full nothing can be written."""

    full = False

    def write(self, text: str, /) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(text)


def test_a_log_that_takes_nothing_more_stops_nobody_and_goes_on_when_it_does() -> None:
    stream = Disk()
    log = start_logging(form="json", stream=stream)

    async def turns() -> None:
        stream.full = True
        log.info("lost at the end of the turn")
        await asyncio.sleep(0)
        log.info("lost too")
        log.warning("lost at once")
        stream.full = False
        log.info("written")
        await asyncio.sleep(0)

    asyncio.run(turns())
    assert [line["event"] for line in lines(stream)] == ["written"]


def test_a_log_that_is_closed_stops_nobody() -> None:
    stream = io.StringIO()
    log = start_logging(form="json", stream=stream)
    stream.close()
    log.warning("told to nobody")


def test_a_library_does_not_fail_because_its_line_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    start_logging(form="console", stream=stream)
    stream.close()
    logging.getLogger("some.library").warning("told to nobody")
    assert "told to nobody" in capsys.readouterr().err


def test_debug_lines_are_switched_on_and_off_while_it_runs() -> None:
    stream = io.StringIO()
    log = start_logging(level="warning", stream=stream)
    for _ in range(3):
        log.debug("one of ours")
        logging.getLogger("x").debug("one of a library's")
        switch_debug()
    assert [line["event"] for line in lines(stream)] == ["one of ours", "library"]


class Written(io.StringIO):
    """A stream that knows its writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[list[object]] = []

    def write(self, text: str) -> int:
        self.writes.append([json.loads(line)["event"] for line in text.splitlines()])
        return len(text)


async def test_info_lines_of_one_turn_of_the_loop_are_written_together_at_its_end() -> None:
    stream = Written()
    log = start_logging(stream=stream)
    log.info("one")
    log.info("two")
    assert stream.writes == []
    await asyncio.sleep(0)
    log.info("three")
    await asyncio.sleep(0)
    assert stream.writes == [["one", "two"], ["three"]]


async def test_a_warning_is_written_at_once_behind_the_lines_before_it() -> None:
    stream = Written()
    log = start_logging(stream=stream)
    log.info("one")
    log.warning("two")
    assert stream.writes == [["one", "two"]]
    log.info("three")
    log.error("four")
    await asyncio.sleep(0)
    assert stream.writes == [["one", "two"], ["three", "four"]]


async def test_a_line_of_another_thread_is_written_at_once_behind_the_lines_before_it() -> None:
    stream = Written()
    log = start_logging(stream=stream)
    log.info("one")
    await asyncio.to_thread(log.info, "two")
    assert [event for write in stream.writes for event in write] == ["one", "two"]


async def test_many_lines_of_one_turn_are_written_in_pieces_that_a_pipe_takes_whole() -> None:
    stream = Written()
    log = start_logging(stream=stream)
    for number in range(100):
        log.info("outcome", reference="K" * 200, number=number)
    await asyncio.sleep(0)
    assert sum(map(len, stream.writes)) == 100
    assert max(map(len, stream.writes)) in range(10, 4096 // 250)


@pytest.mark.parametrize(
    "end",
    [
        "return",
        "raise ValueError",
        "loop.call_soon(sys.exit, 3); await asyncio.sleep(9)",
        "loop.call_soon(os.kill, os.getpid(), signal.SIGINT); await asyncio.sleep(9)",
        "logging.shutdown(); os._exit(0)",
    ],
)
@pytest.mark.parametrize("loops", ["asyncio", "uvloop"])
def test_no_line_is_lost_however_the_process_ends(loops: str, end: str) -> None:
    program = f"""
import asyncio, logging, os, signal, sys, uvloop
from adapter.telemetry import start_logging

async def main():
    loop = asyncio.get_running_loop()
    log = start_logging(form="json")
    log.info("one")
    await asyncio.sleep(0.01)
    log.info("two", reference="\\ud800")
    {end}

{loops}.run(main())
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, timeout=PATIENCE, text=True
    )
    assert re.findall(r'"event":"(.+?)"', found.stderr) == ["one", "two"], found.stderr
    assert '"reference":"\\ud800"' in found.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


HOSTILE = "\x1b[2J\x1b]0;owned\x07\x7f \x9b31m\u202ered\r\nK-2 ✓"
"""Escape sequences of seven and eight bits, a reversed direction, another line."""
HARMLESS = r"\u001b[2J\u001b]0;owned\u0007\u007f \u009b31m\u202ered\r\nK-2 ✓"


def test_no_text_from_elsewhere_can_take_a_terminal_over_or_make_a_line_of_its_own() -> None:
    stream = io.StringIO()
    log = start_logging(form="json", stream=stream)
    log.info("outcome", reference=HOSTILE, nested=[HOSTILE])
    line = stream.getvalue()
    assert line[:-1].isprintable()
    assert json.loads(line)["reference"] == HOSTILE
    assert (line.count(HARMLESS), json.loads(line)["nested"]) == (2, [HOSTILE])

    stream = Terminal()
    start_logging(stream=stream).info("outcome", reference=HOSTILE, nested=[HOSTILE])
    (line,) = stream.getvalue().splitlines()
    assert HARMLESS in line.replace(r"\\", "\\")  # of a text with blanks the representation is shown
    assert re.sub(r"\x1b\[\d*m", "", line).isprintable()


@pytest.mark.parametrize("form", ["json", "console"])
def test_nor_can_what_an_exception_says(form: str) -> None:
    stream = io.StringIO()
    log = start_logging(form=form, stream=stream)
    try:
        dict[str, int]()[HOSTILE]
    except KeyError as error:
        error.add_note(HOSTILE)
        log.exception("failed")
    told = stream.getvalue().splitlines()
    assert (len(told) == 1) is (form == "json")
    assert all(line.isprintable() for line in told)
    assert any(r"\u001b[2J" in line for line in told)


def test_console_lines_are_for_reading() -> None:
    stream = io.StringIO()
    start_logging(form="console", stream=stream).info("command ended", outcome="accepted")
    assert "command ended" in stream.getvalue()
    assert "outcome=accepted" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_every_metric_that_has_a_value_is_exposed_under_its_declared_name_and_labels() -> None:
    metrics = Metrics()
    for metric in METRICS:
        labels = tuple("x" for _ in metric.labels)
        match metric.kind:
            case Kind.COUNTER:
                metrics.count(metric, *labels)
            case Kind.HISTOGRAM:
                metrics.histogram(metric, *labels).observe(0.3)
            case Kind.GAUGE:
                metrics.watch(metric, partial(_reading, labels))
    for accept, parse in ((OPENMETRICS, openmetrics), ("text/plain", prometheus)):
        body, _ = metrics.exposition(accept)
        samples = {s.name: s for family in parse(body.decode()) for s in family.samples}
        for metric in METRICS:
            sample = samples[metric.full_name + ("_sum" if metric.kind is Kind.HISTOGRAM else "")]
            assert sample.value == {Kind.COUNTER: 1, Kind.GAUGE: 2, Kind.HISTOGRAM: 0.3}[metric.kind]
            assert set(sample.labels) == set(metric.labels)


def _reading(labels: tuple[str, ...]) -> float | dict[str, float]:
    return dict.fromkeys(labels, 2.0) if labels else 2.0


def test_the_content_type_follows_what_is_accepted() -> None:
    metrics = Metrics()
    assert metrics.exposition(OPENMETRICS)[1].startswith("application/openmetrics-text")
    assert metrics.exposition("")[1].startswith("text/plain")


def test_counters_add_up_per_label() -> None:
    metrics = Metrics()
    metrics.count(CALLS, "AddFaultReport", "accepted")
    metrics.count(CALLS, "AddFaultReport", "accepted", by=2)
    metrics.counter(CALLS, "AddFaultReport", "unclear").inc()
    metrics.count(KEYS_MISPLACED)
    text = metrics.exposition("")[0].decode()
    assert 'supplier_calls_total{operation="AddFaultReport",result="accepted"} 3.0' in text
    assert 'supplier_calls_total{operation="AddFaultReport",result="unclear"} 1.0' in text
    assert "fault_adapter_keys_misplaced_total 1.0" in text


def test_a_gauge_is_read_when_it_is_asked_for() -> None:
    metrics = Metrics()
    lag = {"0": 5.0, "1": 0.0}
    metrics.watch(FRONTIER_LAG, lambda: lag)
    assert 'frontier_lag{partition="0"} 5.0' in metrics.exposition("")[0].decode()
    del lag["0"]
    text = metrics.exposition("")[0].decode()
    assert 'partition="0"' not in text
    assert 'frontier_lag{partition="1"} 0.0' in text
    assert BREAKER_STATE.full_name not in text


def test_the_gauges_of_a_flow_that_has_ended_are_not_shown() -> None:
    metrics = Metrics()

    def shown() -> list[str]:
        lines = metrics.exposition("")[0].decode().splitlines()
        return [line.removeprefix(PARTITIONS.full_name) for line in lines if line.startswith(PARTITIONS.full_name)]

    with metrics.lent() as others:
        with metrics.lent() as ours:
            others.watch(PARTITIONS, lambda: {"projector": 1.0})
            ours.watch(PARTITIONS, lambda: {"worker": 2.0})
            ours.count(KEYS_MISPLACED)
            assert shown() == ['{flow="projector"} 1.0', '{flow="worker"} 2.0']
        assert shown() == ['{flow="projector"} 1.0']
    assert shown() == []
    assert "fault_adapter_keys_misplaced_total 1.0" in metrics.exposition("")[0].decode()


def test_metrics_of_two_flows_in_one_process_do_not_mix() -> None:
    first, second = Metrics(), Metrics()
    first.count(DEAD_LETTERS, "empty")
    assert "empty" not in second.exposition("")[0].decode()


def test_an_operation_has_one_meter() -> None:
    metrics = Metrics()
    meter = metrics.operation("AddFaultReport")
    assert metrics.operation("AddFaultReport") is meter
    meter.received.inc()
    meter.call_seconds.observe(0.1)
    text = metrics.exposition("")[0].decode()
    assert 'commands_received_total{operation="AddFaultReport"} 1.0' in text
    assert 'supplier_call_seconds_count{operation="AddFaultReport"} 1.0' in text


def test_a_metric_that_is_not_of_that_kind_is_a_fault_of_the_program() -> None:
    with pytest.raises(KeyError):
        Metrics().count(TRANSACTION_SECONDS)
    with pytest.raises(ValueError, match="label"):
        Metrics().count(OUTCOMES, "AddFaultReport")


def test_names_of_metrics_tell_kind_and_unit() -> None:
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.name.endswith(metric.unit)
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_the_page_of_metrics_is_the_one_that_is_generated() -> None:
    """After a change: python -c 'from adapter.telemetry import *; print(markdown(), end="")' > docs/metrics.md"""
    assert (ROOT / "docs/metrics.md").read_text(encoding="utf-8") == markdown()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"00-{TRACE_ID}-{PARENT_ID}-01", Trace(TRACE_ID, PARENT_ID, 1)),
        (f"00-{TRACE_ID}-{PARENT_ID}-00".encode(), Trace(TRACE_ID, PARENT_ID, 0)),
        (f"00-{TRACE_ID}-{PARENT_ID}-ff", Trace(TRACE_ID, PARENT_ID, 1)),
        (f"01-{TRACE_ID}-{PARENT_ID}-01-what-a-later-version-adds", Trace(TRACE_ID, PARENT_ID, 1)),
        (f"01-{TRACE_ID}-{PARENT_ID}-01", Trace(TRACE_ID, PARENT_ID, 1)),
        (None, None),
        ("", None),
        (b"\xff\xfe", None),
        (f"00-{TRACE_ID}-{PARENT_ID}-01-more", None),
        (f"ff-{TRACE_ID}-{PARENT_ID}-01", None),
        (f"01-{TRACE_ID}-{PARENT_ID}-01.more", None),
        (f"00-{'0' * 32}-{PARENT_ID}-01", None),
        (f"00-{TRACE_ID}-{'0' * 16}-01", None),
        (f"00-{TRACE_ID.upper()}-{PARENT_ID}-01", None),
        (f"00-{TRACE_ID}-{PARENT_ID}-1", None),
        (f" 00-{TRACE_ID}-{PARENT_ID}-01", None),
        (f"00-{TRACE_ID}-{PARENT_ID}-01\n", None),
    ],
)
def test_traceparent(header: str | bytes | None, expected: Trace | None) -> None:
    assert parse_traceparent(header) == expected


def test_a_trace_goes_on_with_the_same_id_and_flags_and_a_parent_of_its_own() -> None:
    before = Trace(TRACE_ID, PARENT_ID, 1)
    after = continued(before)
    assert (after.trace_id, after.flags, after.sampled) == (TRACE_ID, 1, True)
    assert after.parent_id != PARENT_ID
    assert parse_traceparent(str(after)) == after


def test_without_a_trace_a_new_one_begins_unsampled() -> None:
    first, second = continued(None), continued(None)
    assert first.trace_id != second.trace_id
    assert not first.sampled
    assert parse_traceparent(str(first)) == first


def test_the_page_of_log_lines_has_every_line_the_code_writes_and_no_other() -> None:
    writes = re.compile(
        r"(?:\b_?log\.(?:debug|info|warning|error|exception)|(?<!\.)\b(?:tell|write))"
        r'[(,]\s*"([^"]+)"'
    )
    written = {
        event for path in (ROOT / "adapter").rglob("*.py") for event in writes.findall(path.read_text(encoding="utf-8"))
    }
    table = (ROOT / "docs/logs.md").read_text(encoding="utf-8").partition("| event | level |")[2]
    documented = {event for line in table.splitlines()[2:] for event in re.findall(r"`([^`]+)`", line.split(" | ")[0])}
    assert written == documented
