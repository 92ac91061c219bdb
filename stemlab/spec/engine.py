"""EngineSpec: where trials run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Count, PositiveInt, Spec, spec_error

Text = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f]*$")]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]


class MachineSpec(Spec):
    """A machine that is reached by SSH, with a key and a host key that is known.

    `python` is the absolute path of the interpreter there that has stemlab installed.
    """

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]{0,253}$")]
    user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_.-]{0,31}$")]
    port: Port = 22
    key: Text = "~/.ssh/id_ed25519"
    python: Annotated[str, Field(pattern=r"^/[^\x00-\x1f]{1,999}$")]


class KubernetesSpec(Spec):
    """What NNI's Kubernetes service (FrameworkController) needs: an image that has stemlab, and shared storage."""

    image: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,499}$")]
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = "default"
    nfs_server: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]{0,253}$")]
    nfs_path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]{0,999}$")]
    cpu: PositiveInt = 4
    memory_mib: PositiveInt = 16384


class EngineSpec(Spec):
    """Where trials run. `embedded`: warm worker processes on this machine; `nni`: NNI's manager; `ray`: a Ray cluster.

    `workers`: how many trials at a time (0, embedded only: in the calling process; absent: as many as the search's
    concurrency and the cores or GPU slots allow). `threads`: CPU threads of each. `gpus_per_trial`: absent means one
    where there are GPUs, 0 means the CPU. `gpus`: the only ones to use, by index. `trials_per_gpu`: how many share
    one; `auto`: as many as its memory has room for. `retries`: how often a trial is run again whose process or machine
    died. `pack` (embedded only): how many trials that differ in rates and seeds alone are trained as one model;
    `never`, or `auto` (unless given): as many as is fastest (docs/packed.md).

    Of `nni` alone are `service` (this machine, others by SSH, Kubernetes), `machines` and `kubernetes`; `port` is that
    of its page on 127.0.0.1 (absent: a free one). Of `ray` alone is `address` (absent: a cluster on this machine).
    """

    kind: Literal["embedded", "nni", "ray"] = "embedded"
    workers: Count | None = None
    threads: PositiveInt = 1
    gpus: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    gpus_per_trial: Count | None = None
    trials_per_gpu: PositiveInt | Literal["auto"] = 1
    retries: Count | None = None
    service: Literal["local", "remote", "kubernetes"] | None = None
    machines: Annotated[tuple[MachineSpec, ...], Field(min_length=1)] | None = None
    kubernetes: KubernetesSpec | None = None
    port: Port | None = None
    address: Text | None = None
    pack: Literal["auto", "never"] | PositiveInt | None = None

    @model_validator(mode="after")
    def _agrees(self) -> EngineSpec:
        if self.gpus is not None and len(set(self.gpus)) < len(self.gpus):
            raise spec_error(f"gpus must differ, got {list(self.gpus)}", at=("gpus",))
        if (self.gpus_per_trial or 0) > 1 and self.trials_per_gpu != 1:
            raise spec_error(
                "a trial on several GPUs cannot share them: trials_per_gpu must be 1", at=("trials_per_gpu",)
            )
        if self.workers == 0 and self.kind != "embedded":
            raise spec_error("only the embedded engine runs trials in the calling process", at=("workers",))
        if self.trials_per_gpu == "auto" and self.kind != "embedded":
            raise spec_error("only the embedded engine shares GPUs by memory; give a number", at=("trials_per_gpu",))
        for name, kind in _ONLY.items():
            if getattr(self, name) is not None and self.kind != kind:
                raise spec_error(f"only the engine {kind} has {name}; this one is {self.kind}", at=(name,))
        for service, name in (("remote", "machines"), ("kubernetes", "kubernetes")):
            if (self.service == service) != (getattr(self, name) is not None):
                raise spec_error(f"service: {service} and {name} go together; one of them is missing", at=("service",))
        return self


_ONLY = {"service": "nni", "machines": "nni", "kubernetes": "nni", "port": "nni", "address": "ray", "pack": "embedded"}
