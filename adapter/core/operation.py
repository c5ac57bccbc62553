"""What an operation of a supplier is: one declaration from which its URL, SOAP body, records, metric labels,
documentation and contract tests are derived.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta, tzinfo
from enum import StrEnum
from typing import Any


class Repeat(StrEnum):
    """What may be done after a call whose outcome is unknown (design, guarantee 2)."""

    SAFE = "safe"
    """It changes nothing at the supplier: call again."""

    KEYED = "keyed"
    """Our reference is unique there: call again under the same message id; a refusal that means
    "already done" then counts as accepted."""

    NEVER = "never"
    """A second call could do it twice: publish the doubt and reconcile."""


class Mode(StrEnum):
    """How strictly a documented but uncertain rule is applied ("may be rejected")."""

    REFUSE = "refuse"
    WARN = "warn"
    OFF = "off"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a command, in the command's own vocabulary.

    `path` is a dotted path of Avro field names ("faultDetails.type"), empty for the whole command.
    `text` says what is wrong in words and never repeats the value. A `warning` is worth a log line and a
    count, the command is sent all the same.
    """

    path: str
    text: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


Record = Mapping[str, Any]
Rule = Callable[[Record], Iterable[Problem]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One buyer-to-supplier operation."""

    name: str
    """The command's record name and the label of metrics: "AddFaultReport"."""

    path: str
    """Appended to the supplier's base URL: "/addFaultReport"."""

    request: str
    """Request element in Clark notation ("{namespace}local" or "local")."""

    reply: str
    """Reply element in Clark notation; replies are matched by local name in any case."""

    accepted: str
    """Record name of the event that tells success: "FaultReportAdded"."""

    key: str
    """Field of the command that must equal the Kafka record key: "buyerFaultReference"."""

    repeat: Repeat

    doubt_limit: timedelta
    """How long an unclear outcome is reconciled before the command ends undetermined."""

    rules: tuple[Rule, ...] = ()
    """Documented rules checked before anything is sent; they see the decoded command."""

    confirmed_by: frozenset[str] = frozenset()
    """For NEVER: kinds of notification (symbols of the event's Kind) that tell, received after a call whose outcome is
    unknown, that it was taken. Empty: no notification tells."""

    refused_by: frozenset[str] = frozenset()
    """The same of kinds that tell that it was refused."""

    needs_reference: bool = False
    """It can't be made without the supplier's reference: a command that leaves it out waits for its ticket to have one.
    """

    silent: bool = False
    """No answer to its success is documented: one without any content says yes."""

    finds: str | None = None
    """For SAFE: the list in the reply that is asked for. Where it came empty, and something that may belong there could
    not be read, it is asked again."""

    already_done: str | None = None
    """Regular expression (ignoring case) on code or text of a refusal that, after an unclear try, means the first one
    was taken. For KEYED, and for NEVER where an operator has it sent again."""


@dataclass(frozen=True, slots=True)
class Replies:
    """Where the supplier's replies say yes or no. Without code and status none could say no."""

    reference: str
    """Field with the buyer's reference: which ticket it is about."""

    code: str
    """Field with a number; which of them say yes is a setting."""

    status: str
    """Field with a word."""

    text: str
    """Field that explains a no."""

    taken: frozenset[str]
    """Words that say that the request was taken, as `document.plain` writes them."""

    refused: str
    """How words that say no begin, likewise."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the content of a notification says it is about."""

    kind: str
    """Symbol of the event's Kind: "APPOINTMENT_CANCELLED"."""

    status: str | None
    """Symbol of the event's Status; None if the report names no status."""

    closure_code: str | None = None
    closure_meaning: str | None = None
    problems: tuple[Problem, ...] = ()
    """Words that no table of the contract has; their paths are those of the report."""


@dataclass(frozen=True, slots=True)
class Notification:
    """The one message a supplier sends to the buyer, whatever it is about."""

    element: str
    """Body element in Clark notation, matched by local name in any case."""

    answer: str
    """Element of our answer in Clark notation."""

    event: str
    """Record name of the event: "FaultReportUpdated"; its field `report` is mapped from the element."""

    tell: Callable[[Record, tuple[str, ...]], Told]
    """What a report is about; the texts are hints (URL path, SOAPAction) that count only where it leaves that open."""

    reference: str
    """Field of the report with the buyer's reference, the key of the event. A command that has it is about that ticket.
    """

    supplier_reference: str
    """Field with the supplier's reference."""

    buyer: str
    """Field with the buyer's identifier."""

    message_id: str
    sent_at: str
    """Field with the time of sending, the only content in which a repeat may differ."""

    placeholders: Mapping[str, frozenset[str]]
    """Texts that mean "nothing", as `document.plain` writes them or as they are in lower case, by the dotted path of
    their field in the report. A path stands for all items of the lists on its way.
    """


@dataclass(frozen=True, slots=True)
class Supplier:
    """Everything that is particular to one supplier; the one place per supplier."""

    name: str
    environments: Mapping[str, str]
    """Name of an environment to its base URL."""

    operations: tuple[Operation, ...]
    replies: Replies
    notification: Notification
    schemas: tuple[str, ...]
    """XSD files (below schemas/xsd/) that declare the elements of the operations."""

    time_zone: tzinfo
    """Of its times without an offset."""

    protocol: Mapping[str, str]
    """XSD paths the adapter fills itself, to the name of the protocol value that fills them:
    {"messageId": "message_id", "message.sentAt": "sent_at", ...}."""

    envelope: frozenset[str]
    """Fields of every command that are the adapter's own business and not part of a request:
    commandId, issuedAt, notAfter, correlationId."""

    def leaves_out_reference(self, command: Record) -> bool:
        """Whether a command could name the supplier's reference of its ticket, and does not."""
        name = self.notification.supplier_reference
        return name in command and not (command[name] or "").strip()
