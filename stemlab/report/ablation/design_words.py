"""The design of an ablation in words, for a reader who has not run it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...candidate import Candidate
from ...design import Design, Nuisance
from ...spec import AblationSpec, AugmentSpec, DataSpec, TrainSpec
from ...spec.base import pair
from ..numbers import count
from .outcome import Outcome

_RECIPE = {
    "epochs": "epochs",
    "optimizer": "optimizer",
    "lr": "learning rate",
    "weight_decay": "weight decay",
    "batch_size": "batch size",
    "schedule": "schedule",
    "warmup_epochs": "warm-up epochs",
    "label_smoothing": "label smoothing",
    "clip_grad": "gradients clipped at",
    "precision": "precision",
    "decay_rate": "decay rate",
    "decay_epochs": "epochs between decays",
    "milestones": "milestones",
    "layer_decay": "layer decay",
    "stem_lr": "learning rate of the stem as a multiple",
    "stem_weight_decay": "weight decay of the stem",
    "accumulate": "batches to an update",
    "ema": "decay of the mean of weights",
    "drop_path": "drop path",
    "token_labels": "weight of the loss on tokens",
    "augment": "images varied by",
}


def design_words(study: AblationSpec, design: Design, arms: Mapping[str, Candidate]) -> Iterator[str]:
    """Yield a sentence or two for each thing that a reader must know; `arms` are as on the first draw, if known."""
    outcome = Outcome(study.ablate.outcome)
    draws, seeds = len(design.draws), len(study.ablate.seeds)
    size = f"{count(len(design.factors), 'factor')}, {count(len(design.arms), 'arm')}"
    yield f"{size}: {design.note}. The baseline is “{design.baseline.label}”."
    total = len(design.cells) * seeds
    said = f"seed {study.ablate.seeds[0]}" if seeds == 1 else f"the seeds {listed(map(str, study.ablate.seeds))}"
    if design.nuisances:
        drawn = listed(_range(nuisance) for nuisance in design.nuisances)
        differ = any(design.drawn(arm, 0) != design.drawn(design.baseline, 0) for arm in design.arms)
        shared = "at the same place of each arm’s own ranges" if differ else "the same for every arm"
        yield f"{count(draws, 'draw')} of {drawn}, {shared}, each trained with {said}: {total} trials."
    else:
        yield f"Every arm was trained with {said}: {total} trials."
    unit = "draw by draw (a draw’s value is the mean over its seeds)" if draws > 1 else "seed by seed"
    yield (
        f"Arms are compared {unit}, so that what all arms share cancels out; intervals are of "
        f"{study.ablate.confidence:.0%} and resample {'draws' if draws > 1 else 'seeds'}."
    )
    example = arms.get(design.baseline.label)
    if example is None:
        return
    yield _diverged(outcome, example.data)
    if outcome.name.startswith("test_"):
        yield f"What is compared is the {outcome.words} after the last epoch. The test part chose nothing."
    else:
        yield f"What is compared is the {outcome.words} after the last epoch."
    yield _data(example.data)
    yield _recipe([arm.train for arm in arms.values()], design.nuisances)
    yield _body(example)


def listed(words: Iterable[str], last: str = "and") -> str:
    """Return words as a list in a sentence: a, b and c."""
    *first, end = list(words)
    return f"{', '.join(first)} {last} {end}" if first else end


def _range(nuisance: Nuisance) -> str:
    scale = ", logarithmic" if nuisance.log else ""
    return f"{nuisance.name} ({nuisance.low:g} to {nuisance.high:g}{scale})"


def _diverged(outcome: Outcome, data: DataSpec) -> str:
    guess = f"ln {data.class_count}" if outcome.is_loss else f"{100 / data.class_count:.3g} %"
    return (
        f"A diverged run is a result: it counts as guessing does ({guess} for {data.class_count} classes). A failed "
        "one (the machine’s fault) is missing; pairs are formed of what both arms have."
    )


def _data(data: DataSpec) -> str:
    train, validation, test = data.part_sizes
    return (
        f"Data: {data.name} at {_size(data.image_size)}, {data.class_count} classes; {train} images to train on, "
        f"{validation} to validate and {test} to test, the same in all trials. One test image is "
        f"{100 / test:.2f} points."
    )


def _recipe(trains: Sequence[TrainSpec], nuisances: Sequence[Nuisance]) -> str:
    drawn = {nuisance.path for nuisance in nuisances}
    words = []
    for name, said in _RECIPE.items():
        values = list(dict.fromkeys(getattr(train, name) for train in trains))
        if f"train.{name}" in drawn:
            words.append(f"{said} drawn")
        elif any(values):
            each = [_said(value) for value in values]
            words.append(f"{said} {listed(each, 'or')}" + (" by arm" if len(each) > 1 else ""))
    return f"Recipe: {', '.join(words)}."


def _said(value: object) -> str:
    """Return a field of a recipe in words."""
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, AugmentSpec):
        given = value.canonical().items()
        return f"({'; '.join(f'{name} {_said(each)}' for name, each in given)})" if given else "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return str(value or "none")


def _body(example: Candidate) -> str:
    body, match = example.matched.model.body, example.model.match
    text = (
        f"Body of the baseline: width {body.dim}, {count(body.depth, 'block')}, {count(body.heads, 'head')}, "
        f"on images of {_size(example.model.image_size)}."
    )
    if match is None:
        return f"{text} Arms are not matched in cost."
    what = {"flops": "multiply-adds", "params": "parameters"}.get(match.metric, match.metric)
    return (
        f"{text} Every arm’s body is adjusted ({listed(match.adjust)}) until the model has the {what} of the same body "
        f"behind the reference stem, within {100 * match.tolerance:.3g} %; what remains is in the table of costs."
    )


def _size(size: int | tuple[int, int]) -> str:
    height, width = pair(size)
    return f"{height}×{width} pixels"
