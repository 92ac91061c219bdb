"""What analyses return, and how it is shown."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from stemlab.analysis.result import Result, show

EVIL = r"</td><script>alert('1')</script> \input{x} 5% & $_#^~|"


@pytest.fixture
def result():
    frame = pd.DataFrame(
        {
            "arm": ["conv", EVIL],
            "n": [12, 3],
            "some_difference": [-0.0123456789, np.nan],
            "needed": [np.inf, 12345.0],
            "clear": [True, False],
        }
    )
    return Result("A <title> & 100%", frame, "By x_1 < 2.")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"), (-2.5, "−2.5"), (3.0, "3"), (np.int64(7), "7"), (1e-9, "1e-09"), (float("nan"), "–"),
        (None, "–"), (float("inf"), "∞"), (-np.inf, "−∞"), ("conv", "conv"), (True, "True"), (12345678.0, "12345678"),
        (-0.0, "0"), (pd.NA, "–"),
    ],
)  # fmt: skip
def test_a_value_is_shown_with_four_digits_or_as_what_it_is(value, text):
    assert show(value) == text


def test_the_text_is_aligned_and_says_what_was_done(result):
    lines = repr(result).splitlines()
    assert lines[0] == "A <title> & 100%"
    assert lines[-1] == "By x_1 < 2."
    header, conv, other = lines[2:5]
    for name, value in (("some_difference", "−0.01235"), ("needed", "∞"), ("n", "12")):
        assert re.search(rf"\b{name}\b", header).end() == conv.index(value) + len(value)
    assert "12345" in other
    assert "–" in other


def test_only_what_is_shown_is_rounded(result):
    again = pd.read_csv(io.StringIO(result.to_csv()))
    assert again["some_difference"][0] == -0.0123456789
    assert again["arm"].tolist() == ["conv", EVIL]
    assert again["needed"][0] == np.inf


def test_html_is_escaped_and_whole(result):
    text = result._repr_html_()
    open_tags: list[str] = []
    cells: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

        def handle_data(self, data):
            cells.append(data)

    reader = Reader(convert_charrefs=True)
    reader.feed(text)
    reader.close()
    assert open_tags == []
    assert "<script" not in text
    assert {EVIL, "A <title> & 100%", "By x_1 < 2.", "−0.01235"} <= set(cells)


def test_latex_is_escaped_and_has_all_cells(result):
    text = result.to_latex()
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    conv, other = (line.strip() for line in body.splitlines()[1:-1])
    assert conv == r"conv & 12 & $-$0.01235 & $\infty$ & True \\"
    assert other.startswith(
        r"\textless{}/td\textgreater{}\textless{}script\textgreater{}alert('1')\textless{}/script\textgreater{} "
        r"\textbackslash{}input\{x\} 5\% \& \$\_\#\textasciicircum{}\textasciitilde{}\textbar{} & 3 & -- & "
    )
    assert r"\begin{tabular}{lrrrl}" in text
    assert r"some\_difference" in text
    assert r"\caption{A \textless{}title\textgreater{} \& 100\%. " in text
    assert text.count("{") == text.count("}")


def test_long_tables_are_cut_where_they_are_shown_but_not_where_they_are_kept():
    result = Result("long", pd.DataFrame({"x": range(1000)}), "counted")
    assert "… 940 more rows" in repr(result)
    assert "… 940 more rows" in result._repr_html_()
    assert len(result.to_csv().splitlines()) == 1001
    assert "999 \\\\" in result.to_latex()


def test_a_result_without_rows_is_shown():
    empty = Result("nothing", pd.DataFrame(columns=["arm", "p"]), "none")
    assert "arm" in repr(empty)
    assert "<th" in empty._repr_html_()
    assert r"\begin{tabular}" in empty.to_latex()
