"""What a running registration tells its caller: frozen events. Knows nothing of how they are shown."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, TypeVar

from semreg.runtime.memory import give_back_memory


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
    done: float = math.nan
    """Share of the stage that is done, 0 to 1, never falling; NaN where levels and iterations tell it."""


OnStep: TypeAlias = Callable[[Step], None]
"""Called after every step, in the thread that computes."""


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """What a stage took."""

    seconds: float
    """Wall time."""
    cpu_seconds: float


S_contra = TypeVar("S_contra", contravariant=True)


class Timed(Protocol[S_contra]):
    """A stage that a clock can run."""

    @property
    def name(self) -> str:
        """By what timings and steps call it."""

    @property
    def tells(self) -> bool:
        """Whether it tells its steps itself."""

    @property
    def run(self) -> Callable[[S_contra], None]:
        """What it does."""

    @property
    def wanted(self) -> Callable[[S_contra], bool]:
        """Whether it runs at all."""


@dataclass
class Clock:
    """Wall and CPU seconds of each stage, and the caller's hook."""

    on_step: OnStep | None
    timings: dict[str, StageTime] = field(default_factory=dict)

    def run(self, stage: Timed[S_contra], state: S_contra) -> None:
        """Run a stage on ``state`` if it is wanted, measured; one that tells no steps itself is told when it ends."""
        if stage.wanted(state):
            with self.stage(stage.name, tells=stage.tells):
                stage.run(state)

    @contextmanager
    def stage(self, name: str, *, tells: bool = False) -> Iterator[None]:
        """Measure what is done under ``name``, and keep none of its memory; ``tells``: whether it tells its steps."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        give_back_memory()
        seconds = time.perf_counter() - wall
        self.timings[name] = StageTime(seconds=seconds, cpu_seconds=time.process_time() - cpu)
        if self.on_step is not None and not tells:
            self.on_step(
                Step(stage=name, level=1, levels=1, iteration=1, iterations=1, value=math.nan, seconds=seconds)
            )


def counting(hook: OnStep | None, levels: int, directions: int, done: int) -> OnStep | None:
    """The hook for one of several directions: their levels are counted one after the other."""
    if hook is None or directions == 1:
        return hook
    return lambda step: hook(replace(step, level=step.level + done * levels, levels=directions * levels))
