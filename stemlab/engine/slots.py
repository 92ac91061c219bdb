"""Which GPUs and CPU shares a machine offers to trials."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from ..errors import EngineError
from ..spec import EngineSpec
from .packing import room

PROCESSES = "STEMLAB_PROCESSES"
"""The environment variable that tells a worker how many processes train one trial."""

SHARED = "STEMLAB_SHARED_GPU"
"""The environment variable that tells a worker, by 1, to leave no memory of its GPU occupied between two trials."""

SHARING = 8
"""So many trials share a GPU at most where its memory decides: each has a process, and a CUDA context, of its own."""

# glibc would give large tensors back to the system at every step, and get them again page by page: 16,000 pages a step
# of a pack of 16 small ViTs, a tenth of its time.
_KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_TOP_PAD_": str(2**26)}


@dataclass(frozen=True)
class Gpu:
    """One GPU, as nvidia-smi lists it."""

    index: int
    name: str
    memory_mib: int


@dataclass(frozen=True)
class Slot:
    """Room for one trial at a time: the GPUs it may see (none: the CPU) and its CPU threads.

    `room` is the memory in MiB that the trials of all slots on its GPU may fill together, None where nobody counts. A
    trial on several GPUs is trained by as many processes.
    """

    gpus: tuple[int, ...]
    threads: int
    room: int | None = None

    def describe(self) -> str:
        """Return what a trial has to itself, in words: results may depend on it."""
        threads = f"{self.threads} CPU thread{'' if self.threads == 1 else 's'}"
        return f"{len(self.gpus)} GPU and {threads}" if self.gpus else threads

    def environment(self) -> dict[str, str]:
        """Return the environment variables that hold a worker to its slot."""
        threads = str(self.threads)
        return {
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, self.gpus)),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS is not deterministic
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            PROCESSES: str(max(1, len(self.gpus))),
            SHARED: "0" if self.room is None else "1",
            **({} if self.gpus else _KEEP_MEMORY),
        }


def find_gpus() -> list[Gpu]:
    """Return the GPUs of this machine, by nvidia-smi, less those that CUDA_VISIBLE_DEVICES hides."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = []
    for line in lines:
        index, name, memory = (part.strip() for part in line.split(","))
        gpus.append(Gpu(int(index), name, int(memory) if memory.isdigit() else 0))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return gpus
    allowed = {part.strip() for part in visible.split(",")}
    return [gpu for gpu in gpus if str(gpu.index) in allowed]


def cores() -> int:
    """Return the number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def plan(
    engine: EngineSpec, concurrency: int, gpus: list[Gpu] | None = None, processors: int | None = None
) -> list[Slot]:
    """Return the slots of a study: GPU slots where there are GPUs and none are refused, else shares of the CPU.

    `gpus` and `processors` (cores) are this machine's unless they are given.

    EngineError, at once, where more GPUs are asked for than there are.
    """
    gpus = find_gpus() if gpus is None else gpus
    there = [gpu.index for gpu in gpus]
    if engine.gpus is not None:
        missing = [index for index in engine.gpus if index not in there]
        if missing:
            raise EngineError(f"engine.gpus: there is no GPU {missing[0]} on this machine; it has {there or 'none'}")
        there = list(engine.gpus)
    wanted = (1 if there else 0) if engine.gpus_per_trial is None else engine.gpus_per_trial
    if wanted > len(there):
        raise EngineError(
            f"engine.gpus_per_trial (={wanted}): this machine has {len(there)} GPUs to use; "
            "leave it out, or set it to 0 for the CPU"
        )
    if wanted:
        groups = [tuple(there[i : i + wanted]) for i in range(0, len(there) - wanted + 1, wanted)]
        if wanted > 1 and engine.workers == 0:
            raise EngineError("engine.workers (=0): a trial on several GPUs needs processes of its own; leave it out")
        if engine.trials_per_gpu == "auto":
            most = _by_memory(engine, concurrency, [gpu for index in there for gpu in gpus if gpu.index == index])
        else:
            most = [Slot(group, engine.threads) for _ in range(engine.trials_per_gpu) for group in groups]
    else:
        most = [Slot((), engine.threads)] * max(1, (processors or cores()) // engine.threads)
    if engine.workers is None:
        return most[:concurrency]
    if wanted and engine.workers > len(most):
        raise EngineError(f"engine.workers (={engine.workers}): the GPUs have room for {len(most)} trials at a time")
    return (most * (engine.workers + 1))[: max(1, engine.workers)]


def _by_memory(engine: EngineSpec, concurrency: int, gpus: list[Gpu]) -> list[Slot]:
    """Return the slots of GPUs that are shared by as many trials as fit."""
    unknown = [gpu.index for gpu in gpus if gpu.memory_mib == 0]
    if unknown:
        raise EngineError(
            f"engine.trials_per_gpu (=auto): nvidia-smi does not say how much memory GPU {unknown[0]} has; "
            "set it to a number"
        )
    sharing = min(SHARING, -(-(engine.workers or concurrency) // len(gpus)))
    return [Slot((gpu.index,), engine.threads, room(gpu.memory_mib, sharing)) for _ in range(sharing) for gpu in gpus]
