"""The chart on a real cluster: `make cluster-test`. Needs kubectl and helm for a cluster that has the image, and that
may be used: it makes the namespaces `estate` and `faults` and deletes them."""

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from adapter.twin.certificates import Authority, Pair
from tests.support.helm import CHART
from tests.support.wait import wait_until

IMAGE: Final = os.environ.get("FAULT_ADAPTER_CLUSTER_IMAGE", "")
"""Repository and tag as the cluster knows them."""

PREFIX: Final = os.environ.get("FAULT_ADAPTER_CLUSTER_PREFIX", "")
"""Put before the names of the other images, such as localhost/."""

STORAGE: Final = os.environ.get("FAULT_ADAPTER_CLUSTER_STORAGE_CLASS", "")
"""Of the spool's claims; the cluster's default if empty."""

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


ROLES: Final = "-l=app.kubernetes.io/component in (worker,server,projector)"
PER_SERVER: Final = 20
SAMPLE: Final = (
    CHART.parents[1] / "tests/golden/cityfibre/notifications/appointment-completed/notification.xml"
).read_text(encoding="utf-8")
CALLER: Final = f"""
import http.client, ssl, sys, time
context = ssl.create_default_context(cafile="/etc/given/ca.crt")
context.load_cert_chain("/etc/given/tls.crt", "/etc/given/tls.key")
body, seen, since, number, end = {SAMPLE!r}.encode(), [], 0, 0, time.monotonic() + 170
while since < 20 and time.monotonic() < end:
    connection = http.client.HTTPSConnection("adapter-server", 8443, context=context, timeout=10)
    connection.request("POST", "/", body, {{"Content-Type": "text/xml"}})
    certificate = connection.sock.getpeercert(binary_form=True)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    if answer.status != 200:
        sys.exit(f"{{answer.status}} {{said}}")
    if certificate not in seen:
        seen.append(certificate)
    number += 1
    since = since + 1 if certificate != seen[0] else 0
    print(number, len(seen), flush=True)
    time.sleep(0.2)
# Two pods change in their own time, each once: twenty calls in a row met a new certificate.
sys.exit(0 if len(seen) == 2 and since == 20 else f"{{len(seen)}} certificates, {{since}} calls with a new one")
"""
SPOOLED: Final = f"""
import http.client, sys
for server in (0, 1):
    for number in range({PER_SERVER}):
        body = {SAMPLE!r}.replace("SP-123ABC", f"SPOOL-{{server}}-{{number}}").encode()
        connection = http.client.HTTPConnection(f"adapter-server-{{server}}.adapter-telemetry", 8443, timeout=30)
        connection.request("POST", "/", body, {{"Content-Type": "text/xml"}})
        status = connection.getresponse().status
        print(server, number, status, flush=True)
        if status != 200:
            sys.exit(f"{{server}} {{number}} {{status}}")
"""
PUBLISHED: Final = f"""
import os, sys
from confluent_kafka import Consumer, TopicPartition
consumer = Consumer({{"bootstrap.servers": os.environ["ADAPTER_KAFKA__BOOTSTRAP_SERVERS"], "group.id": "count"}})
partitions = consumer.list_topics("fault.events", timeout=10).topics["fault.events"].partitions
consumer.assign([TopicPartition("fault.events", p, 0) for p in partitions])
found = set()
while messages := consumer.consume(10000, timeout=5):
    found |= {{message.key().decode() for message in messages if message.key().startswith(b"SPOOL-")}}
missing = {{f"SPOOL-{{server}}-{{number}}" for server in (0, 1) for number in range({PER_SERVER})}} - found
sys.exit(f"missing: {{sorted(missing)}}" if missing else 0)
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


def job(name: str, script: str, *, secret: str | None = None) -> None:
    """Starts a pod of the image that runs `script` in the adapter's Python, with the adapter's settings.

    The Secret's files are below /etc/given.
    """
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
            "securityContext": {
                "runAsNonRoot": True,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": [{"name": "given", "secret": {"secretName": secret}}] if secret else [],
            "containers": [
                {
                    "name": name,
                    "image": IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/opt/adapter/bin/python", "-c", script],
                    "env": [{"name": key, "value": value} for key, value in environment.items()],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [{"name": "given", "mountPath": "/etc/given"}] if secret else [],
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


def pods() -> list[str]:
    """Names of the flows' pods, those that are going included."""
    return kubectl("get", "pods", ROLES, "--sort-by=.metadata.name", "-o=jsonpath={.items[*].metadata.name}").split()


