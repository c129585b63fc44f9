"""What a running registration tells its caller: frozen events. Knows nothing of how they are shown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of one stage, handed to ``on_step``."""

    stage: str
    """Name of the stage, as in the record: ``features``, ``coarse``, ``refine``."""
    level: int
    """Level of resolution, counted from 1 (the coarsest)."""
    levels: int
    """Number of levels of the stage."""
    iteration: int
    """Iteration within the level, counted from 1."""
    iterations: int
    """Number of iterations the level has at most."""
    value: float
    """Distance of the features after the step, without unit, lower is better; NaN where the stage has none."""
    seconds: float
    """Wall time in seconds since the stage began."""
    objective: float = math.nan
    """Distance and regularity together, relative to the distance at the start of the level; NaN where there is none."""


OnStep: TypeAlias = Callable[[Step], None]
"""Called after every step, in the thread that computes."""
