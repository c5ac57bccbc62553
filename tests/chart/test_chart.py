"""The chart as Helm renders it."""

import copy
import importlib.util
import json
import re
import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml

from adapter import __version__
from adapter.settings import Settings, describe
from adapter.settings import load as load_settings
from adapter.suppliers.cityfibre import ENVIRONMENTS
from tests.support.helm import (
    CHART,
    Manifest,
    Refused,
    containers,
    environment,
    find,
    needs_helm,
    pod_specs,
    render,
)

ROLES: Final = ("worker", "server", "projector")
MINIMAL: Final[dict[str, Any]] = {
    "settings": {
        "kafka": {"bootstrap_servers": "kafka:9092"},
        "registry": {"url": "http://registry:8081"},
        "supplier": {"buyer_identifier": "SPDEV1", "base_url": "http://twin:8444", "allow_plaintext": True},
        "server": {"allow_plaintext": True},
    }
}


def _with(path: str, value: Any, base: dict[str, Any] = MINIMAL) -> dict[str, Any]:
    """The minimal values with one more at the dotted path."""
    values = copy.deepcopy(base)
    *sections, name = path.split(".")
    place = values
    for section in sections:
        place = place.setdefault(section, {})
    place[name] = value
    return values


def _generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", CHART.parent / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_schema_and_readme_are_those_of_the_settings_and_values() -> None:
    """After a change: make chart-pages."""
    made = _generate()
    assert (CHART / "values.schema.json").read_text(encoding="utf-8") == made.schema()
    assert (CHART / "README.md").read_text(encoding="utf-8") == made.readme()


def test_the_schema_has_the_limits_of_whole_numbers() -> None:
    topics = _generate().settings_schema()["properties"]["topics"]["properties"]
    limits = {name: (topics[name]["minimum"], topics[name]["maximum"]) for name in ("partitions", "replication_factor")}
    assert limits == {"partitions": (1, 100_000), "replication_factor": (1, 10_000)}


def test_chart_and_product_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["version"] == chart["appVersion"] == __version__


def test_every_value_is_explained() -> None:
    values = (CHART / "values.yaml").read_text(encoding="utf-8")
    explained = {name for name, _, meaning in _generate()._rows(values) if meaning}
    for name in (
        "settings",
        "mounts",
        "worker.tls.secret",
        "server.spool.enabled",
        "networkPolicy.server",
        "setup.topics",
    ):
        assert name in explained


SAMPLES: Final[dict[str, Any]] = {
    "duration": "37s",
    "size": "3MiB",
    "whole number": 1_234_567,
    "number": 12.5,
    "true or false": True,
    "JSON object": {"some.name": "value"},
    "topic name": "some.topic",
    "start of a topic name": "some.",
    "web address": "https://host:8443/path",
    "web addresses": "https://one:8081,https://two:8081",
    "text of at most 36 characters": "SP-1",
    "file": "/etc/fault-adapter/some/file",
    "folder": "/etc/fault-adapter/some",
    "path": "/var/lib/file",
    "text": "some text",
    "time zone": "Europe/London",
    "list": ["SPDEV1", "SPDEV2"],
    "list of networks": ["192.0.2.0/24", "2001:db8::/32"],
    "list separated by ;": ["CN=a,O=b", "c.example"],
    "list of whole numbers": [200, 201],
}
SHOWN: Final[dict[str, str]] = {
    "true or false": "true",
    "JSON object": '{"some.name":"value"}',
    "list": "SPDEV1,SPDEV2",
    "list of networks": "192.0.2.0/24,2001:db8::/32",
    "list separated by ;": "CN=a,O=b;c.example",
    "list of whole numbers": "200,201",
}


@needs_helm
@pytest.mark.parametrize("without", ["ADAPTER_SUPPLIER__BASE_URL", "ADAPTER_SUPPLIER__ENVIRONMENT"])
def test_every_setting_reaches_every_role(without: str) -> None:
    """But the one that excludes another, and two that the chart sets itself."""
    values = copy.deepcopy(MINIMAL)
    values["settings"]["supplier"].pop("base_url")
    expected: dict[str, str] = {}
    for row in describe():
        if row.variable in {without, "ADAPTER_SERVER__SPOOL__PATH", "ADAPTER_PROJECTOR__STORE"}:
            continue
        if row.type == "port":
            sample: Any = 9470 + len(expected)  # no two may be the same
        elif row.most is not None:
            sample = row.most
        else:
            sample = SAMPLES[row.type] if row.type in SAMPLES else row.type.replace(" or ", ", ").split(", ")[0]
        path = "settings." + row.variable.removeprefix("ADAPTER_").lower().replace("__", ".")
        values = _with(path, sample, values)
        expected[row.variable] = SHOWN.get(row.type, str(sample))
    manifests = render(values)
    for role in ROLES:
        found = environment(manifests, "Deployment", f"adapter-{role}")
        assert {name: found.get(name) for name in expected} == expected


