"""One trial: from a TrialSpec to a TrialRecord."""

from .process import settle
from .team import run_distributed
from .trial import run_trial

__all__ = ["run_distributed", "run_trial", "settle"]