def status(pod: str) -> dict[str, Any]:
    """What the pod shows of itself."""
    found: dict[str, Any] = json.loads(
        run("kubectl", "get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9464/proxy/status")
    )
    return found


def renewed(pod: str, kind: str, before: Any) -> bool:
    return bool(status(pod)[kind] != before)


def put_pair(name: str, authority: Authority, pair: Pair) -> None:
    """The pair and its authority as a Secret, made or replaced."""
    files: Mapping[str, Path] = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority.certificate}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name},
        "data": {key: base64.b64encode(path.read_bytes()).decode() for key, path in files.items()},
    }
    kubectl("apply", "-f=-", given=json.dumps(secret))


def disconnect_kafka() -> None:
    """Its address leads nowhere, and what was connected is cut."""

    def restarts() -> str:
        return run(
            "kubectl", "-n=estate", "get", "pods", "-l=app=kafka", "-o=jsonpath={..containerStatuses[0].restartCount}"
        )

    before = restarts()
    run("kubectl", "-n=estate", "patch", "service", "kafka", '-p={"spec":{"selector":{"app":"nobody"}}}')
    run("kubectl", "-n=estate", "exec", "deploy/kafka", "--", "sh", "-c", "kill 1")
    wait_until(lambda: restarts() != before, within=60, what="the broker's restart")


def connect_kafka() -> None:
    run("kubectl", "-n=estate", "patch", "service", "kafka", '-p={"spec":{"selector":{"app":"kafka"}}}')


@pytest.fixture(scope="module")
def estate() -> Iterator[None]:
    text = (
        (CHART.parent / "estate.yaml")
        .read_text(encoding="utf-8")
        .replace("image: fault-adapter\n", f"image: {IMAGE}\n")
    )
    for name in ("apache/", "apicurio/"):
        text = text.replace(f"image: {name}", f"image: {PREFIX}{name}")
    run("kubectl", "apply", "-f=-", given=text)
    run("kubectl", "-n=estate", "wait", "--for=condition=Available", "deploy", "--all", "--timeout=120s")
    yield
    run("kubectl", "delete", "namespace", "estate", "--timeout=120s")


