"""From findings to figures: which numbers go into which figure, and what stands below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ...analysis.findings import Findings
from ...analysis.result import Result
from ..forest import Estimate, forest
from ..sections import Picture
from ..svg import INK, to_svg
from .lines import MOST_BANDS, Line, Panel, lines
from .looks import Look
from .maps import Axis, Draws, against, maps
from .outcome import Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST_RANKED = 3
"""Two arms have one order or the other: a rank correlation says nothing more."""

_MOST_MAPS, _MOST_ROWS = 8, 24
_FILLED = "Filled marks: told apart by the corrected test; hollow ones are not."


class Drawings:
    """The figures of one study. `looks` are the arms pointed out, the same in all figures."""

    def __init__(self, findings: Findings, looks: Mapping[str, Look]) -> None:
        self.findings, self.looks = findings, looks
        self.outcome = Outcome(findings.study.ablate.outcome)

    def distributions(self) -> Picture | None:
        """Draw the error distributions."""
        result = self.findings.edfs
        if result is None or result.frame.empty or self.findings.frame.groupby("arm")["draw"].nunique().max() < 2:
            return None
        name = self.outcome.words if self.outcome.is_loss else f"{self.outcome.words} error (%)"
        frame = result.frame.dropna(subset=["fraction"])
        reached = frame.loc[frame["fraction"] > 0, "error"]
        if reached.empty:
            return None
        least, most = reached.min(), reached.max()
        # Every curve goes on to the right edge: what has not got there by then never does.
        ends = frame.groupby("arm", sort=False).tail(1).assign(error=most + 0.02 * (most - least))
        arms = [
            Line.of(str(arm), rows, "error", middle="fraction", x_scale=self.outcome.scale)
            for arm, rows in pd.concat([frame, ends]).groupby("arm", sort=False)
        ]
        panel = Panel(
            arms,
            name[0].upper() + name[1:],
            "Share of the draws with at most this error",
            steps=True,
            start=self.outcome.scale * (least - 0.04 * (most - least)),
        )
        return self._picture(
            lines([panel], self.looks),
            "distributions",
            f"How errors spread over draws: further up and to the left is better. A curve that ends below 1 has draws "
            f"that diverged. {result.method}{self._bands}",
        )

    def arms(self) -> Picture | None:
        """Draw the differences of the arms from the baseline."""
        result = self.findings.comparison
        rows = [] if result is None else result.frame.dropna(subset=["difference"]).to_dict("records")
        if not rows:
            return None
        shown = {row["arm"] for row in sorted(rows, key=lambda row: -abs(row["difference"]))[:_MOST_ROWS]}
        more = f" The {_MOST_ROWS} furthest of {len(rows)} are drawn." if len(rows) > _MOST_ROWS else ""
        estimates = [self._estimate(str(row["arm"]), row) for row in rows if row["arm"] in shown]
        baseline = self.findings.design.baseline.label
        return self._picture(
            forest(estimates, f"Difference from the baseline ({self.outcome.points})", self._better),
            "differences",
            f"The arms against the baseline “{baseline}”, with {self._sure} intervals. {_FILLED}{more}",
        )

    def effects(self) -> Picture | None:
        """Draw the main effects, a heading a factor, and the interactions below them."""
        result = self.findings.effects
        rows = [] if result is None else result.frame.dropna(subset=["difference"]).to_dict("records")
        if not rows:
            return None
        inner = [row for row in rows if row["kind"] != "main"]
        kept = sorted(inner, key=lambda row: -abs(row["difference"]))[:_MOST_ROWS]
        estimates: list[Estimate] = []
        heading = ""
        for row in [row for row in rows if row["kind"] == "main" or row in kept]:
            if row["factor"] != heading:
                heading = row["factor"]
                estimates.append(Estimate(f"{heading} (instead of {row['baseline']})"))
            estimates.append(self._estimate(f"{row['level']}", row))
        more = f" Of {len(inner)} interactions the {_MOST_ROWS} largest are drawn." if len(kept) < len(inner) else ""
        return self._picture(
            forest(estimates, f"Effect ({self.outcome.points})", self._better),
            "effects",
            f"What changing one factor does, averaged over the others, with {self._sure} intervals; an interaction is "
            f"by how much the effect of one factor differs between levels of the other. {_FILLED}{more}",
        )

    def ranks(self) -> Picture | None:
        """Draw how well the ranks along the curves agree with those at the end."""
        result = self.findings.budgets.get("epochs")
        if result is None or len(result.frame) < 3 or self.findings.frame["arm"].nunique() < FEWEST_RANKED:
            return None
        line = Line.of("all arms", result.frame, "share", middle="tau", x_scale=100)
        panel = Panel([line], "Share of the training (%)", "Kendall’s τ with the end", limits=(-1.05, 1.05))
        caption = (
            "How well the order of the arms after a share of the training agrees with that at its end: 1 is the same "
            f"order, −1 the opposite one. Band: {self._sure} interval."
        )
        return self._picture(lines([panel], {"all arms": Look(INK, "o")}), "ranks", caption)

    @property
    def _better(self) -> str:
        return "left is better" if self.outcome.is_loss else "right is better"

    @property
    def _sure(self) -> str:
        return f"{self.findings.study.ablate.confidence:.0%}"

    def _estimate(self, label: str, row: dict[str, Any]) -> Estimate:
        value, low, high = (self.outcome.scale * row[name] for name in ("difference", "low", "high"))
        return Estimate(label, value, low, high, bool(row["p_corrected"] < self.findings.level))

    def learning(self) -> Picture | None:
        """Draw the learning curves."""
        result = self.findings.learning
        if result is None or result.frame.empty:
            return None
        metric = Outcome(self.outcome.name.removeprefix("test_"))
        panel = Panel(self._by_arm(result, "epoch", metric.scale), "Epoch", metric.axis)
        return self._picture(lines([panel], self.looks), "learning", f"{result.method}{self._bands}")

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
        return self._picture(
            lines([panel], self.looks), "tokens", f"{result.method} Low is diverse, 1 is all alike.{self._bands}"
        )

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
            lines(panels, self.looks),
            "gradients",
            f"The largest norm of the gradient in an epoch. {method}{self._bands}",
            True,
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
                "over seeds."
            )
        return self._picture(figure, "draws", f"{caption} A cross: a run diverged.{shown}", wide=len(axes) > 1)

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

    def _picture(self, figure: Figure, name: str, caption: str, wide: bool = False) -> Picture:
        return Picture(Markup(to_svg(figure, name, caption)), caption, "wide" if wide else "plain")

    @property
    def _bands(self) -> str:
        return " Of so many arms, only the baseline’s band is drawn." if len(self.looks) > MOST_BANDS else ""


def present(*pictures: Picture | None) -> tuple[Picture, ...]:
    """Return those that there are."""
    return tuple(picture for picture in pictures if picture is not None)
