"""A ticket: the state that results from its events, each applied once.

Events of one ticket arrive in the order of the events topic, which is not always the order in which things happened: a
notification can overtake the outcome of the command that caused it, come late, or come twice. The fold is a pure
function of state and event; `due` and `fire` are the changes that time alone brings.
"""

from adapter.core.ticket.fold import Event, Folded, Policy, Verdict, fold
from adapter.core.ticket.state import (
    Clock,
    Command,
    Decision,
    Notified,
    Origin,
    Outcome,
    Ruling,
    Status,
    Ticket,
    Transition,
    among,
    mark,
    ticket,
)
from adapter.core.ticket.timer import Drop, Warn, due, fire

__all__ = [
    "Clock",
    "Command",
    "Decision",
    "Drop",
    "Event",
    "Folded",
    "Notified",
    "Origin",
    "Outcome",
    "Policy",
    "Ruling",
    "Status",
    "Ticket",
    "Transition",
    "Verdict",
    "Warn",
    "among",
    "due",
    "fire",
    "fold",
    "mark",
    "ticket",
]
