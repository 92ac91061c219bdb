"""Trials that another study has on record: what need not be trained again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import StemlabError
from ..records import StudyFolder, TrialRecord

_DECIDES = ("versions", "commit", "hardware", "trials_on")
"""What must be the same in both manifests: a trial's numbers follow from its digest on one machine and one version."""


def records_beside(folder: Path, manifest: dict[str, Any]) -> dict[str, TrialRecord]:
    """Return digest -> record of the finished trials of the studies beside a folder that ran under the same conditions.

    Failed trials are left out: they are to be tried again. A study that cannot be read is none.
    """
    found: dict[str, TrialRecord] = {}
    beside = sorted(folder.parent.iterdir()) if folder.parent.is_dir() else []
    for path in beside:
        other = StudyFolder(path)
        if path == folder or not other.records_file.exists():
            continue
        try:
            theirs = other.read_json("manifest.json")
            if not isinstance(theirs, dict) or any(theirs.get(key) != manifest[key] for key in _DECIDES):
                continue
            records = other.records()
        except StemlabError:
            continue
        for record in records:
            if record.status != "failed":
                found.setdefault(record.trial, replace(record, reused_from=record.reused_from or str(path)))
    return found
