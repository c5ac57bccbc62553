"""A real Apache Kafka for the tests, found in this order: the one named by TEST_KAFKA_BOOTSTRAP, a container from a
Docker-compatible engine, the broker's own jars under Java. A `Cluster` of the last kind can also be killed, frozen and
started again on its data, with several nodes, for the tests that need that."""

import base64
import gc
import os
import shutil
import socket
import struct
import subprocess
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support import downloads
from tests.support.ports import free_port
from tests.support.processes import Process, clean_environment
from tests.support.wait import PATIENCE, wait_until

IMAGE = f"apache/kafka:{downloads.KAFKA_VERSION}"
HOW = f"no Kafka: set TEST_KAFKA_BOOTSTRAP, start a Docker-compatible engine, or {downloads.NEEDED}"
QUICK: Mapping[str, object] = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "group.consumer.min.session.timeout.ms": 1000,
    "group.consumer.session.timeout.ms": 6000,
    "group.consumer.min.heartbeat.interval.ms": 200,
    "group.consumer.heartbeat.interval.ms": 300,
    "broker.session.timeout.ms": 2000,  # a killed node may not register again before this is over
    "broker.heartbeat.interval.ms": 300,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.num.partitions": 4,
}
"""Unlike the defaults: topics are made by whoever needs them, groups form at once, a dead member is missed soon."""
UNHARMED: Final[Mapping[str, object]] = {"broker.session.timeout.ms": 30_000}
"""Of the one that the tests of a run share and nobody kills: a busy machine does not make its controller miss it."""
LEAN: Final = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Flags of a JVM that starts soon and takes little, but never gets fast."""
_BATCH_HEAD: Final = struct.Struct(">qi")
"""Of a batch in a log: its first offset, and its length from here on."""
AS_SHIPPED: Final = (
    "-Xms1g",
    "-Xmx1g",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
)
"""Those of kafka-server-start.sh and kafka-run-class.sh."""


@contextmanager
def external() -> Iterator[str]:
    """The given broker's address. AssertionError if it does not answer."""
    bootstrap = os.environ["TEST_KAFKA_BOOTSTRAP"]
    await_nodes(bootstrap, nodes=1)
    yield bootstrap


@contextmanager
def container() -> Iterator[str]:
    """A broker from a container engine, gone at the end."""
    # What this library and those below it warn about is not ours to mend.
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 -- slow, and seldom needed

        port = free_port()
        broker = DockerContainer(IMAGE).with_bind_ports(port, port)
        listeners = {
            "KAFKA_NODE_ID": 1,
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_LISTENERS": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://localhost:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{broker.get_container_host_ip()}:{port}",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        }
        of_properties = {
            f"KAFKA_{name.replace('.', '_').upper()}": value
            for name, value in (dict(QUICK) | _replication(nodes=1) | dict(UNHARMED)).items()
        }
        for name, value in (listeners | of_properties).items():
            broker = broker.with_env(name, str(value))
        stack.enter_context(broker)
        bootstrap = f"{broker.get_container_host_ip()}:{port}"
        await_nodes(bootstrap, nodes=1)
        yield bootstrap


@contextmanager
def under_java(folder: Path) -> Iterator[str]:
    """A broker of the jars, stopped at the end. Raises downloads.Missing."""
    with Cluster(folder, properties=UNHARMED) as cluster:
        yield cluster.bootstrap


