"""The chart on a real cluster: `make cluster-test`. Needs kubectl and helm for a cluster that has the image, and that
may be used: it makes the namespaces `estate` and `faults` and deletes them."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.helm import CHART
from tests.support.wait import wait_until

IMAGE: Final = os.environ.get("FAULT_ADAPTER_CLUSTER_IMAGE", "")
"""Repository and tag as the cluster knows them."""

PREFIX: Final = os.environ.get("FAULT_ADAPTER_CLUSTER_PREFIX", "")
"""Put before the names of the other images, such as localhost/."""

pytestmark = pytest.mark.skipif(not IMAGE, reason="needs a cluster that may be used: make cluster-test")

NAMESPACE: Final = "faults"
SMALL: Final = {"requests": {"cpu": "20m", "memory": "128Mi"}}
ROUNDS: Final = 25
PER_ROUND: Final = 40
LOAD: Final = f"""
import json, subprocess, sys
total = 0
for number in range({ROUNDS}):
    commands = [dict(command="AddFaultReport", buyerFaultReference=f"LOAD-{{number}}-{{n}}", serviceAffected="S18650",
                     reporterContactDetails={{}}, endUserContactDetails={{}},
                     faultDetails=dict(type="IMPAIRED_SERVICE", description="Slow")) for n in range({PER_ROUND})]
    send = ["adapter", "send", "-", "--wait", "--timeout", "2m"]
    done = subprocess.run(send, input=json.dumps(commands), text=True, capture_output=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    # What a starved broker did not take was not sent, and the sender has said so.
    sent = {{line["key"] for line in lines if "sent" in line}}
    ended = {{line["key"] for line in lines if line.get("event") == "FaultReportAdded"}}
    total += len(sent)
    print(number, len(sent), len(ended), flush=True)
    if not sent <= ended:
        sys.exit(done.stdout + done.stderr)
print("total", total)
"""
COUNT: Final = """
import collections, os, sys
from confluent_kafka import Consumer, TopicPartition
consumer = Consumer({"bootstrap.servers": os.environ["ADAPTER_KAFKA__BOOTSTRAP_SERVERS"], "group.id": "count",
                     "isolation.level": "read_committed", "enable.partition.eof": False})
partitions = consumer.list_topics("fault.events", timeout=10).topics["fault.events"].partitions
consumer.assign([TopicPartition("fault.events", p, 0) for p in partitions])
found = collections.Counter()
while messages := consumer.consume(10000, timeout=5):
    for message in messages:
        kind = dict(message.headers())["ce_type"].decode()
        if message.key().startswith(b"LOAD-") and not kind.startswith("fault.event.FaultReportUpdated"):
            found[message.key(), kind] += 1
kinds = collections.Counter(kind for _, kind in found)
print(dict(kinds), "most of one:", max(found.values()))
sys.exit(not (kinds.keys() == {"fault.event.FaultReportAdded"} and len(found) >= TOTAL and max(found.values()) == 1))
"""


def run(*command: str, given: str | None = None) -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def helm(*words: str, values: dict[str, Any]) -> str:
    return run(
        "helm",
        *words,
        "adapter",
        str(CHART),
        f"-n={NAMESPACE}",
        "--wait",
        "--timeout=4m",
        "-f=-",
        given=json.dumps(values),
    )


def kubectl(*words: str, given: str | None = None) -> str:
    return run("kubectl", f"-n={NAMESPACE}", *words, given=given)


def job(name: str, script: str) -> None:
    """Starts a pod of the image that runs `script` in the adapter's Python, with the adapter's settings."""
    environment = {
        "ADAPTER_KAFKA__BOOTSTRAP_SERVERS": "kafka.estate:9092",
        "ADAPTER_REGISTRY__URL": "http://registry.estate:8080/apis/ccompat/v7",
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": name,
                    "image": IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/opt/adapter/bin/python", "-c", script],
                    "env": [{"name": key, "value": value} for key, value in environment.items()],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    kubectl("apply", "-f=-", given=json.dumps(pod))


def phase(name: str) -> str:
    return kubectl("get", "pod", name, "-o=jsonpath={.status.phase}")


def succeed(name: str, *, within: float) -> str:
    wait_until(lambda: phase(name) in {"Succeeded", "Failed"}, within=within, what=f"the end of {name}")
    said = kubectl("logs", name)
    assert phase(name) == "Succeeded", said
    return said


@pytest.fixture
def estate() -> Iterator[None]:
    text = (
        (CHART.parent / "estate.yaml")
        .read_text(encoding="utf-8")
        .replace("image: fault-adapter\n", f"image: {IMAGE}\n")
    )
    for name in ("apache/", "apicurio/"):
        text = text.replace(f"image: {name}", f"image: {PREFIX}{name}")
    run("kubectl", "apply", "-f=-", given=text)
    run("kubectl", "create", "namespace", NAMESPACE)
    run("kubectl", "label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    run("kubectl", "-n=estate", "wait", "--for=condition=Available", "deploy", "--all", "--timeout=120s")
    yield
    run("kubectl", "delete", "namespace", NAMESPACE, "estate", "--timeout=120s")


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("estate")
def test_installs_passes_its_test_is_upgraded_under_load_without_loss_and_leaves_nothing(tmp_path: Path) -> None:
    repository, _, tag = IMAGE.rpartition(":")
    values: dict[str, Any] = {
        "image": {"repository": repository, "tag": tag},
        "settings": {
            "kafka": {"bootstrap_servers": "kafka.estate:9092"},
            "registry": {"url": "http://registry.estate:8080/apis/ccompat/v7"},
            "topics": {"replication_factor": 1},
            "supplier": {"base_url": "http://twin.estate:8444", "allow_plaintext": True, "buyer_identifier": "SPDEV1"},
            "server": {"allow_plaintext": True},
        },
        "tests": {"query": True},
        # Room for old and new side by side on a small node.
        **{part: {"resources": SMALL} for part in ("worker", "server", "projector", "setup")},
    }
    helm("install", values=values)
    print(run("helm", "test", "adapter", f"-n={NAMESPACE}", "--logs"))

    job("load", LOAD)
    wait_until(lambda: phase("load") == "Running" and "\n1 " in kubectl("logs", "load"), within=60, what="load")
    for number in range(2):
        values["labels"] = {"upgrade": str(number)}
        helm("upgrade", values=values)
    said = succeed("load", within=400)
    total = int(said.rpartition("total ")[2])
    assert total >= ROUNDS * PER_ROUND / 2, f"too little was sent to prove anything\n{said}"
    job("count", COUNT.replace("TOTAL", str(total)))
    print(succeed("count", within=60))

    values["settings"]["kafka"]["bootstrap_servers"] = "nowhere.estate:9092"
    with pytest.raises(AssertionError, match="pre-upgrade"):
        run(
            "helm",
            "upgrade",
            "adapter",
            str(CHART),
            f"-n={NAMESPACE}",
            "--timeout=20s",
            "-f=-",
            given=json.dumps(values),
        )
    ready = kubectl("get", "deploy", "-o=jsonpath={.items[*].status.readyReplicas}")
    assert ready.split() == ["2", "2", "2"], "a failed upgrade changes nothing that runs"

    run("helm", "uninstall", "adapter", f"-n={NAMESPACE}", "--wait")
    left = kubectl(
        "get", "deploy,sts,svc,sa,pdb,netpol,cm,secret,job", "-l=app.kubernetes.io/instance=adapter", "-o=name"
    )
    assert set(left.split()) <= {"job.batch/adapter-setup"}, "the failed set-up stays to be read, nothing else"