@pytest.fixture
def values(estate: None) -> Iterator[dict[str, Any]]:
    """Values of a release for that estate, in a namespace that is there for as long as the test."""
    run("kubectl", "create", "namespace", NAMESPACE)
    run("kubectl", "label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    repository, _, tag = IMAGE.rpartition(":")
    yield {
        "image": {"repository": repository, "tag": tag},
        "settings": {
            "kafka": {"bootstrap_servers": "kafka.estate:9092"},
            "registry": {"url": "http://registry.estate:8080/apis/ccompat/v7"},
            "topics": {"replication_factor": 1},
            "supplier": {"base_url": "http://twin.estate:8444", "allow_plaintext": True, "buyer_identifier": "SPDEV1"},
            "server": {"allow_plaintext": True},
        },
        # Room for old and new side by side on a small node.
        **{part: {"resources": SMALL} for part in ("worker", "server", "projector", "setup")},
    }
    run("kubectl", "delete", "namespace", NAMESPACE, "--timeout=120s")


@pytest.mark.timeout(900)
def test_installs_passes_its_test_is_upgraded_under_load_without_loss_and_leaves_nothing(
    values: dict[str, Any],
) -> None:
    values["tests"] = {"query": True}
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
    (why,) = re.findall(r"kubectl (logs job\S+[^`]*)`", (CHART / "README.md").read_text(encoding="utf-8"))
    command = why.replace("<release>", "adapter").split()
    said = "the cluster does not answer: nowhere.estate:9092"
    wait_until(lambda: said in kubectl(*command), within=60, what="the command that the README names to tell why")
    ready = kubectl("get", "deploy", "-o=jsonpath={.items[*].status.readyReplicas}")
    assert ready.split() == ["2", "2", "2"], "a failed upgrade changes nothing that runs"

    run("helm", "uninstall", "adapter", f"-n={NAMESPACE}", "--wait")
    left = kubectl(
        "get", "deploy,sts,svc,sa,pdb,netpol,cm,secret,job", "-l=app.kubernetes.io/instance=adapter", "-o=name"
    )
    assert set(left.split()) <= {"job.batch/adapter-setup"}, "the failed set-up stays to be read, nothing else"


@pytest.mark.timeout(600)
def test_a_rotated_secret_reaches_running_pods_while_the_supplier_calls(values: dict[str, Any], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    put_pair("listener", authority, authority.server("old", hosts=("adapter-server",)))
    put_pair("ours", authority, authority.client("ours"))
    put_pair("supplier", authority, authority.client("supplier"))
    values["settings"].pop("server")
    values["settings"]["supplier"]["base_url"] = "https://twin.estate:8444"
    values["server"]["tls"] = {"secret": "listener"}
    values["worker"] |= {"tls": {"secret": "ours", "caKey": "ca.crt"}, "replicas": 1}
    values["projector"]["enabled"] = False
    helm("install", values=values)
    before = {name: status(name) for name in pods()}
    job("caller", CALLER, secret="supplier")
    wait_until(lambda: phase("caller") == "Running" and "\n5 " in kubectl("logs", "caller"), within=60, what="calls")

    later = timedelta(days=2)
    put_pair("listener", authority, authority.server("new", hosts=("adapter-server",), valid_for=later))
    put_pair("ours", authority, authority.client("renewed", valid_for=later))

    print(succeed("caller", within=180))
    for name, old in before.items():
        (kind,) = old.keys() & {"listener_certificates", "supplier_certificates"}
        wait_until(partial(renewed, name, kind, old[kind]), within=120, what=f"new certificates in {name}")
        assert "new certificates in use" in kubectl("logs", name)
    restarts = kubectl("get", "pods", ROLES, "-o=jsonpath={.items[*].status.containerStatuses[*].restartCount}")
    assert pods() == list(before)
    assert set(restarts.split()) == {"0"}
    run("helm", "uninstall", "adapter", f"-n={NAMESPACE}", "--wait")


@pytest.mark.timeout(600)
def test_what_was_spooled_outlives_scaling_down_while_kafka_is_away(values: dict[str, Any]) -> None:
    classes = run("kubectl", "get", "storageclass", "-o=name")
    if not classes:
        pytest.skip("the cluster has no storage for a claim")
    values["settings"]["server"] |= {"publish_timeout": "2s", "spool": {"max_bytes": "16MiB"}}
    values["server"]["spool"] = {"enabled": True, "size": "64Mi", "storageClassName": STORAGE}
    values["worker"]["enabled"] = values["projector"]["enabled"] = False
    helm("install", values=values)
    servers = ("adapter-server-0", "adapter-server-1")
    assert pods() == list(servers)

    disconnect_kafka()
    job("caller", SPOOLED)
    print(succeed("caller", within=120))
    assert [status(name)["spool"]["depth"] for name in servers] == [PER_SERVER, PER_SERVER]
    kubectl("scale", "statefulset", "adapter-server", "--replicas=1")
    wait_until(lambda: pods() == ["adapter-server-0"], within=120, what="the end of the second server")

    connect_kafka()
    wait_until(lambda: status(servers[0])["spool"]["depth"] == 0, within=120, what="the first spool to empty")
    kubectl("scale", "statefulset", "adapter-server", "--replicas=2")
    kubectl("rollout", "status", "statefulset", "adapter-server", "--timeout=120s")
    wait_until(lambda: status(servers[1])["spool"]["depth"] == 0, within=120, what="the second spool to empty")
    job("count", PUBLISHED)
    print(succeed("count", within=60))

    run("helm", "uninstall", "adapter", f"-n={NAMESPACE}", "--wait")
    claims = kubectl("get", "pvc", "-o=name").split()
    assert claims == [f"persistentvolumeclaim/data-{name}" for name in servers], "what was acknowledged outlives all"