@needs_helm
@pytest.mark.parametrize("example", ["minimal", "production"])
def test_examples_render(example: str) -> None:
    manifests = render({}, files=(CHART / "examples" / f"{example}.yaml",))
    assert {m["metadata"]["labels"]["app.kubernetes.io/component"] for m in manifests} >= {*ROLES, "setup", "test"}


@needs_helm
def test_the_minimal_example_starts_a_worker() -> None:
    manifests = render({}, files=(CHART / "examples" / "minimal.yaml",))
    load_settings(Settings, environment(manifests, "Deployment", "adapter-worker"))


@needs_helm
@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("settings.kafka.bootstrap_server", "kafka:9092", "additional properties 'bootstrap_server' not allowed"),
        ("settings.supplier.total_timeout", "soon", "/settings/supplier/total_timeout"),
        ("settings.topics.partitions", "eight", "/settings/topics/partitions"),
        ("settings.topics.prefix", "staging/", "/settings/topics/prefix"),
        ("settings.topics.partitions", 100_001, "/settings/topics/partitions"),
        ("settings.telemetry.log_level", "loud", "/settings/telemetry/log_level"),
        ("settings.kafka.bootstrap_servers", "", "settings: kafka.bootstrap_servers has to be set"),
        (
            "settings.supplier",
            {"buyer_identifier": "SPDEV1"},
            "supplier.environment or supplier.base_url has to be set",
        ),
        ("settings.server.allow_plaintext", False, "server.tls: secret has to be set"),
        ("server.tls.secret", "some", "is set together with settings.server.allow_plaintext"),
        ("server.spool", {"enabled": True, "kind": "emptyDir"}, "an emptyDir is lost with its pod"),
        ("server.spool", {"enabled": True, "kind": "hostPath"}, "/server/spool/kind"),
        ("worker.tls.certManager.enabled", True, "worker.tls.certManager.issuerRef: has to name an issuer"),
        ("worker.replica", 3, "additional properties 'replica' not allowed"),
        ("worker", {"autoscaling": {"enabled": True}, "keda": {"enabled": True}}, "keep one of the two"),
        (
            "env",
            [{"name": "ADAPTER_SUPPLIER__BASE_URL", "value": "x"}],
            "env: ADAPTER_SUPPLIER__BASE_URL is a setting; write it as settings.supplier.base_url",
        ),
        ("mounts", {"kafka": {"secret": "a", "configMap": "b"}}, "/mounts/kafka"),
        ("mounts", {"certificate": {"secret": "a"}}, "'certificate'"),
        ("image.digest", "latest", "/image/digest"),
        ("image.tag", "1.0+build", "/image/tag"),
        ("image.tag", ":1.0", "/image/tag"),
        ("image.repository", "registry.example/Fault-Adapter", "/image/repository"),
        ("image.repository", "registry.example/fault-adapter:1.0", "/image/repository"),
        ("image.pullSecrets", [{"name": "Registry_Login"}], "/image/pullSecrets/0/name"),
        ("mounts", {"kafka": {"secret": "Kafka Client"}}, "/mounts/kafka/secret"),
        ("mounts", {"kafka": {"configMap": "kafka_ca"}}, "/mounts/kafka/configMap"),
        ("worker.tls.secret", "secret/ours", "/worker/tls/secret"),
        ("worker.tls.caKey", "/etc/ca.crt", "/worker/tls/caKey"),
        ("server.tls.clientCaSecret", "theirs:ca.crt", "/server/tls/clientCaSecret"),
        ("server.tls.clientCaKey", "", "/server/tls/clientCaKey"),
        ("fullnameOverride", "Faults_1", "/fullnameOverride"),
        ("projector.store.size", "8", "/projector/store/size"),
        ("settings.supplier.environment", "production", "are both set for the worker; keep one of the two"),
        (
            "settings.supplier",
            {"buyer_identifier": "SPDEV1", "environment": "production"},
            "worker.tls: secret has to be set, or certManager.enabled: the supplier's production asks for",
        ),
        ("settings.telemetry.port", 8443, "server.port and telemetry.port are the same"),
        ("settings.kafka.properties", {"sasl.password": "x"}, "sasl.password is a secret and would be readable"),
        ("worker.autoscaling", {"enabled": True, "minReplicas": 9}, "worker.autoscaling: minReplicas is more than"),
        (
            "worker.tls.certManager",
            {"enabled": True, "issuerRef": {"name": "x"}},
            "worker.tls.certManager.dnsNames: is empty, and so is commonName",
        ),
        (
            "server.spool",
            {"enabled": True, "size": "500Mi"},
            "server.spool.size: has to be at least twice settings.server.spool.max_bytes (256MiB)",
        ),
        (
            "server",
            {"spool": {"enabled": True}, "settings": {"server": {"spool": {"max_bytes": "1GiB"}}}},
            "server.spool.size: has to be at least twice settings.server.spool.max_bytes (1GiB)",
        ),
        ("env", [{"name": "SOME", "value": 5}], "/env/0/value"),
        ("labels", {"app.kubernetes.io/instance": "other"}, "'app.kubernetes.io/instance'"),
        ("worker.podLabels", {"app.kubernetes.io/name": "other"}, "'app.kubernetes.io/name'"),
        ("settings.registry.url", "https://user:word@registry", "/settings/registry/url"),
        ("settings.telemetry.host", "127.0.0.1", "settings: telemetry.host is 127.0.0.1, where no probe"),
        ("server.settings.server.host", "::1", "settings: server.host is ::1, where no"),
        (
            "settings.server.spool.path",
            "/tmp/spool.db",
            "settings: server.spool.path is the chart's to set: server.spool",
        ),
        (
            "settings.projector.store",
            "/tmp/tickets",
            "settings: projector.store is the chart's to set: projector.store",
        ),
        (
            "worker",
            {"tls": {"secret": "ours"}, "settings": {"supplier": {"tls": {"key": "/some/key"}}}},
            "ADAPTER_SUPPLIER__TLS__KEY has two values for the worker",
        ),
        ("env", [{"name": "TZ", "value": "a"}, {"name": "TZ", "value": "b"}], "TZ has two values for the"),
    ],
)
def test_wrong_values_are_refused_by_name(path: str, value: Any, words: str) -> None:
    with pytest.raises(Refused) as refused:
        render(_with(path, value))
    assert words in str(refused.value)


