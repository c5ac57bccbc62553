"""Renders the chart with Helm itself."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

CHART: Final = Path(__file__).parents[2] / "helm" / "fault-adapter"
KUBERNETES: Final = os.environ.get("KUBERNETES_VERSION", "1.34.1")
Manifest = dict[str, Any]

needs_helm = pytest.mark.skipif(shutil.which("helm") is None, reason="needs Helm: see make chart")


class _Strict(yaml.SafeLoader):
    """Takes no key twice, like the strict readers that some clusters' manifests go through."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 -- the base class's signature
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"keys that are there twice: {sorted(keys)}{node.start_mark}"
        return super().construct_mapping(node, deep)


class Refused(AssertionError):  # noqa: N818 -- what a test expects, not a fault
    """Helm's words."""


def render(
    values: Mapping[str, Any], *, release: str = "adapter", files: tuple[Path, ...] = (), chart: Path = CHART
) -> list[Manifest]:
    """The manifests of a release, hooks among them. Raises Refused."""
    command = ["helm", "template", release, str(chart), "--namespace=faults", f"--kube-version={KUBERNETES}"]
    command += [f"--values={file}" for file in files]
    command += ["--values=-"]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return [manifest for manifest in yaml.load_all(done.stdout, _Strict) if manifest]


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def pod_specs(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod's spec, with the name of what makes the pod."""
    for manifest in manifests:
        if manifest["kind"] in {"Deployment", "StatefulSet", "Job"}:
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]
        elif manifest["kind"] == "Pod":
            yield manifest["metadata"]["name"], manifest["spec"]


def containers(spec: Manifest) -> list[Manifest]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(manifests: list[Manifest], kind: str, name: str) -> dict[str, str]:
    spec = find(manifests, kind, name)["spec"]["template"]["spec"]
    return {entry["name"]: entry["value"] for entry in spec["containers"][0]["env"]}
