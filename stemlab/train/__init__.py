"""One trial: from a TrialSpec to a TrialRecord."""

from .trial import run_trial

__all__ = ["run_trial"]