@needs_helm
@pytest.mark.parametrize(
    "repository",
    ["fault-adapter", "team/fault-adapter", "registry.example:5000/a/b__c/fault-adapter", "localhost/fault-adapter"],
)
def test_an_image_may_be_anywhere(repository: str) -> None:
    manifests = render(_with("image", {"repository": repository, "tag": "1.0-rc.1_a"}))
    assert {c["image"] for _, spec in pod_specs(manifests) for c in containers(spec)} == {f"{repository}:1.0-rc.1_a"}


@needs_helm
def test_an_issuer_may_be_of_another_group() -> None:
    issuer = {"name": "ours", "kind": "AWSPCAClusterIssuer", "group": "awspca.cert-manager.io"}
    made = {"enabled": True, "issuerRef": issuer, "commonName": "adapter.example"}
    manifests = render(_with("worker.tls.certManager", made))
    assert find(manifests, "Certificate", "adapter-worker")["spec"]["issuerRef"] == issuer


@needs_helm
def test_an_amount_of_cpu_may_be_a_number() -> None:
    manifests = render(_with("worker.resources.requests.cpu", 1.5))
    (container,) = find(manifests, "Deployment", "adapter-worker")["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"] == 1.5


@needs_helm
@pytest.mark.parametrize("example", ["minimal", "production"])
def test_every_pod_fits_the_restricted_profile_and_has_no_word_with_the_cluster(example: str) -> None:
    specs = dict(pod_specs(render({"tests": {"query": True}}, files=(CHART / "examples" / f"{example}.yaml",))))
    assert len(specs) == 2 * len(ROLES) + 3
    for spec in specs.values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert container["resources"]["limits"].keys() == {"memory"}


