"""All metrics of the adapter, declared; the objects that count them are in `meters`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PREFIX: Final = "fault_adapter_"


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """The declaration of one metric, compared by identity. `name` is without the product's prefix."""

    name: str
    kind: Kind
    help: str
    bad: str
    """When its value is bad, and what to do then; empty for a metric that only explains others."""

    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        return PREFIX + self.name


_CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_COMMAND_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86400.0)
_TRANSACTION_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_NOTIFICATION_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0)
_TICKET_SECONDS = (60.0, 300.0, 900.0, 3600.0, 14400.0, 28800.0, 86400.0, 172800.0, 259200.0, 604800.0)
_TRANSACTION_RECORDS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)


COMMANDS_RECEIVED: Final = Metric(
    "commands_received_total",
    Kind.COUNTER,
    "Commands decoded from the commands topic, by operation.",
    "Stays at zero while the estate sends: check partitions, partitions_starting and partition_paused.",
    labels=("operation",),
)
COMMANDS_REPEATED: Final = Metric(
    "commands_repeated_total",
    Kind.COUNTER,
    "Commands whose id was seen before. They are not called again and get no second outcome.",
    "Grows steadily: a producer sends its commands twice.",
    labels=("operation",),
)
KEYS_MISPLACED: Final = Metric(
    "keys_misplaced_total",
    Kind.COUNTER,
    "Keys found on a partition that does not match their murmur2 hash. A key counts again when it has commands after "
    "it had none unfinished.",
    "Above zero: a producer uses a different partitioner. Order per ticket holds only if all producers agree.",
)
OUTCOMES: Final = Metric(
    "outcomes_total",
    Kind.COUNTER,
    "Outcome events published, by operation and kind: accepted, rejected-by-adapter, rejected-by-supplier, in-doubt "
    "(provisional), settled-accepted, settled-rejected, settled-undetermined.",
    "Many rejected-by-adapter: a producer breaks the rules. settled-undetermined: ask the supplier about the ticket.",
    labels=("operation", "outcome"),
)
CALLS: Final = Metric(
    "supplier_calls_total",
    Kind.COUNTER,
    "Calls to the supplier, by operation and result: accepted, rejected, unavailable, unclear, forbidden, misdirected.",
    "forbidden, misdirected: the certificate, address or base URL is wrong. unclear: see supplier_call_failures_total.",
    labels=("operation", "result"),
)
CALL_FAILURES: Final = Metric(
    "supplier_call_failures_total",
    Kind.COUNTER,
    "Calls without a complete answer, by reason: resolve, connect, connect-timeout, tls, proxy (nothing was sent), "
    "write-timeout, read-timeout, total-timeout, reset, too-large, protocol (something may have been sent).",
    "resolve, connect, tls, proxy: network or certificates. The others: the supplier or the network path to it is in "
    "trouble.",
    labels=("reason",),
)
CALL_SECONDS: Final = Metric(
    "supplier_call_seconds",
    Kind.HISTOGRAM,
    "Duration of a call, from its start to its answer or failure.",
    "High quantiles near the total time limit: the supplier is slow, and in-flight calls and lag will grow.",
    labels=("operation",),
    unit="seconds",
    buckets=_CALL_SECONDS,
)
COMMAND_SECONDS: Final = Metric(
    "command_seconds",
    Kind.HISTOGRAM,
    "Time from the timestamp of a command's record to the commit of its final outcome.",
    "Far above the duration of a call: commands wait to be read (too few workers, or none for a while), in lanes (one "
    "busy ticket), for retries or for the circuit breaker.",
    labels=("operation",),
    unit="seconds",
    buckets=_COMMAND_SECONDS,
)
CALLS_IN_FLIGHT: Final = Metric(
    "supplier_calls_in_flight",
    Kind.GAUGE,
    "Calls in flight.",
    "At the limit for long (ADAPTER_SUPPLIER__MAX_IN_FLIGHT): the supplier is slow, or the limit is too low.",
)
LANES: Final = Metric(
    "lanes",
    Kind.GAUGE,
    "Lanes (one per key with unfinished commands), by state: active has a call or its outcome in progress; waiting "
    "waits for a retry, a settlement or the circuit breaker.",
    "Many waiting: see breaker_state and retries_total.",
    labels=("state",),
)
LANES_HALTED: Final = Metric(
    "lanes_halted",
    Kind.GAUGE,
    "Lanes halted by a fault on our side, by reason: event-too-large, dead-letter-too-large (a record to be written is"
    " larger than its topic allows). Commands of these tickets wait, all others proceed.",
    "Above zero: raise the limit that the reason names. Nothing is lost meanwhile.",
    labels=("reason",),
)
WINDOW_RECORDS: Final = Metric(
    "window_records",
    Kind.GAUGE,
    "Unfinished commands held in memory.",
    "At ADAPTER_WORKER__WINDOW_RECORDS: partitions are paused until some finish.",
)
WINDOW_BYTES: Final = Metric(
    "window_bytes",
    Kind.GAUGE,
    "Size of the unfinished commands held in memory.",
    "At ADAPTER_WORKER__WINDOW_BYTES: partitions are paused until some finish.",
    unit="bytes",
)
FRONTIER_LAG: Final = Metric(
    "frontier_lag",
    Kind.GAUGE,
    "Offsets between the newest command of a partition and its frontier (everything before the frontier is finished).",
    "Grows while calls succeed: too few workers, or too low a limit. On one partition only: see "
    "oldest_unfinished_seconds.",
    labels=("partition",),
)
OLDEST_UNFINISHED: Final = Metric(
    "oldest_unfinished_seconds",
    Kind.GAUGE,
    "Age of the oldest unfinished command of a partition; 0 if there is none.",
    "Hours: a command waits, for example to be called again. Those in doubt do not count. adapter stuck names it.",
    labels=("partition",),
    unit="seconds",
)
PARTITION_PAUSED: Final = Metric(
    "partition_paused",
    Kind.GAUGE,
    "1 while a partition is paused because its window is full.",
    "1 for long: unfinished commands do not finish; see oldest_unfinished_seconds.",
    labels=("partition",),
)
RETRIES: Final = Metric(
    "retries_total",
    Kind.COUNTER,
    "Calls postponed for a retry, by operation and reason.",
    "Grows fast: the supplier is unavailable, or answers 429 (lower the limit of calls in flight).",
    labels=("operation", "reason"),
)
BREAKER_STATE: Final = Metric(
    "breaker_state",
    Kind.GAUGE,
    "Circuit breaker: 0 closed, 1 probing, 2 open (no calls are started). Also 0 once it has been open for ten minutes"
    " without any call to make.",
    "Above 0 for minutes: the supplier is down or refuses us. Commands wait; nothing is lost.",
)
DOUBTS_HELD: Final = Metric(
    "doubts_held",
    Kind.GAUGE,
    "Commands whose outcome is unknown and not settled yet. Each holds its own ticket's lane.",
    "Above zero for hours: look the tickets up at the supplier, then run adapter doubt settle.",
)
TICKETS_FOLLOWED: Final = Metric(
    "tickets_followed",
    Kind.GAUGE,
    "Partitions of the tickets topic that a worker follows, for omitted references and for doubts, by state: current "
    "was read to its end, behind was not yet.",
    "behind for minutes: the topic cannot be read; the log says why.",
    labels=("state",),
)
DEAD_LETTERS: Final = Metric(
    "dead_letters_total",
    Kind.COUNTER,
    "Records written to the dead-letter topic, by reason.",
    "Above zero: a producer writes records that can never become commands; their headers say which.",
    labels=("reason",),
)
TRANSACTIONS: Final = Metric(
    "transactions_total",
    Kind.COUNTER,
    "Kafka transactions, by result: committed, aborted (retried, unless the work is no longer ours).",
    "aborted grows outside of rebalances: the cluster is in trouble, or a worker was silent for too long.",
    labels=("result",),
)
TRANSACTION_SECONDS: Final = Metric(
    "transaction_seconds",
    Kind.HISTOGRAM,
    "Duration of a transaction from begin to commit.",
    "Near 0.1 s: retry.backoff.ms was raised. Seconds: the cluster is slow.",
    unit="seconds",
    buckets=_TRANSACTION_SECONDS,
)
TRANSACTION_RECORDS: Final = Metric(
    "transaction_records",
    Kind.HISTOGRAM,
    "Records written in one transaction. Grows with the load.",
    "",
    buckets=_TRANSACTION_RECORDS,
)
KAFKA_UNREACHABLE: Final = Metric(
    "kafka_unreachable",
    Kind.GAUGE,
    "1 while Kafka does not answer, or refuses, what each flow asks every few seconds about its topics.",
    "1: the cluster is away, or refuses us. The log line Kafka does not answer says why.",
    labels=("flow",),
)
TOPICS_MISCONFIGURED: Final = Metric(
    "topics_misconfigured",
    Kind.GAUGE,
    "Topics that are missing, or whose configuration breaks a guarantee, such as cleanup.policy=compact where nothing "
    "may be removed but by age; by the flow that uses them. Only what we may read (DescribeConfigs) counts.",
    "Above 0: records are removed, or can't be stored. The log line topic misconfigured says which topic, and the "
    "remedy.",
    labels=("flow",),
)
KAFKA_THROTTLED: Final = Metric(
    "kafka_throttled_seconds_total",
    Kind.COUNTER,
    "Seconds for which brokers told our clients to wait because of a quota.",
    "Grows: a quota is too low for the load. Requests wait, and time out if they wait for long; raise the quota.",
)
JOURNAL_RECOVERED: Final = Metric(
    "journal_recovered_total",
    Kind.COUNTER,
    "Commands found in the journal when a partition was taken over, by state: settled, intent, held, parked.",
    "intent grows without crashes: workers are killed instead of stopped.",
    labels=("state",),
)
REPLY_DEVIATIONS: Final = Metric(
    "reply_deviations_total",
    Kind.COUNTER,
    "Replies that were understood but deviate from the contract (unknown elements, unreadable values), by operation.",
    "Starts to grow: the supplier has changed its API. Compare with docs/contract.md.",
    labels=("operation",),
)
NOTIFICATIONS: Final = Metric(
    "notifications_total",
    Kind.COUNTER,
    "Notifications read completely, by result: published, spooled, repeated (seen before, not published again), "
    "quarantined (answered 400), unavailable (answered 503, not kept).",
    "quarantined: the supplier sends what the adapter cannot read. unavailable, spooled: Kafka does not acknowledge.",
    labels=("result",),
)
NOTIFICATION_KINDS: Final = Metric(
    "notification_kinds_total",
    Kind.COUNTER,
    "Notifications published or spooled, by kind.",
    "UNKNOWN grows: the supplier reports something that matches no rule. The events contain the whole report.",
    labels=("kind",),
)
NOTIFICATION_SECONDS: Final = Metric(
    "notification_seconds",
    Kind.HISTOGRAM,
    "Time from the last byte of a notification to its answer.",
    "Near ADAPTER_SERVER__PUBLISH_TIMEOUT: Kafka is slow, and the supplier will send again.",
    unit="seconds",
    buckets=_NOTIFICATION_SECONDS,
)
NOTIFICATION_DEVIATIONS: Final = Metric(
    "notification_deviations_total",
    Kind.COUNTER,
    "Notifications that deviate from the contract, by path in the report; no path means the message itself.",
    "Starts to grow: the supplier has changed its messages. Compare with docs/contract.md.",
    labels=("path",),
)
NOTIFICATION_UNKNOWN: Final = Metric(
    "notification_unknown_elements_total",
    Kind.COUNTER,
    "Elements of notifications for which there is no field. The events contain their text.",
    "Starts to grow: the supplier has changed its messages. Compare with docs/contract.md.",
)
QUARANTINED: Final = Metric(
    "quarantined_total",
    Kind.COUNTER,
    "Notifications written to the quarantine topic, by reason.",
    "Above zero: look at the topic. Its headers say why and from whom.",
    labels=("reason",),
)
CALLERS_REFUSED: Final = Metric(
    "callers_refused_total",
    Kind.COUNTER,
    "Callers refused, by reason: tls (handshake failed: no certificate, or none of our authorities'), network, "
    "certificate, subject (answered 403).",
    "Grows: a stranger calls, or the supplier has a new certificate or address. The log names the caller.",
    labels=("reason",),
)
REQUESTS_REFUSED: Final = Metric(
    "requests_refused_total",
    Kind.COUNTER,
    "Requests of admitted callers answered without reading a complete body, by status: 400 (not HTTP), 405, 408, 411, "
    "413, 501, 503.",
    "413: raise ADAPTER_SERVER__MAX_BODY_BYTES. 503: too much at once. The others: the caller is misconfigured.",
    labels=("status",),
)
CONNECTIONS: Final = Metric(
    "connections",
    Kind.GAUGE,
    "Open connections to the listener.",
    "At ADAPTER_SERVER__MAX_CONNECTIONS: those that have been silent for longest are closed.",
)
BYTES_IN_FLIGHT: Final = Metric(
    "in_flight_bytes",
    Kind.GAUGE,
    "Bytes of notifications in flight.",
    "At ADAPTER_SERVER__MAX_BYTES_IN_FLIGHT: callers get 503.",
    unit="bytes",
)
KAFKA_DOWN: Final = Metric(
    "kafka_down",
    Kind.GAUGE,
    "1 while Kafka does not acknowledge notifications of tickets, until it does or none has failed for ten minutes. "
    "Also 1 if it or the registry has not been reachable since the start.",
    "1: notifications are spooled, or refused with 503 if there is no spool.",
)
SPOOL_DEPTH: Final = Metric(
    "spool_depth", Kind.GAUGE, "Notifications in the spool.", "Does not fall while Kafka is healthy: see the log."
)
SPOOL_BYTES: Final = Metric(
    "spool_bytes",
    Kind.GAUGE,
    "Bytes of notifications in the spool.",
    "Near ADAPTER_SERVER__SPOOL__MAX_BYTES: beyond it the supplier gets 503.",
    unit="bytes",
)
SPOOL_OLDEST: Final = Metric(
    "spool_oldest_seconds",
    Kind.GAUGE,
    "Age of the oldest notification in the spool; 0 if there is none.",
    "Grows: Kafka does not acknowledge. Readers of the events lag by that much.",
    unit="seconds",
)
SPOOL_DRAINED: Final = Metric("spool_drained_total", Kind.COUNTER, "Notifications published from the spool.", "")
SPOOL_DAMAGED: Final = Metric(
    "spool_damaged",
    Kind.GAUGE,
    "1 if the spool's file was damaged at the start and has been set aside, or if something in it cannot be read.",
    "1: the supplier must send again what could not be read (the log says how much, or which).",
)
TICKET_EVENTS: Final = Metric(
    "ticket_events_total",
    Kind.COUNTER,
    "Events read by the projector, by result: folded, late (an older notification after a newer one), repeated (seen "
    "before), unrelated (about no ticket, or a command refused because its key was another), misplaced (key, content "
    "and partition do not agree), unreadable.",
    "misplaced or unreadable: something else writes to the events topic. Many late: the supplier sends out of order.",
    labels=("result",),
)
TICKET_TRANSITIONS_ILLEGAL: Final = Metric(
    "ticket_illegal_transitions_total",
    Kind.COUNTER,
    "Changes of a ticket's status that the contract does not allow; they were carried out.",
    "Grows: notifications are lost or arrive out of order, or the supplier has changed its lifecycle.",
    labels=("before", "after"),
)
TICKET_STATUS_SECONDS: Final = Metric(
    "ticket_status_seconds",
    Kind.HISTOGRAM,
    "How long tickets were in a status when they left it, by the supplier's times. In PENDING: until it accepted a "
    "report. Tickets that are folded anew count again.",
    "PENDING or ON_HOLD grows: the supplier leaves reports unread, or on hold. RESOLVED nears "
    "ADAPTER_PROJECTOR__RESOLVE_DEADLINE: we do not answer.",
    labels=("status",),
    unit="seconds",
    buckets=_TICKET_SECONDS,
)
TICKET_SLA_SECONDS: Final = Metric(
    "ticket_sla_seconds",
    Kind.HISTOGRAM,
    "How long the service level clock of tickets had run when they became Resolved, without the time on hold. Tickets "
    "that are folded anew count again.",
    "Above what was agreed with the supplier.",
    unit="seconds",
    buckets=_TICKET_SECONDS,
)
TICKET_WARNINGS: Final = Metric(
    "ticket_deadline_warnings_total",
    Kind.COUNTER,
    "ResolveDeadlineApproaching events published.",
    "Grows: Resolved tickets stay unanswered, and the supplier closes them.",
)
TICKETS_FORGOTTEN: Final = Metric(
    "tickets_forgotten_total", Kind.COUNTER, "Ended tickets forgotten after ADAPTER_PROJECTOR__TOMBSTONE_AFTER.", ""
)
TICKETS_TRIMMED: Final = Metric(
    "tickets_trimmed_total",
    Kind.COUNTER,
    "Tickets stored without their report because it is too long to be stored again. The event still has it.",
    "Above zero: raise ADAPTER_TOPICS__MAX_MESSAGE_BYTES.",
)
PARTITIONS: Final = Metric(
    "partitions",
    Kind.GAUGE,
    "Partitions owned, by flow: partitions of the commands for a worker, of the events for a projector.",
    "0 for long: there are more instances than partitions, or the group keeps rebalancing.",
    labels=("flow",),
)
PARTITIONS_STARTING: Final = Metric(
    "partitions_starting",
    Kind.GAUGE,
    "Partitions owned but not started yet, by flow: the journal, or the tickets, are read to their end first. No other"
    " values are shown for them.",
    "Above 0 for minutes: the end cannot be reached, mostly because of a hanging transaction. The log says which "
    "partition (partition not started), the runbook what to do.",
    labels=("flow",),
)
TICKETS: Final = Metric("tickets", Kind.GAUGE, "Tickets kept, by partition.", "", labels=("partition",))
TICKETS_BEHIND: Final = Metric(
    "tickets_behind_seconds",
    Kind.GAUGE,
    "Age of the oldest event of a partition that was delivered but is not folded yet; 0 if there is none.",
    "Minutes: the projector is too slow, or the cluster or the registry does not answer.",
    labels=("partition",),
    unit="seconds",
)
CERTIFICATE_NOT_AFTER: Final = Metric(
    "certificate_not_after_timestamp_seconds",
    Kind.GAUGE,
    "When a certificate in use expires, in seconds since the epoch: supplier-certificate (ours for the supplier), "
    "supplier-ca, listener-certificate, listener-ca, kafka-certificate, kafka-ca (files of `ssl.…location`). Of "
    "several authorities, the next to expire counts: of those of one name the latest, and expired ones only if all "
    "have expired.",
    "Within 30 days: renew it. A new file is taken up without a restart.",
    labels=("certificate",),
    unit="seconds",
)
CERTIFICATES_REFUSED: Final = Metric(
    "certificates_refused",
    Kind.GAUGE,
    "1 while the certificate files cannot be used and the previous ones stay in use, by direction: supplier, listener, "
    "kafka (its passwords too, and while it does not answer).",
    "1: the log names the file and what is wrong with it. Correct it before the old certificate expires.",
    labels=("direction",),
)
BUILD_INFO: Final = Metric("build_info", Kind.GAUGE, "1, with the version as a label.", "", labels=("version",))

METRICS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All metrics, in the order of their declaration above."""


def markdown() -> str:
    """The text of docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "For operators: what each metric says, and when it is bad. The [runbook](runbook.md) explains the alerts.",
        "",
        "Served at `/metrics` on the telemetry port, in OpenMetrics or Prometheus text format. Labels never contain a",
        "key, a reference or an id. The usual `process_*` metrics (CPU, memory, file descriptors, start time) are",
        "included. This page is generated from `adapter/telemetry/metrics.py`.",
        "",
        "| metric | type | unit | labels | what it says | when it is bad |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(
            f"| `{metric.full_name}` | {metric.kind} | {metric.unit} | {labels} | {metric.help} | {metric.bad} |"
        )
    return "\n".join(lines) + "\n"
