"""The examples run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys

from conftest import REPOSITORY


def run(name: str, *arguments: object, cwd) -> str:
    command = [sys.executable, str(REPOSITORY / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_stem_is_built_and_attached(tmp_path):
    shown = run("attach_a_stem.py", cwd=tmp_path)
    assert "tokens: (2, 196, 192)" in shown
    assert "matched: depth 11" in shown


def test_an_ablation_is_run_then_read_and_drawn(tmp_path):
    shown = run("ablate_relu_and_bn.py", "study", cwd=tmp_path)
    assert "gelu" in shown
    assert (tmp_path / "study" / "report.html").exists()
    shown = run("plot_a_study.py", "study", cwd=tmp_path)
    assert "fraction" in shown
    assert "<svg" in (tmp_path / "own.svg").read_text()