@needs_helm
def test_on_openshift_the_platform_says_who_the_pods_are_and_where_names_are_found() -> None:
    """Its restricted security context refuses any other user or group, and policies see the port of the DNS pods."""
    manifests = render(_with("openshift", value=True, base=_with("tests.query", value=True)))
    for _, spec in pod_specs(manifests):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & spec["securityContext"].keys()
    for policy in (m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"):
        assert 5353 in _ports(policy["egress"])
        assert 53 not in _ports(policy["egress"])


@needs_helm
def test_an_upgrade_that_reuses_the_values_of_an_older_chart_is_taken(tmp_path: Path) -> None:
    """helm upgrade --reuse-values knows no value that came later."""
    older = shutil.copytree(CHART, tmp_path / "fault-adapter")
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    values.pop("openshift")
    for name in ("podAnnotations", "podLabels", "nodeSelector", "tolerations", "affinity"):
        values["setup"].pop(name)
    (older / "values.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert render(MINIMAL, chart=older) == render(MINIMAL)


@needs_helm
def test_another_version_of_the_chart_changes_nothing_that_can_only_be_made_anew(tmp_path: Path) -> None:
    """The API server refuses that, and so the upgrade."""
    later = shutil.copytree(CHART, tmp_path / "fault-adapter")
    text = (CHART / "Chart.yaml").read_text(encoding="utf-8")
    (later / "Chart.yaml").write_text(text.replace(__version__, "9.9.9"), encoding="utf-8")
    stateful = _with("server.spool.enabled", value=True, base=_with("projector.store.enabled", value=True))
    for values in (MINIMAL, stateful):
        before, after = render(values), render(values, chart=later)
        assert before != after
        assert _unchangeable(before) == _unchangeable(after)


def _unchangeable(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    """What can't be changed in place of each workload and Service; a Job is deleted before it is made."""
    fields = ("selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy", "clusterIP")
    return {
        (m["kind"], m["metadata"]["name"]): {field: m["spec"].get(field) for field in fields}
        for m in manifests
        if m["kind"] in {"Deployment", "StatefulSet", "Service"}
    }


@needs_helm
def test_setup_and_tests_go_to_the_nodes_where_they_may() -> None:
    """Where every node of a team is tainted, or every pod gets a sidecar, a Job without words of its own never ends."""
    setup: dict[str, Any] = {
        "podAnnotations": {"sidecar.istio.io/inject": "false"},
        "podLabels": {"team": "faults"},
        "nodeSelector": {"pool": "jobs"},
        "tolerations": [{"key": "pool", "value": "jobs"}],
        "affinity": {"nodeAffinity": {}},
    }
    values = _with("worker", {"nodeSelector": {"pool": "workers"}}, base=_with("setup", setup))
    values["tests"] = {"query": True}
    manifests = render(values)
    job = find(manifests, "Job", "adapter-setup")["spec"]["template"]
    tests = [find(manifests, "Pod", f"adapter-test-{name}") for name in ("readiness", "query", *ROLES)]
    for pod in (job, *tests):
        assert setup["podLabels"].items() <= pod["metadata"]["labels"].items()
        assert setup["podAnnotations"].items() <= pod["metadata"]["annotations"].items()
    for pod in (job, *tests[:2]):
        assert {name: pod["spec"][name] for name in ("nodeSelector", "tolerations", "affinity")} == {
            name: setup[name] for name in ("nodeSelector", "tolerations", "affinity")
        }
    # It looks from where the role will run.
    assert find(manifests, "Pod", "adapter-test-worker")["spec"]["nodeSelector"] == {"pool": "workers"}
    assert "nodeSelector" not in find(manifests, "Pod", "adapter-test-server")["spec"]


@needs_helm
@pytest.mark.parametrize("own", ["", "own"])
def test_of_a_label_that_two_values_give_the_more_specific_wins(own: str) -> None:
    values = _with("labels", {"team": "all", "cost": "all"}, base=_with("tests.query", value=True))
    for part in (*ROLES, "setup"):
        values = _with(f"{part}.podLabels", {"team": own}, base=values)
    for part in ("podMonitor", "rules", "dashboard"):
        labels = {"team": own, "app.kubernetes.io/name": own}
        values = _with(f"monitoring.{part}", {"enabled": True, "labels": labels}, base=values)
    manifests = render(values)
    pods = [m["spec"]["template"] for m in manifests if "template" in m.get("spec", {})]
    pods += [m for m in manifests if m["kind"] == "Pod"]
    assert len(pods) == 2 * len(ROLES) + 3
    watched = {"PodMonitor": "adapter", "PrometheusRule": "adapter", "ConfigMap": "adapter-dashboard"}
    monitors = [find(manifests, kind, name) for kind, name in watched.items()]
    for thing in (*pods, *monitors):
        assert {"team": own, "cost": "all"}.items() <= thing["metadata"]["labels"].items()
    assert {thing["metadata"]["labels"]["app.kubernetes.io/name"] for thing in monitors} == {own}
    assert find(manifests, "Deployment", "adapter-worker")["metadata"]["labels"]["team"] == "all"


@needs_helm
def test_annotations_replace_those_of_the_chart_but_those_that_make_a_test() -> None:
    container, hook = "kubectl.kubernetes.io/default-container", "helm.sh/hook"
    values = _with("worker.podAnnotations", {container: "proxy"})
    values = _with("setup.podAnnotations", {hook: "pre-install", "fault-adapter/query": "none"}, base=values)
    manifests = render(_with("tests.query", value=True, base=values))
    for role, name in (("worker", "proxy"), ("server", "server")):
        pod = find(manifests, "Deployment", f"adapter-{role}")["spec"]["template"]
        assert pod["metadata"]["annotations"] == {container: name}
    query = find(manifests, "Pod", "adapter-test-query")["metadata"]["annotations"]
    assert query[hook] == "test"
    assert json.loads(query["fault-adapter/query"])


@needs_helm
@pytest.mark.parametrize("role", ROLES)
def test_a_role_can_be_off(role: str) -> None:
    manifests = render(_with(f"{role}.enabled", value=False))
    names = {m["metadata"]["name"] for m in manifests}
    assert f"adapter-{role}" not in names
    assert {f"adapter-{other}" for other in ROLES if other != role} <= names


@needs_helm
def test_settings_of_one_role_win_for_it_alone() -> None:
    values = _with("settings.telemetry.log_level", "warning")
    manifests = render(_with("worker.settings.telemetry.log_level", "debug", values))
    levels = {r: environment(manifests, "Deployment", f"adapter-{r}")["ADAPTER_TELEMETRY__LOG_LEVEL"] for r in ROLES}
    assert levels == {"worker": "debug", "server": "warning", "projector": "warning"}


@needs_helm
def test_a_pod_is_given_longer_to_stop_than_it_takes() -> None:
    defaults = {row.variable: row.default for row in describe()}
    assert defaults["ADAPTER_WORKER__STOP_TIMEOUT"] == "1m"
    assert defaults["ADAPTER_SERVER__STOP_TIMEOUT"] == "20s"

    def given(values: dict[str, Any]) -> list[int]:
        specs = dict(pod_specs(render(values)))
        return [specs[f"adapter-{role}"]["terminationGracePeriodSeconds"] for role in ROLES]

    assert defaults["ADAPTER_KAFKA__TRANSACTION_TIMEOUT"] == "10s"
    assert given(MINIMAL) == [60 + 30, 20 + 5 + 30, 10 + 30]
    values = _with("settings.worker.stop_timeout", "2.5m", _with("server.drainSeconds", 15))
    values["server"]["settings"] = {"server": {"stop_timeout": 7}}
    values["projector"] = {"settings": {"kafka": {"transaction_timeout": "2m"}}}
    assert given(values) == [150 + 30, 7 + 15 + 30, 120 + 30]
    containers_ = {name: spec["containers"][0] for name, spec in pod_specs(render(values))}
    assert containers_["adapter-server"]["lifecycle"]["preStop"]["sleep"]["seconds"] == 15
    assert "lifecycle" not in containers_["adapter-worker"]


@needs_helm
def test_a_new_version_of_the_chart_alone_starts_no_pod_anew(tmp_path: Path) -> None:
    """Flux adds the commit to the version of a chart that it takes from Git: each commit is one."""
    newer = shutil.copytree(CHART, tmp_path / "fault-adapter")
    about = (CHART / "Chart.yaml").read_text(encoding="utf-8")
    (newer / "Chart.yaml").write_text(about.replace(f"\nversion: {__version__}", f"\nversion: {__version__}+1c9ced6"))
    old, new = render(MINIMAL), render(MINIMAL, chart=newer)
    named = {m["metadata"]["labels"]["helm.sh/chart"] for m in new}
    assert named == {f"fault-adapter-{__version__}_1c9ced6"}  # a label has no +
    for role in ROLES:
        pods = [find(manifests, "Deployment", f"adapter-{role}")["spec"]["template"] for manifests in (old, new)]
        assert pods[0] == pods[1]


@needs_helm
def test_what_is_rendered_of_a_release_does_not_depend_on_the_day() -> None:
    """The query of the test has a date, and would be a difference that Argo CD shows and heals every day."""
    manifests = render(_with("tests.query", value=True))
    query = find(manifests, "Pod", "adapter-test-query")["metadata"]["annotations"]["fault-adapter/query"]
    day = json.loads(query)["appointmentsFrom"]
    assert [m["metadata"]["name"] for m in manifests if day in json.dumps(m)] == ["adapter-test-query"]


@needs_helm
def test_all_that_is_a_test_has_a_log() -> None:
    """`helm test --logs` asks for the log of each by its name, and fails where there is no pod of it."""
    manifests = render(_with("tests.query", value=True))
    tests = [m for m in manifests if m["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"]
    assert {m["kind"] for m in tests} == {"Pod"}
    assert all(m["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation" for m in tests)


@needs_helm
def test_new_workers_join_before_old_ones_leave() -> None:
    strategy = find(render(MINIMAL), "Deployment", "adapter-worker")["spec"]["strategy"]
    assert strategy == {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0}}


@needs_helm
def test_certificates_come_from_a_secret() -> None:
    values = _with("worker.tls", {"secret": "ours", "caKey": "ca.crt"})
    values["settings"].pop("server")
    values["server"] = {"tls": {"secret": "listener", "clientCaSecret": "theirs", "clientCaKey": "clients.pem"}}
    manifests = render(values)
    worker, server = (environment(manifests, "Deployment", f"adapter-{role}") for role in ("worker", "server"))
    assert worker["ADAPTER_SUPPLIER__TLS__KEY"] == "/etc/fault-adapter/certificate/tls.key"
    assert worker["ADAPTER_SUPPLIER__TLS__CA"] == "/etc/fault-adapter/certificate/ca.crt"
    assert server["ADAPTER_SERVER__TLS__CA"] == "/etc/fault-adapter/client-ca/clients.pem"
    # The file of one role's certificate is not there for the others, and would stop them.
    assert "ADAPTER_SUPPLIER__TLS__KEY" not in server
    volumes = _volumes(manifests, "adapter-server")
    assert volumes["certificate"]["secret"]["secretName"] == "listener"
    assert volumes["client-ca"]["secret"]["secretName"] == "theirs"
    # A file mounted by subPath would never change.
    for _, spec in pod_specs(manifests):
        assert not [mount for c in containers(spec) for mount in c.get("volumeMounts", []) if "subPath" in mount]


@needs_helm
def test_files_come_from_a_driver_where_secrets_are_kept_elsewhere() -> None:
    """It gives them to pods that mount its volume, the set-up's among them."""
    vault = {
        "driver": "secrets-store.csi.k8s.io",
        "readOnly": True,
        "volumeAttributes": {"secretProviderClass": "kafka"},
    }
    manifests = render(_with("mounts", {"kafka": {"csi": vault}}))
    for name in (*(f"adapter-{role}" for role in ROLES), "adapter-setup"):
        assert _volumes(manifests, name)["mount-kafka"] == {"name": "mount-kafka", "csi": vault}


@needs_helm
def test_cert_manager_makes_certificates_where_the_pods_look() -> None:
    manifests = render({}, files=(CHART / "examples" / "production.yaml",))
    for role, usage in (("worker", "client auth"), ("server", "server auth")):
        certificate = find(manifests, "Certificate", f"adapter-{role}")["spec"]
        assert usage in certificate["usages"]
        assert (
            certificate["secretName"] == _volumes(manifests, f"adapter-{role}")["certificate"]["secret"]["secretName"]
        )


@needs_helm
def test_a_spool_outlives_its_pod_and_the_release() -> None:
    manifests = render(_with("server.spool", {"enabled": True}))
    server = find(manifests, "StatefulSet", "adapter-server")
    assert server["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenScaled": "Retain", "whenDeleted": "Retain"}
    path = Path(environment(manifests, "StatefulSet", "adapter-server")["ADAPTER_SERVER__SPOOL__PATH"])
    mounts = server["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    (data,) = [mount for mount in mounts if mount["name"] == "data"]
    assert path.parent == Path(data["mountPath"])
    assert server["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "data"


@needs_helm
def test_the_commands_that_make_a_volume_larger_are_taken_and_change_the_volumes() -> None:
    text = (
        (CHART / "README.md").read_text(encoding="utf-8").partition("## Make a volume larger")[2].partition("\n## ")[0]
    )
    upgrades = [dict(re.findall(r"--set (\S+)=(\S+)", line)) for line in text.splitlines() if "helm upgrade" in line]
    kept = _with("server.spool.enabled", value=True, base=_with("projector.store.enabled", value=True))
    sizes = []
    for upgrade in upgrades:
        values = kept
        for path, value in upgrade.items():
            values = _with(path, value, base=values)
        manifests = render(values)
        for role in ("server", "projector"):
            (claim,) = find(manifests, "StatefulSet", f"adapter-{role}")["spec"]["volumeClaimTemplates"]
            sizes.append(claim["spec"]["resources"]["requests"]["storage"])
    assert sizes == ["1Gi", "8Gi", "4Gi", "8Gi", "1Gi", "16Gi"]
    selected = re.search(r"kubectl get pvc -n faults -l (\S+)=(\S+)", text)
    assert selected is not None
    (claim,) = find(render(kept), "StatefulSet", "adapter-server")["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["labels"][selected[1]] == selected[2]


@needs_helm
def test_a_spool_that_may_be_lost_is_an_empty_directory() -> None:
    manifests = render(_with("server.spool", {"enabled": True, "kind": "emptyDir", "acceptLoss": True}))
    assert "emptyDir" in _volumes(manifests, "adapter-server")["data"]


@needs_helm
def test_the_projector_keeps_its_copy_on_a_claim_by_choice() -> None:
    assert find(render(MINIMAL), "Deployment", "adapter-projector")
    manifests = render(_with("projector.store.enabled", value=True))
    assert find(manifests, "StatefulSet", "adapter-projector")["spec"]["volumeClaimTemplates"]
    assert environment(manifests, "StatefulSet", "adapter-projector")["ADAPTER_PROJECTOR__STORE"]


@needs_helm
def test_policies_open_the_ports_of_the_settings_alone() -> None:
    values = _with("settings.kafka.bootstrap_servers", "a:9093,b:9094")
    values["settings"]["registry"]["url"] = "https://registry"
    manifests = render(values)
    worker, server = (find(manifests, "NetworkPolicy", f"adapter-{role}")["spec"] for role in ("worker", "server"))
    assert _ports(worker["egress"]) == {53, 9093, 9094, 443, 8444}
    assert _ports(server["egress"]) == {53, 9093, 9094, 443}
    assert _ports(worker["ingress"]) == {"telemetry"}
    assert _ports(server["ingress"]) == {"telemetry", "notifications"}


@needs_helm
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_policy_lets_the_worker_reach_a_published_environment(environment: str) -> None:
    values = _with("settings.supplier", {"buyer_identifier": "SPDEV1", "environment": environment})
    values["worker"] = {"tls": {"secret": "ours"}}
    worker = find(render(values), "NetworkPolicy", "adapter-worker")["spec"]
    assert _ports(worker["egress"]) == {53, 9092, 8081, urlsplit(ENVIRONMENTS[environment]).port}


@needs_helm
def test_policies_let_all_that_log_in_to_kafka_by_token_reach_the_endpoint_of_the_tokens() -> None:
    endpoint = {"sasl.oauthbearer.token.endpoint.url": "https://login/oauth2/token"}
    manifests = render(_with("settings.kafka.properties", endpoint))
    for name in (*ROLES, "setup", "test"):
        policy = find(manifests, "NetworkPolicy", f"adapter-{name}")["spec"]
        assert {"ports": [{"port": 443}]} in policy["egress"]


@needs_helm
def test_policies_follow_the_settings_of_a_role() -> None:
    values = _with("worker.settings.supplier.base_url", "http://twin:9999")
    values["server"] = {"settings": {"server": {"allowed_networks": ["192.0.2.0/24"]}}}
    values["projector"] = {"settings": {"kafka": {"bootstrap_servers": "other:9093"}}}
    manifests = render(values)
    worker, server, projector, test = (
        find(manifests, "NetworkPolicy", f"adapter-{name}")["spec"]
        for name in ("worker", "server", "projector", "test")
    )
    assert _ports(worker["egress"]) == {53, 9092, 8081, 9999}
    assert _ports(projector["egress"]) == {53, 9093, 8081}
    assert _ports(test["egress"]) >= {53, 9092, 9093, 8081, 9999}
    assert {"ipBlock": {"cidr": "192.0.2.0/24"}} in [
        peer for rule in server["ingress"] for peer in rule.get("from", [])
    ]


@needs_helm
def test_the_setup_job_has_its_way_out_before_it_starts() -> None:
    """Hooks come before everything else of a release; where all is denied by default it would reach nothing."""
    manifests = render(MINIMAL)
    policy, job = find(manifests, "NetworkPolicy", "adapter-setup"), find(manifests, "Job", "adapter-setup")
    assert _ports(policy["spec"]["egress"]) == {53, 9092, 8081}
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    marks = policy["metadata"]["annotations"]
    assert marks["helm.sh/hook"] == job["metadata"]["annotations"]["helm.sh/hook"]
    assert int(marks["helm.sh/hook-weight"]) < 0
    assert not policy["spec"]["ingress"]


@needs_helm
def test_a_proxy_is_where_the_worker_may_go_instead_of_the_supplier() -> None:
    worker = find(render(_with("settings.supplier.proxy.url", "http://proxy:3128")), "NetworkPolicy", "adapter-worker")
    assert 3128 in _ports(worker["spec"]["egress"])
    assert 8444 not in _ports(worker["spec"]["egress"])


@needs_helm
def test_only_allowed_networks_reach_the_server() -> None:
    values = _with("settings.server.allowed_networks", ["192.0.2.0/24", "2001:db8::1"])
    policy = find(render(values), "NetworkPolicy", "adapter-server")["spec"]
    (rule,) = [rule for rule in policy["ingress"] if rule["ports"] == [{"port": "notifications"}]]
    assert rule["from"] == [{"ipBlock": {"cidr": "192.0.2.0/24"}}, {"ipBlock": {"cidr": "2001:db8::1/128"}}]


@needs_helm
@pytest.mark.parametrize("kind", ["LoadBalancer", "NodePort"])
def test_the_callers_address_survives(kind: str) -> None:
    service = find(render(_with("server.service.type", kind)), "Service", "adapter-server")
    assert service["spec"]["externalTrafficPolicy"] == "Local"


@needs_helm
def test_the_setup_job_does_what_is_asked() -> None:
    def steps(**setup: str) -> list[list[str]]:
        found = [m for m in render(_with("setup", setup)) if m["kind"] == "Job"]
        return [c["args"] for m in found for c in containers(m["spec"]["template"]["spec"])]

    assert steps() == [["topics", "create"], ["schemas", "register"]]
    assert steps(topics="check", schemas="check") == [["topics", "plan"], ["schemas", "check", "--registry"]]
    assert steps(topics="off") == [["schemas", "register"]]
    assert steps(topics="off", schemas="off") == []


@needs_helm
def test_the_query_of_the_test_is_a_whole_command() -> None:
    """Compared with the golden one that says the least."""
    minimal = CHART.parents[1] / "tests/golden/cityfibre/QueryAppointmentAvailability/minimal/command.json"
    wanted = json.loads(minimal.read_text(encoding="utf-8")).keys() - {"commandId", "issuedAt"}
    pod = find(render(_with("tests.query", value=True)), "Pod", "adapter-test-query")
    sent = json.loads(pod["metadata"]["annotations"]["fault-adapter/query"])
    assert sent.pop("command") == "QueryAppointmentAvailability"
    assert sent.keys() == wanted
    assert date.fromisoformat(sent["appointmentsFrom"]) > datetime.now(UTC).date()


@needs_helm
def test_scalers_take_the_place_of_replicas() -> None:
    for values, kind in (("autoscaling", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")):
        manifests = render(_with(f"worker.{values}.enabled", value=True))
        assert find(manifests, kind, "adapter-worker")["spec"]["scaleTargetRef"]["name"] == "adapter-worker"
        assert "replicas" not in find(manifests, "Deployment", "adapter-worker")["spec"]


@needs_helm
def test_servers_that_hold_notifications_on_a_volume_are_never_scaled_down_by_themselves() -> None:
    def down(values: dict[str, Any]) -> dict[str, Any]:
        scaler = find(render(values), "HorizontalPodAutoscaler", "adapter-server")
        found: dict[str, Any] = scaler["spec"]["behavior"]["scaleDown"]
        return found

    scaled = _with("server.autoscaling.enabled", value=True)
    assert "selectPolicy" not in down(scaled)
    assert down(_with("server.spool.enabled", value=True, base=scaled)) == {"selectPolicy": "Disabled"}


@needs_helm
def test_two_releases_share_no_object() -> None:
    def names(release: str) -> set[tuple[str, str]]:
        return {(m["kind"], m["metadata"]["name"]) for m in render(MINIMAL, release=release)}

    assert not names("one") & names("two")


@needs_helm
def test_selectors_pick_the_pods_of_one_role() -> None:
    manifests = render(MINIMAL)
    for role in ROLES:
        spec = find(manifests, "Deployment", f"adapter-{role}")["spec"]
        wanted = spec["selector"]["matchLabels"]
        assert wanted.items() <= spec["template"]["metadata"]["labels"].items()
        assert wanted["app.kubernetes.io/component"] == role
        budget = find(manifests, "PodDisruptionBudget", f"adapter-{role}")["spec"]
        assert budget["selector"]["matchLabels"] == wanted
        assert budget["maxUnavailable"] == 1


@needs_helm
def test_telemetry_is_asked_of_the_pods_of_flows_alone() -> None:
    """The test's own pod bears the release's labels; asked too, it would find itself not to answer."""
    manifests = render(_with("tests.query", value=True))
    wanted = find(manifests, "Service", "adapter-telemetry")["spec"]["selector"].items()
    pods = {
        m["metadata"]["name"]: m if m["kind"] == "Pod" else m["spec"].get("template") for m in manifests if "spec" in m
    }
    picked = {name for name, pod in pods.items() if pod and wanted <= pod["metadata"]["labels"].items()}
    assert picked == {f"adapter-{role}" for role in ROLES}


@needs_helm
def test_readiness_is_asked_at_the_port_of_each_role() -> None:
    values = _with("worker.settings.telemetry.port", 9470)
    (pod,) = [m for m in render(values) if m["metadata"]["name"] == "adapter-test-readiness"]
    (script,) = pod["spec"]["containers"][0]["args"]
    assert 'for port in ["9470","9464"]' in script


def _volumes(manifests: list[Manifest], name: str) -> dict[str, Any]:
    spec = dict(pod_specs(manifests))[name]
    return {volume["name"]: volume for volume in spec["volumes"]}


def _ports(rules: list[Manifest]) -> set[int | str]:
    return {port["port"] for rule in rules for port in rule.get("ports", [])}
