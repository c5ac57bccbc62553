"""Each user with the rights that docs/rights.md names and no others: on a broker that refuses whatever is not granted,
with a password for each, over TLS."""

import json
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import pytest
import pytest_asyncio
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from adapter.app.check import Role, Verdict, check
from tests.server.conftest import PLAIN, notification
from tests.support.broker import Cluster
from tests.support.certificates import Trials, keystore
from tests.support.estate import add, unique
from tests.support.ports import free_port
from tests.support.processes import ROOT, Process, Processes
from tests.support.rig import Rig, open_rig
from tests.support.wait import PATIENCE, eventually, wait_until

PAGE: Final = ROOT / "docs/rights.md"
PREFIXED: Final = " (prefix)"


class Rule(NamedTuple):
    user: str
    kind: str
    name: str
    """As the page has it."""
    operation: str


def _rules() -> Iterator[Rule]:
    lines = re.findall(r"^\| (\w+) \| (\w+) \| (.*) \| ([\w, ]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    for user, kind, name, operations in lines[1:]:
        for operation in operations.split(", "):
            yield Rule(user, kind, name, operation)


RULES: Final = tuple(_rules())
USERS: Final = sorted({rule.user for rule in RULES} | {"stranger"})


_EVERY: Final = AclBindingFilter(
    ResourceType.ANY,
    None,  # type: ignore[arg-type]  # any
    ResourcePatternType.ANY,
    None,  # type: ignore[arg-type]  # likewise
    None,  # type: ignore[arg-type]  # likewise
    AclOperation.ANY,
    AclPermissionType.ANY,
)


@dataclass(frozen=True, slots=True)
class Guarded:
    rig: Rig
    door: str
    """Address for users with a password: their name. Whoever comes to the rig's may do everything."""
    ca: Path
    secrets: Path

    def environment(self, user: str, **more: str) -> dict[str, str]:
        """Settings of that user."""
        secret = self.secrets / user
        secret.write_text(f"{user}\n")
        return self.rig.environment(
            **PLAIN,
            KAFKA__BOOTSTRAP_SERVERS=self.door,
            KAFKA__PROPERTIES__SECURITY_PROTOCOL="SASL_SSL",
            KAFKA__PROPERTIES__SASL_MECHANISM="PLAIN",
            KAFKA__PROPERTIES__SASL_USERNAME=user,
            KAFKA__PROPERTIES__SSL_CA_LOCATION=str(self.ca),
            KAFKA__PROPERTIES_FILES__SASL_PASSWORD=str(secret),
            **more,
        )

    def grant(self, rules: Iterable[Rule]) -> None:
        client, bindings = AdminClient({"bootstrap.servers": self.rig.bootstrap}), self._bindings(rules)
        for done in client.create_acls(bindings).values():
            done.result(PATIENCE)
        wait_until(lambda: all(_holds(client, binding) for binding in bindings), what="the rules")

    def withdraw(self, rules: Iterable[Rule]) -> None:
        client, bindings = AdminClient({"bootstrap.servers": self.rig.bootstrap}), self._bindings(rules)
        for gone in client.delete_acls(list(map(_exactly, bindings))).values():
            assert len(gone.result(PATIENCE)) == 1
        wait_until(lambda: not any(_holds(client, binding) for binding in bindings), what="the end of the rules")

    def withdraw_all(self) -> None:
        client = AdminClient({"bootstrap.servers": self.rig.bootstrap})
        for gone in client.delete_acls([_EVERY]).values():
            gone.result(PATIENCE)
        wait_until(lambda: not client.describe_acls(_EVERY).result(PATIENCE), what="the end of all rules")

    def named(self, name: str) -> str:
        """What the page's name is here."""
        topics = self.rig.topics
        here = {
            "fault.commands": topics.commands,
            "fault.events": topics.events,
            "fault.tickets": topics.tickets,
            "fault.journal": topics.journal,
            "fault.dead-letters": topics.dead_letters,
            "fault.quarantine": topics.quarantine,
            "fault-adapter-worker": self.rig.group,
            "fault-adapter-projector": f"{topics.prefix}-projectors",
        }
        plain = name.removesuffix(PREFIXED).strip("`")
        return here.get(plain, plain)

    def _bindings(self, rules: Iterable[Rule]) -> list[AclBinding]:
        return [
            AclBinding(
                ResourceType[re.sub("(?<!^)(?=[A-Z])", "_", rule.kind).upper()],
                self.named(rule.name),
                ResourcePatternType.PREFIXED if rule.name.endswith(PREFIXED) else ResourcePatternType.LITERAL,
                f"User:{rule.user}",
                "*",
                AclOperation[re.sub("(?<!^)(?=[A-Z])", "_", rule.operation).upper()],
                AclPermissionType.ALLOW,
            )
            for rule in rules
        ]


def _exactly(rule: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        rule.restype,
        rule.name,
        rule.resource_pattern_type,
        rule.principal,
        rule.host,
        rule.operation,
        rule.permission_type,
    )


def _holds(client: AdminClient, rule: AclBinding) -> bool:
    """Whether the broker goes by it: that may be a moment after who made it, or took it away, has been answered."""
    return bool(client.describe_acls(_exactly(rule)).result(PATIENCE))


class Doors(NamedTuple):
    everybody: str
    """Address for whoever may do everything."""
    users: str
    """Address for users with a password."""


@pytest.fixture(scope="module")
def doors(kafka_of_file: Callable[..., Cluster], trials: Trials) -> Doors:
    pair, door = trials.authority.server("kafka"), free_port()

    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    passwords = " ".join(f'user_{user}="{user}"' for user in USERS)
    cluster = kafka_of_file(
        doors={"USERS": (door, door)},
        properties={
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,USERS:SASL_SSL",
            "listener.name.users.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.users.plain.sasl.jaas.config": f"{login} {passwords};",
            **keystore("users", pair),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        },
    )
    return Doors(cluster.bootstrap, f"127.0.0.1:{door}")


@pytest_asyncio.fixture
async def guarded(doors: Doors, trials: Trials, tmp_path: Path) -> AsyncIterator[Guarded]:
    """With the page's rules and no others."""
    async with open_rig(doors.everybody, partitions=1) as rig:
        made = Guarded(rig, doors.users, trials.good.ca, tmp_path)
        made.grant(RULES)
        yield made
        made.withdraw_all()


async def _running(guarded: Guarded, processes: Processes) -> dict[Role, Process]:
    started = {role: processes.adapter(role, env=guarded.environment(role)) for role in Role}
    for role, process in started.items():
        await process.ready(lambda p, role=role: f'"{role} starts"' in p.output)  # type: ignore[misc]  # it is called at once
    return started


async def _said(guarded: Guarded, processes: Processes, user: str, *words: str, ends: int = 0, prefix: str = "") -> str:
    """What that command line prints; it must end with that code."""
    environment = guarded.environment(user, TOPICS__PREFIX=prefix, TOPICS__REPLICATION_FACTOR="1")
    process = processes.adapter(*words, env=environment)
    assert await process.ended() == ends, process.output
    return process.output


async def test_every_user_can_do_its_work_with_the_rights_of_the_page(guarded: Guarded, processes: Processes) -> None:
    rig, reference = guarded.rig, unique()
    started = await _running(guarded, processes)
    place = rig.estate.put(b"no command", reference.encode())
    rig.estate.send(command := add(reference))
    await rig.estate.final(command)
    await rig.estate.letter(place)
    port = started[Role.SERVER].said(r'"server starts".*?"port":(\d+)')
    async with aiohttp.ClientSession() as client:
        for body, status in ((notification(reference), 200), (b"<no-notification/>", 400)):
            async with client.post(f"http://127.0.0.1:{port}/notify", data=body) as answer:
                assert answer.status == status

    async def folded() -> bool:
        said = await _said(guarded, processes, "operator", "tickets", reference)
        ticket: dict[str, Any] = json.loads(said.splitlines()[0])
        return bool(ticket["events"] == 2)

    await eventually(folded)
    watched = await _said(guarded, processes, "operator", "watch", "--since", "beginning", "--until-now")
    assert len(watched.splitlines()) == 2
    assert len((await _said(guarded, processes, "operator", "dead-letters", "list")).splitlines()) == 1
    assert len((await _said(guarded, processes, "operator", "quarantine", "list")).splitlines()) == 1
    assert await _said(guarded, processes, "operator", "stuck") == ""
    assert await _said(guarded, processes, "operator", "doubt", "list") == ""
    for process in started.values():
        assert await process.stop() == 0
        assert "uthoriz" not in process.output
        assert '"level":"error"' not in process.output


async def test_a_service_can_send_commands_and_read_what_becomes_of_them(
    guarded: Guarded, processes: Processes, tmp_path: Path
) -> None:
    worker = processes.adapter("worker", env=guarded.environment("worker"))
    await worker.ready(lambda p: '"partition started"' in p.output)
    file = tmp_path / "command.json"
    file.write_text(await _said(guarded, processes, "service", "send", "--example", "AddFaultReport"))
    said = await _said(guarded, processes, "service", "send", "--wait", str(file))
    assert '"FaultReportAdded"' in said


async def test_an_installer_can_make_the_topics(guarded: Guarded, processes: Processes) -> None:
    said = await _said(guarded, processes, "installer", "topics", "create", prefix="fault.")
    assert said.count("created") == 6
    said = await _said(guarded, processes, "installer", "topics", "plan", prefix="fault.")
    assert said.count("as wanted") == 6
    said = await _said(guarded, processes, "service", "topics", "create", ends=2, prefix="fault.2.")
    assert said.count("no right to see whether it exists") == 6


@pytest.mark.parametrize("role", Role)
async def test_the_check_of_a_role_tells_of_each_right_that_is_missing(
    guarded: Guarded, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("ADAPTER_")]:
        monkeypatch.delenv(name)
    for name, value in guarded.environment(role).items():
        monkeypatch.setenv(name, value)

    async def told() -> list[str]:
        lines = [line async for line in check(role) if line.verdict is not Verdict.OK]
        said = [f"{line.subject}: {line.said} -> {line.fix}" for line in lines]
        return [line for line in said if re.search("no right|can't be read|uthoriz", line)]

    assert await told() == []
    for rule in [rule for rule in RULES if rule.user == role]:
        guarded.withdraw([rule])
        assert [line for line in await told() if guarded.named(rule.name) in line], rule
        guarded.grant([rule])


async def test_an_operator_who_may_not_see_the_workers_group_is_told_so(guarded: Guarded, processes: Processes) -> None:
    guarded.withdraw([rule for rule in RULES if rule.user == "operator" and rule.kind == "Group"])
    for words in (("stuck",), ("doubt", "list")):
        said = await _said(guarded, processes, "operator", *words, ends=2)
        assert f"{guarded.rig.group}: no right to see this consumer group; grant DESCRIBE on it" in said


async def test_a_wrong_password_is_told(guarded: Guarded, processes: Processes) -> None:
    wrong = guarded.secrets / "wrong"
    wrong.write_text("wrong")
    more = guarded.environment("worker") | {"ADAPTER_KAFKA__PROPERTIES_FILES__SASL_PASSWORD": str(wrong)}
    process = processes.adapter("check", "worker", "--json", env=more)
    assert await process.ended() == 3
    (line,) = (line for line in json.loads(process.output) if line["subject"] == "Kafka")
    assert line["verdict"] == "failed"
    assert "uthentication failed" in line["said"]
    assert "SASL" in line["fix"]
