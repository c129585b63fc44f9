"""How far an alignment is: its parts, each with its usual share of the time. Knows nothing of images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from semreg.runtime.events import OnStep, Step

PARTS: Mapping[str, float] = {
    "pictures": 5, "orientations": 25, "closer": 15, "rotations": 20, "descents": 12, "choice": 8, "finer": 15,
}  # fmt: skip
"""The parts in their order, and what share of the time each usually takes; one that is not needed is passed over."""
USUAL = 0.4
"""Of the steps that a descent may make, those that it usually makes."""

Heard: TypeAlias = Callable[[int, float], None]
"""Gets the number of a step of a descent and the match after it."""


class Telling:
    """Tells a listener, if there is one, which share of an alignment is done; it never falls, and ends at 1."""

    def __init__(self, on_step: OnStep | None, iterations: int) -> None:
        """``iterations``: the most steps of a descent."""
        self._on_step, self._iterations, self._started = on_step, iterations, time.perf_counter()
        self._part, self._pieces, self._begun, self._done = "", 1.0, 0.0, 0.0
        self.levels = 1
        """Number of resolutions."""

    def begin(self, part: str, pieces: float) -> None:
        """A part of ``PARTS`` begins, of so many ``pieces`` that take about equally long; all before it is over."""
        self._part, self._pieces, self._begun = part, max(pieces, 1.0), 0.0

    def piece(self) -> None:
        """One more piece is done."""
        self._begun += 1
        self._trial(self._begun, self._begun)

    def descent(self, level: int, pieces: float = 1.0) -> Heard:
        """The next piece, or as many as it is as long as, is a descent at a ``level``: what hears of its steps."""
        first = self._begin(pieces)
        return lambda step, match: self._tell(
            level, (step, self._iterations), 1.0 - match, first + pieces * self._share(step)
        )

    def trial(self) -> Heard:
        """The same of a descent that is made to compare with: its match is not that of what was found."""
        first = self._begin(1.0)
        return lambda step, match: self._trial(first + 1, first + self._share(step))  # noqa: ARG005

    def end(self, match: float) -> None:
        """All is done."""
        self.begin(list(PARTS)[-1], 1.0)
        self._tell(self.levels, (self._iterations, self._iterations), 1.0 - match, 1.0)

    def _begin(self, pieces: float) -> float:
        """How many pieces lie before the next ones, which are begun."""
        first, self._begun = self._begun, self._begun + pieces
        return first

    def _share(self, step: int) -> float:
        return min(1.0, step / max(1.0, USUAL * self._iterations))

    def _trial(self, number: float, place: float) -> None:
        self._tell(1, (round(min(number, self._pieces)), round(self._pieces)), math.nan, place)

    def _tell(self, level: int, counted: tuple[int, int], value: float, place: float) -> None:
        """``counted``: iteration and iterations; ``place``: how many pieces of the part are done."""
        before = sum(share for part, share in PARTS.items() if list(PARTS).index(part) < list(PARTS).index(self._part))
        done = (before + PARTS[self._part] * min(1.0, place / self._pieces)) / sum(PARTS.values())
        self._done = max(self._done, done)
        if self._on_step is not None:
            self._on_step(
                Step(
                    stage="align", level=level, levels=self.levels, iteration=counted[0], iterations=counted[1],
                    value=value, seconds=time.perf_counter() - self._started, done=self._done,
                )
            )  # fmt: skip
