"""Results frames of ablations that were never run: what is in them is planted, so that what is found can be checked."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd


def crossed(**levels):
    """All combinations of the levels of factors, the baseline first."""
    return [dict(zip(levels, setting, strict=True)) for setting in product(*levels.values())]


def one_at_a_time(**levels):
    base = {name: options[0] for name, options in levels.items()}
    return [base, *({**base, name: option} for name, options in levels.items() for option in options[1:])]


def half_fraction(factors, word):
    """Half of a two-level design, 2^(k-1): the last of the word's factors is the sum of its others."""
    *basic, last = word
    free = [name for name in factors if name != last]
    settings = (dict(zip(free, bits, strict=True)) for bits in product((0, 1), repeat=len(free)))
    full = ({**bits, last: sum(bits[name] for name in basic) % 2} for bits in settings)
    return [{name: str(bits[name]) for name in factors} for bits in full]


def label(setting):
    return ", ".join(f"{name}={level}" for name, level in setting.items())


def arm_table(settings):
    """What `contrast` takes: a row an arm, missing where a factor is not open."""
    return pd.DataFrame(settings, index=pd.Index([label(s) for s in settings], name="arm"))


def results(settings, value, draws=1, seeds=1):
    """A results frame; `value(setting, draw, seed)` gives what a run came to."""
    rows = [
        {
            "arm": label(setting),
            **setting,
            "draw": draw,
            "seed": seed,
            "status": "ok",
            "value": value(setting, draw, seed),
        }
        for draw in range(draws)
        for setting in settings
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def additive(parts, noise=0.0, seed=0):
    """A `value`: what each (factor, level) adds, a number for each (draw, seed) that all arms share, and noise."""
    rng = np.random.default_rng(seed)
    common: dict = {}

    def value(setting, draw, seed):
        unit = common.setdefault((draw, seed), rng.normal())
        return sum(parts.get(item, 0.0) for item in setting.items()) + unit + noise * rng.normal()

    return value
