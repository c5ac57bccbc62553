"""Log lines: JSON with stable keys, or aligned text on a terminal. docs/logs.md lists what is written.

The only global state is the root logger of the standard library's logging, through which the lines of libraries come
out the same way. Fields must never hold a payload, a name, a phone number or an address.
"""

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, Final, Protocol, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from adapter.core.overdue import Recurring
from adapter.core.wording import harmless


class Log(Protocol):
    """Writes log lines: an event's name in lower-case words, then fields."""

    def bind(self, **fields: Any) -> "Log":
        """A log that adds these fields to every line."""
        ...

    def debug(self, event: str, **fields: Any) -> None: ...
    def info(self, event: str, **fields: Any) -> None: ...
    def warning(self, event: str, **fields: Any) -> None: ...
    def error(self, event: str, **fields: Any) -> None: ...

    def exception(self, event: str, **fields: Any) -> None:
        """An error with the traceback of the exception being handled."""
        ...


def start_logging(
    *,
    level: str = "info",
    form: str = "auto",
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Log:
    """The log; libraries' warnings (at level debug: all their lines) go the same way.

    `level` is debug, info, warning or error; `form` is json, console, or auto: console on a terminal, else json.
    Lines go to `stream`, by default to standard error: standard output belongs to the results of a command.
    """
    stream = sys.stderr if stream is None else stream
    terminal = stream.isatty()
    lines = _Lines(stream)
    bridge = _Bridge(getattr(logging, level.upper()), lines, clock)
    out: _Lines | structlog.WriteLogger = lines
    render: list[Processor] = [_rendered]
    if form == "console" or (form == "auto" and terminal):
        out = structlog.WriteLogger(stream)
        console = structlog.dev.ConsoleRenderer(
            colors=terminal, pad_event_to=24, exception_formatter=structlog.dev.plain_traceback
        )
        render = [
            structlog.processors.format_exc_info,
            _harmless,
            structlog.processors.add_log_level,
            _timestamped,
            console,
        ]
    log: Log = structlog.wrap_logger(
        out,
        processors=[bridge.sift, *render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        context_class=dict,
    ).bind()
    bridge.install(log)
    return log


def switch_debug() -> str:
    """Switch from the level of the start to debug, or back. Returns the level that is now in force."""
    for bridge in [handler for handler in logging.getLogger().handlers if isinstance(handler, _Bridge)]:
        return bridge.switch()
    raise AssertionError("logging was not started")


_LONGEST: Final = 1000
"""Maximum length of a value in characters. References come from outside, and log shippers cut long lines anywhere."""


def _cut(text: str) -> str:
    return f"{text[:_LONGEST]}…"


def _harmless(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Processor: replaces characters that could affect a terminal. Of values that are no text the console shows the
    repr.
    """
    for key, value in event.items():
        if key == "exception":
            event[key] = "\n".join(map(harmless, value.split("\n")))
        elif isinstance(value, str):
            event[key] = harmless(value if len(value) <= _LONGEST else _cut(value))
    return event


def _timestamped(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    event["time"] = _moment()
    return event


def _rendered(logger: WrappedLogger, name: str, event: EventDict) -> str:
    """Processor: the line of JSON. In one pass, since a worker writes a line for each command. The keys that every line
    has come first, so that raw lines are readable. Keys are Python identifiers, so they need no escaping.
    """
    told = ""
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, name, event)
        if "exception" in event:
            told = f',"exception":{encode_basestring(event.pop("exception"))}'
    line = f'{{"time":"{_moment()}","level":"{name}","event":{_text(event.pop("event"))}'
    for key, value in event.items():
        line += f',"{key}":{_WRITERS.get(type(value), _value)(value)}'
    line += f"{told}}}"
    # JSON escapes most harmful characters. Checking each one here would cost a tenth of the line.
    return f"{line if line.isascii() and _DELETE not in line else harmless(line)}\n"


_DELETE: Final = "\x7f"
"""The only control character of ASCII that JSON does not escape."""


def _moment() -> str:
    """Now, UTC, with milliseconds."""
    now = time.time()
    second = int(now)
    return f"{_second(second)}.{int((now - second) * 1000):03}Z"


@lru_cache(maxsize=1)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _text(value: str) -> str:
    return encode_basestring(value if len(value) <= _LONGEST else _cut(value))


_value: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=repr).encode

_WRITERS: Final[dict[type, Callable[[Any], str]]] = {str: _text, int: int.__repr__, float: float.__repr__}
"""Writers for the types of most values."""


class _Lines:
    """Receives structlog's lines and writes them in order.

    Lines of level info and debug are buffered until the end of the loop's iteration and written together, since a write
    costs more than the line and gives the interpreter to another thread. Lines of higher levels, and those of a thread
    without a loop, are written at once, after the buffered ones.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.RLock()  # reentrant: the garbage collector may log a warning while the lock is held
        self._waiting: list[str] = []
        self._size = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop that will write the buffered lines at the end of its iteration."""

    def info(self, line: str) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.warning(line)
            return
        with self._lock:
            if self._size + len(line) > _PIECE:
                self.flush()
            self._wait(line)
            if self._loop is not loop:
                self._loop = loop
                loop.call_soon(self._turned)

    debug = info

    def warning(self, line: str) -> None:
        with self._lock:
            self._wait(line)
            self.flush()

    error = warning

    def flush(self) -> None:
        """Write the waiting lines. If the disk is full or the reader has gone, the lines are lost and nothing else: a
        process that ended because of it would do nothing until the disk has room again.
        """
        with self._lock:
            lines, self._waiting, self._size = self._waiting, [], 0
            if lines:
                with suppress(OSError, ValueError):  # ValueError: it is closed
                    self._stream.write("".join(lines))
                    self._stream.flush()

    def _wait(self, line: str) -> None:
        self._waiting.append(line)
        self._size += len(line)

    def _turned(self) -> None:
        with self._lock:
            self._loop = None
            self.flush()


_PIECE: Final = 4096
"""Characters written at once: a pipe takes that many bytes in one piece, even with several writers (PIPE_BUF)."""


class _Bridge(logging.Handler):
    """Forwards lines of the standard library's logging to our log, and holds the threshold of both."""

    def __init__(self, threshold: int, lines: _Lines, clock: Callable[[], float]) -> None:
        super().__init__()
        self._usual = self._threshold = threshold
        self._lines = lines
        self._clock = clock
        self._log: Log | None = None
        self._said = Recurring()

    def install(self, log: Log) -> None:
        """Replace an earlier bridge in the root logger."""
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
        """Processor: drops lines below the threshold."""
        if _SEVERITY[name] < self._threshold:
            raise structlog.DropEvent
        return event

    def _apply(self) -> None:
        # Lines of libraries below warning are only for debugging.
        chatter = self._threshold <= logging.DEBUG
        logging.getLogger().setLevel(logging.DEBUG if chatter else max(self._threshold, logging.WARNING))

    def flush(self) -> None:
        """Called by `logging.shutdown`, and so at the end of the interpreter."""
        self._lines.flush()

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
        fields: dict[str, Any] = {"exc_info": record.exc_info} if record.exc_info else {}
        text = record.getMessage()
        if self._threshold > logging.DEBUG and not fields:  # the same words may come with other exceptions
            # librdkafka retries several times a second, and its lines differ only in "(after … ms in state …)".
            times = self._said.due(f"{record.name}: {text.partition(' (after ')[0]}", self._clock())
            if not times:
                return
            if times > 1:
                fields["repeated"] = times - 1
        try:
            write("library", logger=record.name, text=text, **fields)
        except (OSError, ValueError):  # a library must not fail because its line can't be written
            self.handleError(record)


_SEVERITY: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
}
"""Severity by the name of the log's method."""