class Cluster:
    """Kafka under Java, `nodes` nodes (each broker and controller), data below `folder`, ports kept for life.

    `properties` are server properties on top of ours. `doors` are further listeners of a single node: by name the port
    it listens on and the one that its clients are told, so that a relay can stand between. `flags` are Java's, in place
    of the lean ones. Not started by the constructor; raises Missing if it could not be. Start it from the main thread:
    a node dies with the thread that started it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 1,
        properties: Mapping[str, object] | None = None,
        doors: Mapping[str, tuple[int, int]] | None = None,
        flags: Sequence[str] | None = None,
    ) -> None:
        self._java = downloads.java()
        self._classpath = f"{downloads.kafka_jars()}/*"
        self._features = downloads.kafka_features()
        self._folder = folder
        self._properties = dict(properties or {})
        self._doors = dict(doors or {})
        self._flags = (*LEAN, f"-XX:SharedArchiveFile={_classes()}") if flags is None else flags
        assert nodes == 1 or not self._doors, "each node would need doors of its own"
        self._ports = {node: free_port() for node in range(1, nodes + 1)}
        self._controllers = {node: free_port() for node in range(1, nodes + 1)}
        self._running: dict[int, Process] = {}

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self._ports.values())

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(self._ports)

    def start(self) -> None:
        """All nodes, on new data. Returns when clients see every one."""
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        for node in self.nodes:
            self._write_properties(node)
            self._format(node, cluster)
        for node in self.nodes:
            self._start(node)
        await_nodes(self.bootstrap, nodes=len(self.nodes), watch=self._running.values())

    def stop(self, node: int = 1, *, within: float = 30.0) -> None:
        """SIGTERM: the node hands over what it leads and leaves."""
        process = self._running.pop(node)
        process.close(grace=within)

    def kill(self, node: int = 1) -> None:
        """SIGKILL: what was not flushed is in the page cache, clients see their connections break."""
        self._running.pop(node).kill()

    def freeze(self, node: int = 1) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._running[node].freeze()

    def thaw(self, node: int = 1) -> None:
        self._running[node].thaw()

    def restart(self, node: int = 1, *, wait: bool = True) -> None:
        """Starts the node again on the same data and ports, after stopping it if it runs. Returns when clients see
        it, or at once."""
        if node in self._running:
            self.stop(node)
        self._start(node)
        if not wait:
            return
        own = f"127.0.0.1:{self._ports[node]}"
        await_nodes(own, nodes=len(self._running), watch=self._running.values())

    def lose_end(self, topic: str, offset: int, *, node: int = 1) -> None:
        """Of a node that was killed: its copy of partition 0 ends at that offset now, as where a machine went down
        before the rest was on its disk. What else it has is left alone."""
        (log,) = (self._folder / f"{node}" / f"{topic}-0").glob("*.log")
        with log.open("r+b") as file:
            while head := file.read(_BATCH_HEAD.size):
                first, length = _BATCH_HEAD.unpack(head)
                if first >= offset:
                    file.seek(-_BATCH_HEAD.size, os.SEEK_CUR)
                    file.truncate()
                    return
                file.seek(length, os.SEEK_CUR)
        raise AssertionError(f"{topic} has nothing at or behind {offset}")

    def mend(self) -> None:
        """All nodes run and answer again, whatever was done to them."""
        for node in self.nodes:
            process = self._running.get(node)
            if process is not None and process.exit_code is None:
                process.thaw()
            else:
                self._start(node)
        await_nodes(self.bootstrap, nodes=len(self.nodes), watch=self._running.values())

    def hold_back(self, client: str, **rates: int) -> None:
        """A quota for the clients with this `client.id`, by the names Kafka has for it: bytes a second that they may
        write to each broker (`producer_byte_rate`), and read from it (`consumer_byte_rate`)."""
        quota = ",".join(f"{name}={rate}" for name, rate in rates.items())
        command = [*self._jvm(), "kafka.admin.ConfigCommand", "--bootstrap-server", self.bootstrap, "--alter"]
        command += ["--entity-type", "clients", "--entity-name", client, "--add-config", quota]
        subprocess.run(command, check=True, capture_output=True, timeout=2 * PATIENCE)

    def output(self, node: int = 1) -> str:
        return self._log(node).read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """Ends all nodes: one by itself in good order, a quorum (whose last members could not) at once."""
        grace = 15.0 if len(self.nodes) == 1 else 0.0
        for process in self._running.values():
            process.close(grace=grace)
        self._running.clear()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, node: int) -> None:
        self._running[node] = Process(
            [*self._jvm(), "kafka.Kafka", str(self._folder / f"{node}.properties")],
            log=self._log(node),
            env=clean_environment(),
            cwd=self._folder,
        )

    def _jvm(self) -> list[str]:
        return [
            self._java,
            *self._flags,
            "-Dlog4j2.level=WARN",
            "-cp",
            self._classpath,
        ]

    def _log(self, node: int) -> Path:
        return self._folder / f"{node}.log"

    def _format(self, node: int, cluster: str) -> None:
        """As the storage tool does it, without starting Java for each node."""
        folder = self._folder / f"{node}"
        folder.mkdir()
        (folder / "meta.properties").write_text(f"version=1\ncluster.id={cluster}\nnode.id={node}\n", encoding="utf-8")
        shutil.copy(self._features, folder)

    def _write_properties(self, node: int) -> None:
        client, controller = self._ports[node], self._controllers[node]
        voters = ",".join(f"{other}@127.0.0.1:{port}" for other, port in self._controllers.items())
        ours: dict[str, object] = {
            "process.roles": "broker,controller",
            "node.id": node,
            "controller.quorum.voters": voters,
            "listeners": ",".join(
                [f"PLAINTEXT://127.0.0.1:{client}", f"CONTROLLER://127.0.0.1:{controller}"]
                + [f"{name}://127.0.0.1:{bound}" for name, (bound, _) in self._doors.items()]
            ),
            "advertised.listeners": ",".join(
                [f"PLAINTEXT://127.0.0.1:{client}"]
                + [f"{name}://127.0.0.1:{told}" for name, (_, told) in self._doors.items()]
            ),
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": ",".join(
                f"{name}:PLAINTEXT" for name in ("CONTROLLER", "PLAINTEXT", *self._doors)
            ),
            "log.dirs": self._folder / f"{node}",
        }
        file = self._folder / f"{node}.properties"
        whole = ours | dict(QUICK) | _replication(nodes=len(self.nodes)) | self._properties
        file.write_text("".join(f"{name}={value}\n" for name, value in whole.items()), encoding="utf-8")


def _classes() -> Path:
    """An archive of a broker's classes, with which Java starts one in half the time. Made once a machine; another Java
    than the one that made it does without."""
    return downloads.cached(f"kafka-{downloads.KAFKA_VERSION}-classes", _archive) / "classes.jsa"


def _archive(folder: Path) -> None:
    with Cluster(folder, flags=(*LEAN, f"-XX:ArchiveClassesAtExit={folder / 'classes.jsa'}")) as cluster:
        cluster.stop(within=2 * PATIENCE)
    shutil.rmtree(folder / "1")


def await_nodes(bootstrap: str, *, nodes: int, within: float = 2 * PATIENCE, watch: Iterable[Process] = ()) -> None:
    """Returns when clients see that many nodes. AssertionError if they do not `within` seconds or one of the
    watched processes ends."""
    deadline = time.monotonic() + within
    wait_until(lambda: _all_listen(bootstrap, watch), within=within, what=f"Kafka at {bootstrap} listening")
    left = max(deadline - time.monotonic(), 1.0)
    wait_until(lambda: _seen(bootstrap) >= nodes, within=left, what=f"{nodes} nodes at {bootstrap}")


def engine_offers_kafka() -> bool:
    """Whether a container engine answers and has the image or can get it. Quick where there is no engine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        offers = _engine_offers(IMAGE)
        gc.collect()  # the library leaves its sockets to the collector, which would warn about them in some test
    return offers


def _replication(*, nodes: int) -> dict[str, object]:
    copies = min(nodes, 3)
    in_sync = 2 if copies == 3 else 1
    return {
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


def _engine_offers(image: str) -> bool:
    from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415 -- slow, and seldom needed

    # Whatever goes wrong there, and the library raises freely, means that this way is not open.
    try:
        DockerClient(timeout=3).client.ping()
        client = DockerClient(timeout=60).client
        if not client.images.list(image):
            client.images.pull(image)
        client.close()
    except Exception:  # noqa: BLE001
        return False
    return True


def _all_listen(bootstrap: str, watch: Iterable[Process]) -> bool:
    for process in watch:
        if process.exit_code is not None:
            raise AssertionError(f"a node ended with {process.exit_code}:\n{process.tail()}")
    # Only then a client: librdkafka reports every refused connection on standard error.
    for address in bootstrap.split(","):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError:
            return False
    return True


def _seen(bootstrap: str) -> int:
    # By a new client each time: one that was once told of no broker at all may be left without any to ask.
    try:
        return len(AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=5).brokers)
    except KafkaException:
        return 0
