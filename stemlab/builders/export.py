"""A model as one file that needs no Python of ours: ONNX, or torch's exported program (.pt2)."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..errors import SpecError, StemlabError, nearest, one_of

TOLERANCE = 1e-4
"""How far outputs may be off: this, times the largest of the model's own outputs where that is above one."""


class Exported(NamedTuple):
    """A file that was written, and the largest difference between its outputs and the model's."""

    path: Path
    difference: float


Run = Callable[[torch.Tensor], torch.Tensor]


def export(model: nn.Module, folder: Path, kind: str) -> Exported:
    """Write model.onnx or model.pt2 into a folder: float32, in evaluation mode, for batches of any size.

    The file is read back and compared with the model on random images, in batches of 1 and 3. StemlabError where it
    disagrees by more than the TOLERANCE, or cannot be made; no file is left then that was not there before.

    `model` is a timm ViT on the CPU; its image size is fixed. Shape: (batch, in_chans, H, W) -> (batch, classes).
    """
    require(kind)
    target = folder / f"model.{kind}"
    stem: Any = model.patch_embed
    shape = (stem.in_chans, *stem.img_size)
    generator = torch.Generator().manual_seed(0)
    training = model.training
    model.eval()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=folder) as scratch, torch.no_grad(), _quietly():
            path = Path(scratch) / target.name
            example, *others = (torch.randn(batch, *shape, generator=generator) for batch in (2, 1, 3))
            run = EXPORTERS[kind](model, example, path)
            difference = max(_compare(model, run, images, target) for images in others)
            path.replace(target)
    except StemlabError:
        raise
    except Exception as error:  # the exporters raise whatever their many layers do
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StemlabError(f"{target}: cannot be exported: {first}") from None
    finally:
        model.train(training)
    return Exported(target, difference)


def _compare(model: nn.Module, run: Run, x: torch.Tensor, target: Path) -> float:
    expected = model(x)
    found = run(x)
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):  # also where it is not a number
        raise StemlabError(f"{target}: not written: its outputs are off by {difference:.2g}, more than {TOLERANCE:g}")
    return difference


def _pt2(model: nn.Module, x: torch.Tensor, path: Path) -> Run:
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, path)
    module = torch.export.load(path).module()
    return lambda images: module(images)


def _onnx(model: nn.Module, x: torch.Tensor, path: Path) -> Run:
    import onnxruntime

    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["logits"]}
    batch = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(model, (x,), path, dynamo=True, dynamic_shapes=batch, external_data=False, verbose=False, **names)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"image": images.numpy()})[0])


def require(kind: str) -> None:
    """SpecError where there is no such kind of file; StemlabError that says what to install where that is missing."""
    if kind not in EXPORTERS:
        raise SpecError(f"export (={kind!r}): expected {one_of(EXPORTERS)}{nearest(kind, EXPORTERS)}")
    for name in ("onnx", "onnxscript", "onnxruntime") if kind == "onnx" else ():
        try:
            import_module(name)
        except ImportError:
            raise StemlabError(
                f"export (='onnx') needs {name}, which is not installed: pip install 'stemlab[export]' "
                "(in a checkout: pip install -e '.[export]')"
            ) from None


EXPORTERS: dict[str, Callable[[nn.Module, torch.Tensor, Path], Run]] = {"onnx": _onnx, "pt2": _pt2}


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence what the exporters say of their own insides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
