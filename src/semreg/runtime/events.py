"""What a running registration tells its caller: frozen events. Knows nothing of how they are shown."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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


@dataclass
class Clock:
    """Wall and CPU seconds of each stage, and the caller's hook."""

    on_step: OnStep | None
    timings: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage; stages without steps of their own are told to the hook when they end."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        seconds = time.perf_counter() - wall
        self.timings[name] = {"seconds": seconds, "cpu_seconds": time.process_time() - cpu}
        if self.on_step is not None and name not in ("align", "coarse", "refine"):
            self.on_step(
                Step(stage=name, level=1, levels=1, iteration=1, iterations=1, value=math.nan, seconds=seconds)
            )

    def counting(self, levels: int, directions: int, done: int) -> OnStep | None:
        """The hook for one of several directions: their levels are counted one after the other."""
        hook = self.on_step
        if hook is None or directions == 1:
            return hook
        return lambda step: hook(replace(step, level=step.level + done * levels, levels=directions * levels))
