"""One trial: from a TrialSpec to a TrialRecord."""

from .process import settle
from .team import run_distributed
from .trial import Saving, Training, run_trial

__all__ = ["Saving", "Training", "run_distributed", "run_trial", "settle"]
