"""NNI's Kubernetes service (FrameworkController): its configuration, as far as it can be made and checked here.

It is not started: its manager would open two ports to the cluster, neither of which asks who is there
(docs/machines.md). What is made is for those who run NNI on a network where nobody else is.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ...errors import EngineError
from ...spec.engine import KubernetesSpec
from ...spec.files import write_text
from .. import tuners

_ACCOUNT = "stemlab-trials"
_COMMAND = "python3 -P trial.py"


def service(spec: KubernetesSpec, gpus: int = 0) -> dict[str, Any]:
    """Return NNI's `trainingService`: one pod a trial, with so many GPUs."""
    return {
        "platform": "frameworkcontroller",
        "namespace": spec.namespace,
        "serviceAccountName": _ACCOUNT,
        "reuseMode": True,  # NNI 3 reads this configuration in that mode only
        "storage": {"storageType": "nfs", "server": spec.nfs_server, "path": spec.nfs_path},
        "taskRoles": [
            {
                "name": "trial",
                "dockerImage": spec.image,
                "taskNumber": 1,
                "command": _COMMAND,
                "gpuNumber": gpus,
                "cpuNumber": spec.cpu,
                "memorySize": f"{spec.memory_mib}mb",  # NNI's manager knows no other spelling
                "frameworkAttemptCompletionPolicy": {"minFailedTaskCount": 1, "minSucceedTaskCount": 1},
            }
        ],
    }


def check(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a `trainingService` as NNI itself completes it; EngineError where NNI's own checks refuse it.

    `folder` is any that exists: NNI looks at where the code of the trials is said to be.
    """
    tuners.version()
    from nni.experiment.config import ExperimentConfig

    try:
        experiment = ExperimentConfig(
            search_space={},
            tuner={"name": "Random"},
            trial_command=_COMMAND,
            trial_code_directory=str(folder),
            trial_concurrency=1,
            max_trial_number=1,
            nni_manager_ip="127.0.0.1",
            training_service=config,
        )
        experiment.validate()
    except Exception as error:
        raise EngineError(f"NNI refuses its Kubernetes configuration: {error}") from None
    completed: dict[str, Any] = experiment.json()["trainingService"]
    return completed


def manifest(spec: KubernetesSpec) -> list[dict[str, Any]]:
    """Return what must be in the cluster besides FrameworkController: an account that may look at the trials' state.

    Each pod first runs a container that waits, with this account's right, until the trial's framework stands.
    """
    where = {"name": _ACCOUNT, "namespace": spec.namespace}
    rule = {"apiGroups": ["frameworkcontroller.microsoft.com"], "resources": ["frameworks"], "verbs": ["get"]}
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": where},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": where, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": where,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": _ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", **where}],
        },
    ]


def kubeconfig() -> Path | None:
    """Return the file that says how to reach a cluster; None where there is none."""
    listed = os.environ.get("KUBECONFIG", "").split(os.pathsep)
    files = [Path(name) for name in listed if name] or [Path.home() / ".kube" / "config"]
    return next((file for file in files if file.is_file()), None)


def require_cluster() -> None:
    """EngineError where no cluster is known."""
    if kubeconfig() is None:
        raise EngineError(
            "engine.service (=kubernetes): no cluster is known here: neither $KUBECONFIG nor ~/.kube/config names one"
        )


def start(spec: KubernetesSpec, gpus: int, folder: Path) -> NoReturn:
    """Write what NNI needs into a folder, and say in an EngineError why we leave it at that."""
    require_cluster()
    config = check(service(spec, gpus), folder)
    write_text(folder / "nni-kubernetes.json", json.dumps(config, indent=2) + "\n")
    write_text(folder / "kubernetes.yaml", yaml.safe_dump_all(manifest(spec), sort_keys=False))
    raise EngineError(
        "engine.service (=kubernetes): stemlab does not start NNI's Kubernetes service, because its manager opens two "
        f"ports to the cluster without asking who is there. What it needs is in {folder}: nni-kubernetes.json, "
        "kubernetes.yaml. Use `kind: ray` on a cluster, or `service: remote` with machines (docs/machines.md)"
    )
