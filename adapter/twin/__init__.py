"""A stateful stand-in for the supplier: for the demo, the tests, measurements and integrators. See docs/twin.md."""

from adapter.twin.calls import Call
from adapter.twin.faults import Fault, Kind
from adapter.twin.lean import Lean
from adapter.twin.server import Twin, run
from adapter.twin.settings import TlsFiles, TwinSettings, add_arguments, from_arguments
from adapter.twin.tickets import Status, Ticket

__all__ = [
    "Call",
    "Fault",
    "Kind",
    "Lean",
    "Status",
    "Ticket",
    "TlsFiles",
    "Twin",
    "TwinSettings",
    "add_arguments",
    "from_arguments",
    "run",
]
