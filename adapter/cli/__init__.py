"""The command line. `main` parses it, runs one command and turns errors into lines and an exit code."""

import argparse
import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from io import TextIOWrapper
from types import FrameType
from typing import TYPE_CHECKING, Final

from adapter import __version__
from adapter.cli.complaints import complain
from adapter.cli.exits import Exit
from adapter.core.errors import Stop, Unavailable
from adapter.core.wording import is_text

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

# Name, module and one line of help. A module is imported only when its command is run or explained: the flows import
# libraries that a command such as `adapter settings` does not need.
_COMMANDS: Final = (
    ("worker", "flows", "send commands to the supplier and publish their outcomes"),
    ("server", "flows", "receive the supplier's notifications and publish events"),
    ("projector", "flows", "fold the events of each ticket into its current state"),
    ("run", "flows", "run worker, server and projector in one process"),
    ("twin", "twin", "run a stand-in for the supplier, or post notifications"),
    ("demo", "flows", "run the whole product against a twin, on this machine"),
    ("topics", "topics", "compare the topics with the settings; create missing ones"),
    ("schemas", "schemas", "check, register and show schemas"),
    ("check", "check", "check that a role has everything it needs to go live"),
    ("settings", "settings", "list every setting with its default and meaning"),
    ("send", "send", "send commands written as JSON and follow their outcomes"),
    ("translate", "translate", "show offline what commands and messages become"),
    ("call", "call", "send one command to the supplier, without Kafka"),
    ("watch", "watch", "show events as they arrive"),
    ("tickets", "tickets", "show the state of all tickets, or of one with its timeline"),
    ("doubt", "doubt", "list commands whose outcome is unknown; settle one"),
    ("quarantine", "kept", "list and show unreadable messages; reprocess notifications"),
    ("dead-letters", "kept", "list, show and resend records that became no command"),
    ("stuck", "stuck", "list unfinished commands, with their age and reason"),
)

_ROLES: Final = frozenset({"worker", "server", "projector", "run"})
"""Commands for which being told to stop is a success."""

_LOOPED: Final = _ROLES | {"twin", "demo"}
"""Commands whose event loop handles signals."""

_UNWRITTEN: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""Errors of an output that can no longer be written."""

_MOMENT: Final = 1.0
"""Seconds an interrupted command has to end by itself, before the process is ended."""

_EPILOG: Final = f"""\
first steps:
  adapter demo                               see it work, without anything installed
  adapter settings                           list the settings, all of them variables ADAPTER_…
  adapter topics plan                        show what the cluster lacks
  adapter schemas register                   register the schemas in the registry
  adapter check worker                       check that everything is there to go live
  adapter call query.json                    ask the supplier something, show its answer
  adapter worker                             start: commands to the supplier
  adapter server                             start: notifications to Kafka
  adapter projector                          start: current state of each ticket
  adapter send --example AddFaultReport      print a command to fill in
  adapter translate command.json             show the request it becomes, without sending it
  adapter watch                              show what happens
  adapter tickets                            show how things stand
  adapter stuck                              show what does not finish

exit codes:
{Exit.table()}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (by default the process's own). The exit code; see Exit."""
    _keep_places()
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv), alone=argv is None)
        sys.stdout.flush()
    except Stop as stop:
        complain(*stop.problems)
        return Exit.WRONG
    except Unavailable as error:
        complain(str(error))
        return Exit.FAILED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # the reader of our output has gone (`adapter settings | head`)
            if error.errno not in _UNWRITTEN or error.filename is not None:
                raise
            complain(f"standard output: {error.strerror}")
        # At its end the interpreter flushes standard output once more, and would report the same error again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return code


def _keep_places() -> None:
    """Open /dev/null in place of each standard stream that is closed.

    Otherwise the next socket would get its file descriptor. uvloop aborts the process when it closes such a socket, and
    what is written to the standard stream would be sent to the peer.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _run(given: Sequence[str], *, alone: bool) -> int:
    """Run the command line and return its exit code. `alone`: the process runs nothing else, so its signals are ours.

    Raises what `main` turns into messages.
    """
    chosen = next((word for word in given if not word.startswith("-")), "")
    if alone and chosen in _ROLES:
        signal.signal(signal.SIGTERM, _leave)
    if alone and chosen not in _LOOPED:
        _end_on_interrupt()
    if sys.stdout is None:
        raise Stop("standard output is closed")
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal that can't show a character is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments = _parser(chosen).parse_args(given)
    except SystemExit as stop:  # argparse has said what is wrong, or has shown the help that was asked for
        return int(stop.code or 0)
    if garbled := [word for word in _words(arguments) if not is_text(word)]:
        raise Stop(*(f"{os.fsencode(word).decode(errors='backslashreplace')}: is not UTF-8 text" for word in garbled))
    return int(arguments.run(arguments))


def _parser(chosen: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="adapter",
        description="Gateway between Kafka (Avro commands and events) and a supplier's SOAP ticketing API.",
        epilog=_EPILOG,
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"fault-adapter {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module, summary in _COMMANDS:
        command = commands.add_parser(name, help=summary, description=summary, formatter_class=_Help)
        if name == chosen:
            import_module(f"adapter.cli.{module}").add(name, command)
    return parser


def _words(arguments: argparse.Namespace) -> Iterator[str]:
    """The arguments that are texts: all but the names of files, which may be any bytes."""
    for name, given in vars(arguments).items():
        if name != "files":
            yield from (word for word in (given if isinstance(given, list) else [given]) if isinstance(word, str))


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Exit at once. SIGTERM of a role that is still importing its modules: there is no work to finish."""
    os._exit(Exit.DONE)


def _end_on_interrupt() -> None:
    """Let Ctrl-C end the process within a second, even in the middle of a call into a library.

    Python handles signals only between such calls, and one to a cluster that does not answer takes many seconds.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore SIGINT
        signal.signal(signal.SIGINT, _interrupt)
    heard, told = socket.socketpair()
    told.setblocking(False)  # noqa: FBT003 -- takes no keyword
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_wait_for_interrupt, args=(heard, told), name="interrupt", daemon=True).start()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """As Python's own handler, but it raises an instance. Python 3.11's raises the bare class, which Kafka's client
    loses if that happens in one of its callbacks: its call then ends with a SystemError.
    """
    raise KeyboardInterrupt


def _wait_for_interrupt(heard: socket.socket, _told: socket.socket) -> None:
    while heard.recv(1)[0] != signal.SIGINT:
        pass
    time.sleep(_MOMENT)
    os._exit(Exit.INTERRUPTED)


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: "SupportsWrite[str] | None" = None) -> None:
        """Let errors of the output through, which some releases of argparse suppress."""
        if file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = len("  dead-letters") + 2  # argparse ignores that commands are indented
