"""Log lines: JSON with stable keys, or aligned text on a terminal. docs/logs.md lists what is written.

Nothing here is global but the root of the standard library's logging, whose lines (of libraries) come out the same
way. A payload, a name, a phone number or an address never belongs into a field.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger


class Log(Protocol):
    """What the flows write lines with: an event's name in lower-case words, then fields."""

    def bind(self, **fields: Any) -> "Log":
        """The same log with these fields on every line."""
        ...

    def debug(self, event: str, **fields: Any) -> None: ...
    def info(self, event: str, **fields: Any) -> None: ...
    def warning(self, event: str, **fields: Any) -> None: ...
    def error(self, event: str, **fields: Any) -> None: ...

    def exception(self, event: str, **fields: Any) -> None:
        """An error with the traceback of the exception at hand."""
        ...


def start_logging(*, level: str = "info", form: str = "auto", stream: TextIO | None = None, **fields: Any) -> Log:
    """The log, with `fields` on every line; libraries' warnings (at level debug: all their lines) go the same way.

    `level` is debug, info, warning or error; `form` is json, console, or auto: console on a terminal, else json.
    Lines go to `stream`, by default to standard error: standard output belongs to the results of a command.
    """
    stream = sys.stderr if stream is None else stream
    terminal = stream.isatty()
    render: list[Processor]
    if form == "console" or (form == "auto" and terminal):
        render = [structlog.dev.ConsoleRenderer(colors=terminal, pad_event_to=24)]
    else:
        render = [
            structlog.processors.format_exc_info,
            _ordered,
            structlog.processors.JSONRenderer(serializer=lambda event, **_: _JSON.encode(event)),
        ]
    bridge = _Bridge(getattr(logging, level.upper()))
    log: Log = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=[bridge.sift, _bounded, structlog.processors.add_log_level, _timestamped, *render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        context_class=dict,
    ).bind(**fields)
    bridge.install(log)
    return log


def switch_debug() -> str:
    """From the level of the start to debug, or back; the level that holds now."""
    for bridge in [handler for handler in logging.getLogger().handlers if isinstance(handler, _Bridge)]:
        return bridge.switch()
    raise AssertionError("logging was not started")


_LONGEST: Final = 1000
"""Characters of a value: references come from elsewhere, and what ships log lines cuts long ones anywhere."""


def _bounded(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if type(value) is str and len(value) > _LONGEST:
            event[key] = f"{value[:_LONGEST]}…"
    return event


def _timestamped(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    event["time"] = f"{datetime.now(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
    return event


_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=repr)


def _ordered(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """The keys every line has come first, so that a person can read the raw lines too."""
    return {"time": event.pop("time"), "level": event.pop("level"), "event": event.pop("event"), **event}


class _Bridge(logging.Handler):
    """Lines of the standard library's logging, on our log; and the threshold of both, which may change."""

    def __init__(self, threshold: int) -> None:
        super().__init__()
        self._usual = self._threshold = threshold
        self._log: Log | None = None

    def install(self, log: Log) -> None:
        """In the place of a former one."""
        self._log = log
        root = logging.getLogger()
        for handler in [handler for handler in root.handlers if isinstance(handler, _Bridge)]:
            root.removeHandler(handler)
        root.addHandler(self)
        logging.captureWarnings(capture=True)
        self._apply()

    def switch(self) -> str:
        self._threshold = self._usual if self._threshold != self._usual else logging.DEBUG
        self._apply()
        return logging.getLevelName(self._threshold).lower()

    def sift(self, _logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        """Processor: nothing below the threshold goes on."""
        if _SEVERITY[name] < self._threshold:
            raise structlog.DropEvent
        return event

    def _apply(self) -> None:
        # What libraries say in passing is of interest only to who debugs.
        chatter = self._threshold <= logging.DEBUG
        logging.getLogger().setLevel(logging.DEBUG if chatter else max(self._threshold, logging.WARNING))

    def emit(self, record: logging.LogRecord) -> None:
        if self._log is None:
            return
        write = self._log.debug
        if record.levelno >= logging.ERROR:
            write = self._log.error
        elif record.levelno >= logging.WARNING:
            write = self._log.warning
        elif record.levelno >= logging.INFO:
            write = self._log.info
        fields = {"exc_info": record.exc_info} if record.exc_info else {}
        write("library", logger=record.name, text=record.getMessage(), **fields)


_SEVERITY: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
}
"""By the name of the method that was called."""
