"""From findings to figures: which numbers go into which figure, and what stands below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from ...analysis.findings import Findings
from ...analysis.result import Result
from ..svg import to_svg
from .lines import Line, Panel, lines
from .looks import Look
from .maps import Axis, Draws, against, maps
from .outcome import Outcome
from .sections import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_MAPS = 8


class Drawings:
    """The figures of one study. `looks` are the arms pointed out, the same in all figures."""

    def __init__(self, findings: Findings, looks: Mapping[str, Look]) -> None:
        self.findings, self.looks = findings, looks
        self.outcome = Outcome(findings.study.ablate.outcome)

    def learning(self) -> Picture | None:
        """Draw the learning curves."""
        result = self.findings.learning
        if result is None or result.frame.empty:
            return None
        metric = Outcome(self.outcome.name.removeprefix("test_"))
        panel = Panel(self._by_arm(result, "epoch", metric.scale), "Epoch", metric.axis)
        return self._picture(lines([panel], self.looks), "learning", f"How the arms learned. {result.method}")

    def tokens(self) -> Picture | None:
        """Draw how alike tokens are, by block."""
        result = self.findings.tokens
        if result is None:
            return None
        layers = result.frame.drop_duplicates("place").sort_values("place")
        panel = Panel(
            self._by_arm(result, "place"),
            "Behind",
            "Cosine similarity of tokens",
            ticks=[str(layer) for layer in layers["layer"]],
        )
        return self._picture(lines([panel], self.looks), "tokens", f"{result.method} Low is diverse, 1 is all alike.")

    def gradients(self) -> Picture | None:
        """Draw the norms of gradients over epochs, stem and body apart."""
        found = {name: result for name, result in self.findings.gradients.items() if not result.frame.empty}
        if not found:
            return None
        panels = [
            Panel(self._by_arm(result, "epoch"), "Epoch", f"Gradient norm of the {name.partition('_')[0]}", log=True)
            for name, result in found.items()
        ]
        method = next(iter(found.values())).method
        return self._picture(
            lines(panels, self.looks), "gradients", f"The largest norm of the gradient in an epoch. {method}"
        )

    def draws(self, important: Sequence[str] = ()) -> Picture | None:
        """Draw the outcome against what was drawn; with more than two, the two in `important`, or the first two."""
        frame, nuisances = self.findings.frame, self.findings.design.nuisances
        if not nuisances or frame["value"].notna().sum() == 0 or frame["draw"].nunique() < 2:
            return None
        by_name = {nuisance.name: nuisance for nuisance in nuisances}
        names = [name for name in (*important, *by_name) if name in by_name]
        axes = [Axis(name, by_name[name].low, by_name[name].high, by_name[name].log) for name in dict.fromkeys(names)][
            :2
        ]
        arms = [draws for label in self.looks if len((draws := self._draws(label, axes)).x)]
        if not arms:
            return None
        shown = (
            ""
            if len(self.looks) == len(self.findings.design.arms)
            else " Only the arms pointed out elsewhere are drawn."
        )
        if len(axes) == 1:
            figure = against(arms, axes[0], self.outcome.axis, self.looks)
            caption = f"The {self.outcome.words} against {axes[0].name}: a mark a draw, its mean over seeds."
        else:
            figure = maps(arms[:_MOST_MAPS], axes[0], axes[1], self.outcome.axis)
            caption = (
                f"The {self.outcome.words} of each draw of {axes[0].name} and {axes[1].name}: a mark a draw, its mean "
                "over seeds; the same draws in every arm."
            )
        return self._picture(figure, "draws", f"{caption} A cross: a run diverged.{shown}")

    def _draws(self, label: str, axes: Sequence[Axis]) -> Draws:
        rows = self.findings.frame[self.findings.frame["arm"] == label]
        rows = rows.dropna(subset=["value", *(axis.name for axis in axes)])
        groups = rows.groupby("draw")
        return Draws(
            label,
            groups[axes[0].name].first().to_numpy(dtype=float),
            groups[axes[-1].name].first().to_numpy(dtype=float),
            self.outcome.scale * groups["value"].mean().to_numpy(dtype=float),
            np.asarray(groups["status"].agg(lambda status: (status == "diverged").any()), dtype=bool),
        )

    def _by_arm(self, result: Result, x: str, scale: float = 1.0) -> list[Line]:
        frame = result.frame
        return [Line.of(str(arm), rows, x, scale) for arm, rows in frame.groupby("arm", sort=False)]

    def _picture(self, figure: Figure, name: str, caption: str) -> Picture:
        return Picture(Markup(to_svg(figure, name, caption)), caption)


def present(*pictures: Picture | None) -> tuple[Picture, ...]:
    """Return those that there are."""
    return tuple(picture for picture in pictures if picture is not None)
