"""The twin: a stateful simulator of the supplier for demo, tests, measurements and integrators. See docs/twin.md."""

from adapter.twin.deliveries import Delivery
from adapter.twin.dialects import Dialect, Manner
from adapter.twin.faults import Fault, Kind
from adapter.twin.lean import Lean
from adapter.twin.life import Happening, Rules, Status, Ticket
from adapter.twin.notify import Letters, add_notify_arguments, letters, notify
from adapter.twin.post import Answered
from adapter.twin.server import Twin, run
from adapter.twin.settings import Notify, TlsFiles, TwinSettings, add_arguments, from_arguments

__all__ = [
    "Answered",
    "Delivery",
    "Dialect",
    "Fault",
    "Happening",
    "Kind",
    "Lean",
    "Letters",
    "Manner",
    "Notify",
    "Rules",
    "Status",
    "Ticket",
    "TlsFiles",
    "Twin",
    "TwinSettings",
    "add_arguments",
    "add_notify_arguments",
    "from_arguments",
    "letters",
    "notify",
    "run",
]
