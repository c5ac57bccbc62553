"""Kafka's password and our certificate for it are replaced while everything runs."""

import asyncio
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from tests.projector.scribe import Scribe
from tests.server.conftest import PLAIN, notification
from tests.support.broker import Cluster
from tests.support.certificates import Trials, keystore, one_line
from tests.support.estate import add, unique
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.rig import Rig, open_rig
from tests.support.wait import PATIENCE, eventually

USER: Final = "adapter"


@pytest.fixture
def guarded(kafka_cluster: Callable[..., Cluster], trials: Trials) -> tuple[Cluster, str]:
    """A broker, and its address for those who have a password and a certificate."""
    pair, door = trials.authority.server("kafka"), free_port()
    cluster = kafka_cluster(
        doors={"USERS": (door, door)},
        properties={
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,USERS:SASL_SSL",
            "listener.name.users.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.users.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "listener.name.users.ssl.client.auth": "required",
            **keystore("users", pair),
            "listener.name.users.ssl.truststore.type": "PEM",
            "listener.name.users.ssl.truststore.certificates": one_line(trials.good.ca),
        },
    )
    return cluster, f"127.0.0.1:{door}"


async def test_all_flows_go_on_with_new_credentials(
    guarded: tuple[Cluster, str], trials: Trials, processes: Processes, tmp_path: Path
) -> None:
    cluster, door = guarded
    password, certificate, key = tmp_path / "password", tmp_path / "certificate.pem", tmp_path / "key.pem"
    _accept(cluster, "first")
    password.write_text("first")
    shutil.copy(trials.good.client_certificate, certificate)
    shutil.copy(trials.good.client_key, key)
    async with open_rig(cluster.bootstrap, partitions=1) as rig:
        environment = rig.environment(
            **PLAIN,
            KAFKA__BOOTSTRAP_SERVERS=door,
            KAFKA__PROPERTIES__SECURITY_PROTOCOL="SASL_SSL",
            KAFKA__PROPERTIES__SASL_MECHANISM="SCRAM-SHA-512",
            KAFKA__PROPERTIES__SASL_USERNAME=USER,
            KAFKA__PROPERTIES__SSL_CA_LOCATION=str(trials.good.ca),
            KAFKA__PROPERTIES__SSL_CERTIFICATE_LOCATION=str(certificate),
            KAFKA__PROPERTIES__SSL_KEY_LOCATION=str(key),
            KAFKA__PROPERTIES_FILES__SASL_PASSWORD=str(password),
        )
        process = processes.adapter("run", env=environment)
        await process.ready(lambda p: _starts(p) == {"worker": 1, "server": 1, "projector": 1})
        await _works(rig, process)

        password.write_text("second")
        await process.ready(lambda p: "new Kafka credentials are not used" in p.output)
        await _works(rig, process)

        _accept(cluster, "second")
        later = trials.authority.client("later")
        shutil.copy(later.certificate, certificate)
        shutil.copy(later.key, key)
        await process.ready(lambda p: _starts(p) == {"worker": 2, "server": 1, "projector": 2})
        await _works(rig, process)

        cluster.restart()  # whoever still had the first password could not come back
        await _works(rig, process)
        assert await process.stop() == 0
        assert "CommandOutcomeUnknown" not in process.output


def _accept(cluster: Cluster, password: str) -> None:
    """From now on, and no other."""
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    change = UserScramCredentialUpsertion(USER, info, password.encode())
    client = AdminClient({"bootstrap.servers": cluster.bootstrap})
    for done in client.alter_user_scram_credentials([change]).values():
        done.result(PATIENCE)


def _starts(process: Process) -> dict[str, int]:
    """How often each flow has started."""
    flows = re.findall('"event":"(worker|server|projector) starts"', process.output)
    return {flow: flows.count(flow) for flow in flows}


async def _works(rig: Rig, process: Process) -> None:
    """A command goes out, a notification comes in, and both are in the ticket."""
    reference = unique()
    rig.estate.send(command := add(reference))
    await rig.estate.final(command)
    port = process.said(r'"event":"server starts".*?"port":(\d+)')
    url = f"http://127.0.0.1:{port}/notify"
    async with aiohttp.ClientSession() as client, client.post(url, data=notification(reference)) as answer:
        assert answer.status == 200
    scribe = Scribe(rig.bootstrap, rig.registry.url, rig.topics)

    async def whole() -> bool:
        ticket = (await asyncio.to_thread(scribe.tickets)).get(reference)
        return ticket is not None and ticket["events"] == 2

    await eventually(whole, what="the ticket")
