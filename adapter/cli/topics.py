"""`adapter topics`: compares the cluster's topics with those the settings demand, and creates missing ones."""

import argparse
import sys
from collections.abc import Sequence

from adapter.cli.exits import Exit
from adapter.settings import Cluster, load
from adapter.transport.kafka.admin import Admin, Wanted, differences, wanted

_EPILOG = """\
plan     changes nothing, shows what is missing or different.
create   creates the missing topics and never changes an existing one. It shows what differs, for you to decide.

The exit code is 3 if a topic is missing or so different that a guarantee is broken.

needs ADAPTER_KAFKA__BOOTSTRAP_SERVERS; names, partitions and retention are ADAPTER_TOPICS__… (see adapter settings).

examples:
  ADAPTER_KAFKA__BOOTSTRAP_SERVERS=localhost:9092 adapter topics plan
  ADAPTER_TOPICS__REPLICATION_FACTOR=1 adapter topics create        on a cluster of one broker
"""


def add(_name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument("action", choices=("plan", "create"), help="only compare, or also create what is missing")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    settings = load(Cluster)
    admin = Admin(settings.kafka.client())
    wants = wanted(settings.topics)
    found = admin.find([topic.name for topic in wants])
    missing = [topic for topic in wants if topic.name not in found]
    made: set[str] = set()
    if arguments.action == "create":
        admin.create(missing)
        made = {topic.name for topic in missing}
    left = list(differences([topic for topic in wants if topic.name not in made], found))
    for topic in wants:
        _show(topic, [f"{d.text} -> {d.fix}" for d in left if d.topic == topic.name], made=topic.name in made)
    return Exit.DIFFERENT if any(each.vital for each in left) else Exit.DONE


def _show(topic: Wanted, problems: Sequence[str], *, made: bool) -> None:
    config = ", ".join(f"{c.name} {c.value}" for c in topic.config)
    sys.stdout.write(f"{topic.name}: {topic.partitions} partitions, {topic.replication_factor} copies, {config}\n")
    sys.stdout.writelines(f"    {line}\n" for line in problems or ["created" if made else "as wanted"])
