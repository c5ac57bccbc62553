"""The flows and `adapter demo`: the commands that stay until they are told to stop."""

import argparse
import asyncio
import gc
import sys
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

import uvloop

from adapter.cli.exits import Exit

_COLLECT: Final = (20_000, 10, 20)
"""Thresholds of Python's garbage collector (`gc.set_threshold`). A flow holds thousands of messages at once and makes
hardly any cycles: with the default of 700 objects, a sixth of all CPU time went into looking for them."""

_SWITCH: Final = 0.0005
"""Seconds after which the loop gives the interpreter to another thread that wants it (`sys.setswitchinterval`). The
threads of transactions and of the consumer need it several times per turn. Beside a busy loop, a turn took 10 ms with
the default of 5 ms; now it takes 0.7 ms, for the same CPU time."""

_WORKER = """\
Reads commands from Kafka, calls the supplier, and publishes one final outcome for each command. On SIGTERM it stops
gracefully: it finishes work under way within ADAPTER_WORKER__STOP_TIMEOUT. Start several to share the partitions.

needs ADAPTER_KAFKA__BOOTSTRAP_SERVERS, ADAPTER_REGISTRY__URL, ADAPTER_SUPPLIER__BUYER_IDENTIFIER and either
ADAPTER_SUPPLIER__BASE_URL or ADAPTER_SUPPLIER__ENVIRONMENT. Metrics and health are on ADAPTER_TELEMETRY__PORT.

examples:
  adapter topics plan && adapter schemas check --registry && adapter worker
  curl -s localhost:9464/health/ready
"""
_SERVER = """\
Receives the supplier's notifications, on any path, and publishes an event for each. It answers 200 once all in-sync
replicas have the event, or the spool has it while Kafka does not answer (ADAPTER_SERVER__SPOOL__PATH). Unreadable
notifications go to the quarantine topic. On SIGTERM it stops gracefully: it answers requests under way and publishes
what its spool holds, within ADAPTER_SERVER__STOP_TIMEOUT. You can start several behind one address; each one with a
spool needs its own file.

needs ADAPTER_KAFKA__BOOTSTRAP_SERVERS, ADAPTER_REGISTRY__URL, ADAPTER_SUPPLIER__BUYER_IDENTIFIER and the three files
ADAPTER_SERVER__TLS__CERTIFICATE, __KEY and __CA, or ADAPTER_SERVER__ALLOW_PLAINTEXT=true.

examples:
  ADAPTER_SERVER__ALLOWED_SUBJECTS=CN=gateway,O=Supplier ADAPTER_SERVER__ALLOWED_NETWORKS=192.0.2.0/24 adapter server
  curl --cert client.pem --key client.key --cacert ca.pem https://localhost:8443/health
"""
_PROJECTOR = """\
Folds the events of each ticket into its current state, on the compacted tickets topic: status, service level clock,
resolve deadline, appointments, commands. Publishes ResolveDeadlineApproaching before a deadline. Start several to share
the partitions; each one with ADAPTER_PROJECTOR__STORE needs its own folder. docs/tickets.md describes the records.

needs ADAPTER_KAFKA__BOOTSTRAP_SERVERS and ADAPTER_REGISTRY__URL.

examples:
  adapter projector
  ADAPTER_PROJECTOR__STORE=/var/lib/fault-adapter/tickets adapter projector
"""
_RUN = """\
Runs worker, server and projector in one process, with one telemetry endpoint. If one of them cannot continue, all stop.
On SIGTERM it stops gracefully, each flow within its own time limit.

needs what `adapter worker` and `adapter server` need.

examples:
  adapter run
  curl -s localhost:9464/status
"""
_DEMO = """\
Runs the real product on this machine: Kafka (librdkafka's mock cluster unless --kafka is given), a schema registry, the
twin, and worker, server and projector, with mutual TLS in both directions. It plays the lives of nine tickets, with
commands of all kinds and the supplier's notifications, and shows what becomes of them. The exit code is 0 if every
event and every ticket's state is as expected.

examples:
  adapter demo
  adapter demo --kafka localhost:9092 --keep
"""


_EPILOGS: Final = {"worker": _WORKER, "server": _SERVER, "projector": _PROJECTOR, "run": _RUN, "demo": _DEMO}


def add(name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOGS[name]
    if name == "demo":
        parser.add_argument("--kafka", metavar="HOST:PORT", help="use a real cluster instead of the mock")
        parser.add_argument("--registry", metavar="URL", help="use a real schema registry instead of the built-in one")
        parser.add_argument(
            "--keep",
            action="store_true",
            help="leave everything running and print the addresses; topics on a real cluster are not deleted",
        )
        parser.set_defaults(run=_demo)
    else:
        parser.set_defaults(run=partial(_flow, name))


def _flow(name: str, _arguments: argparse.Namespace) -> int:
    from adapter import app  # noqa: PLC0415 -- see adapter.cli
    from adapter.settings import Projecting, Receiving, Settings, load  # noqa: PLC0415 -- see adapter.cli

    match name:
        case "worker":
            return looped(app.run_worker(load(Settings)))
        case "server":
            return looped(app.run_server(load(Receiving)))
        case "projector":
            return looped(app.run_projector(load(Projecting)))
        case _:
            return looped(app.run_all(load(Settings)))


def _demo(arguments: argparse.Namespace) -> int:
    from adapter import demo  # noqa: PLC0415 -- see adapter.cli

    return looped(demo.run(kafka=arguments.kafka, registry=arguments.registry, keep=arguments.keep))


def looped(flow: Coroutine[Any, Any, int | None]) -> int:
    """Run a flow to its end on uvloop, which halves the cost of a supplier call."""
    gc.set_threshold(*_COLLECT)
    sys.setswitchinterval(_SWITCH)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(flow) or Exit.DONE
