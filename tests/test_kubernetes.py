"""NNI's Kubernetes service: its configuration by NNI's own classes; there is no cluster to run it on."""

from __future__ import annotations

import json

import pytest
import yaml
from conftest import CONV3X3
from pydantic import ValidationError

import stemlab
from stemlab.engine.manager import kubernetes
from stemlab.errors import EngineError
from stemlab.spec.engine import KubernetesSpec

SPEC = KubernetesSpec(image="registry.example/stemlab:1", nfs_server="10.0.0.7", nfs_path="/exports/nni", cpu=8)


def test_nni_accepts_the_configuration_and_changes_nothing_in_it(tmp_path):
    made = kubernetes.service(SPEC, gpus=2)
    completed = kubernetes.check(made, tmp_path)
    assert {name: completed[name] for name in made} == made
    [role] = completed["taskRoles"]
    assert (role["gpuNumber"], role["cpuNumber"], role["memorySize"]) == (2, 8, "16384mb")


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("storage", "storageType"), "floppy"),
        (("taskRoles", 0, "cpuNumber"), "many"),
        (("platform",), "frameworkcontrolle"),
    ],
)
def test_nnis_own_checks_are_asked(tmp_path, at, value):
    config = kubernetes.service(SPEC)
    inner = config
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    with pytest.raises(EngineError, match="NNI refuses"):
        kubernetes.check(config, tmp_path)


def test_the_account_of_the_manifest_is_the_one_of_the_configuration():
    account, role, binding = kubernetes.manifest(SPEC)
    name = kubernetes.service(SPEC)["serviceAccountName"]
    assert account["metadata"] == role["metadata"] == binding["metadata"] == {"name": name, "namespace": "default"}
    assert binding["roleRef"]["name"] == name
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": "default"}]
    assert [rule["verbs"] for rule in role["rules"]] == [["get"]]


ENGINE = {"kind": "nni", "service": "kubernetes", "kubernetes": SPEC.canonical()}


def search(tmp_path):
    """Start a search in the folder `study`; return the message of its EngineError."""
    with pytest.raises(EngineError) as refused:
        stemlab.search(CONV3X3, tmp_path / "study", changes=[f"engine={json.dumps(ENGINE)}"])
    return str(refused.value)


@pytest.mark.parametrize("variable", [None, "missing"])
def test_without_a_cluster_it_is_said_at_once(tmp_path, monkeypatch, variable):
    monkeypatch.setenv("HOME", str(tmp_path))
    if variable is None:
        monkeypatch.delenv("KUBECONFIG", raising=False)
    else:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / variable))
    assert "no cluster is known here" in search(tmp_path)
    assert not (tmp_path / "study").exists()


def test_with_a_cluster_the_files_are_made_and_nothing_is_started(tmp_path, monkeypatch):
    (tmp_path / "config").write_text("apiVersion: v1\nkind: Config\n")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    message = search(tmp_path)
    assert "does not start NNI's Kubernetes service" in message
    assert "docs/machines.md" in message
    config = json.loads((tmp_path / "study" / "nni-kubernetes.json").read_text())
    assert config["storage"]["server"] == SPEC.nfs_server
    kinds = [document["kind"] for document in yaml.safe_load_all((tmp_path / "study" / "kubernetes.yaml").read_text())]
    assert kinds == ["ServiceAccount", "Role", "RoleBinding"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("nfs_server", "host; reboot"), ("nfs_path", "/x$(reboot)"), ("image", "-v /:/host"), ("nfs_path", "/x y")],
)
def test_values_that_nnis_manager_would_hand_to_a_shell_are_plain(name, value):
    # It mounts by `sudo mount SERVER:PATH ...`, in a shell.
    with pytest.raises(ValidationError):
        SPEC.replace(**{name: value})
