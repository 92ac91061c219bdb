"""Tables for a paper, in LaTeX with booktabs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "−": "$-$", "×": r"$\times$", "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$", "∞": r"$\infty$",
    "ρ": r"$\rho$", "τ": r"$\tau$",
    "–": "--", "—": "---", "’": "'", "“": "``", "”": "''", "…": r"\ldots{}",
}  # fmt: skip


def escape(text: str) -> str:
    """Return text as LaTeX sets it as it is: one line, every sign with a meaning of its own escaped."""
    return re.sub("|".join(map(re.escape, _SIGNS)), lambda sign: _SIGNS[sign[0]], " ".join(text.split()))


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    numeric: Sequence[bool],
    caption: str,
    label: str | None = None,
) -> str:
    """Return a floating table of plain cells, numeric columns to the right; it needs \\usepackage{booktabs}."""
    lines = [
        r"\begin{table}[t]",
        r"  \centering",
        rf"  \caption{{{escape(caption)}}}",
        *([rf"  \label{{tab:{label}}}"] if label else []),
        rf"  \begin{{tabular}}{{{''.join('r' if right else 'l' for right in numeric)}}}",
        r"    \toprule",
        f"    {_line(header)}",
        r"    \midrule",
        *(f"    {_line(row)}" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"
