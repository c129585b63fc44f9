"""The objective of one resolution as a function of all control points: sums over blocks, and the regularity.

The control points are few enough to be held in one place; the features are not. Each evaluation is written down by
what it was computed at, so that a run that goes on finds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from semreg.config import RefineConfig
from semreg.core.sums import total
from semreg.errors import ConfigError, DivergedError
from semreg.registration.blocks.boxes import Box
from semreg.registration.blocks.features import Maps
from semreg.registration.blocks.store import Store, digest
from semreg.registration.blocks.sums import BlockSum
from semreg.registration.blocks.windows import POWER
from semreg.registration.blocks.workers import Done, Workers
from semreg.registration.dense.axes import restricted
from semreg.registration.dense.objective import Evaluation
from semreg.registration.dense.prior import Prior
from semreg.registration.dense.smoothness import Smoothness
from semreg.registration.dense.terms import ALIKE
from semreg.transforms.bspline import SplineLattice

CURVATURE = "curvature"


@dataclass(frozen=True)
class SumTask:
    """The sum of one block at control points that are in a file."""

    maps: Maps
    lattice: SplineLattice
    box: Box
    at: str
    """By which the control points are known, or ``CURVATURE``."""
    name: str
    """The file of the result."""

    def run(self) -> None:
        """Compute and write it."""
        block, store = BlockSum(self.maps, self.lattice, self.box), self.maps.store
        if self.at == CURVATURE:
            bent = block.curvature()
            store.save(self.name, {"pull": bent.energy, "weight": bent.weight, "value": bent.bend})
            return
        coefficients = store.part(f"at-{self.at}.npy", (slice(None), *block.seen.seen))
        found = block.at(coefficients)
        store.save(self.name, {"pull": found.pull, "weight": found.weight, "value": found.value})


@dataclass(frozen=True)
class Whole:
    """The sum of all blocks."""

    value: float
    pull: Tensor
    weight: float


@dataclass
class BlockObjective:
    """What ``descend`` lowers: see ``semreg.registration.dense.objective.Objective``."""

    maps: Maps
    lattice: SplineLattice
    config: RefineConfig
    prior: Prior
    workers: Workers
    tell: Callable[[Done], None]
    scale: float = ALIKE
    bounded: bool = True
    redraws: bool = False
    evaluations: int = 0
    """How many were computed, not found."""
    _smoothness: Smoothness = field(init=False)

    def __post_init__(self) -> None:
        """Lay out the regularity."""
        self._smoothness = Smoothness(self.lattice, self.config, torch.device("cpu"), self.prior)
        self.spacing_mm = min(self.maps.grid("fixed").spacing)

    @property
    def _store(self) -> Store:
        return self.maps.store

    def shaped(self, coefficients: Tensor) -> Tensor:
        """The control points are those of the displacement itself."""
        return coefficients

    def unit(self, distance: float) -> float:
        """What the regularity is relative to if ``distance`` is the one at the start."""
        return distance if self.config.relative_to == "start" else self.scale

    def evaluate(self, coefficients: Tensor, unit: float | None) -> Evaluation:
        """The objective and its gradient; ``unit`` None: that of this distance."""
        coefficients = coefficients.detach()
        found = self._summed(coefficients)
        share = max(found.weight, 1e-30)
        distance, pulls = found.value / share, found.pull / share
        unit = self.unit(distance) if unit is None else unit
        regularity, stiff = self._smoothness.pull(coefficients, unit)
        pulls.add_(stiff)
        value = distance + unit * regularity
        if not (math.isfinite(value) and bool(torch.isfinite(pulls).all())):
            raise DivergedError(f"expected finite values, got a distance of {distance}: check the images")
        return Evaluation(coefficients, distance, value, restricted(pulls, self.config.axes))

    def overlap(self, coefficients: Tensor) -> bool:
        """Whether any sample counts."""
        return self._summed(coefficients).weight > 0

    def curvature(self, unit: float) -> Tensor:
        """An upper bound of the curvature for each coefficient, from the fixed features' gradients."""
        found = self._sum_of(CURVATURE)
        mean = found.value / max(found.weight, 1e-30)
        compared = self.maps.compared
        power = POWER.get(compared.distance)
        bend = mean if power is None else power / max(mean, 1e-12)
        bound = self._smoothness.curved(found.pull * (bend / max(found.weight, 1e-30)), unit)
        return bound.clamp(min=1e-3 * total(bound) / bound.numel() + 1e-30)

    def longest_step(self, config: RefineConfig) -> Tensor:
        """One sample of the features, per axis in voxels of the lattice's grid, (D, 1, …)."""
        step = self.spacing_mm if config.step_mm is None else config.step_mm
        lengths = [step / s for s in self.lattice.grid.spacing]
        return torch.tensor(lengths).reshape(-1, *[1] * self.lattice.grid.dimension)

    def renew(self, coefficients: Tensor) -> None:  # noqa: ARG002 - as of any objective
        """Refused: features are computed once (ConfigError)."""
        raise ConfigError("expected refine.update_every=0 for blocks, whose features are computed once: leave it out")

    def redraw(self) -> None:
        """All samples are compared."""

    def _summed(self, coefficients: Tensor) -> Whole:
        """The sums at some control points, found or computed."""
        name = digest(coefficients)
        if not self._store.has(f"sums/{name}.npz"):
            self._store.save_one(f"at-{name}.npy", coefficients)
        found = self._sum_of(name)
        self._store.remove(f"at-{name}.npy")
        return found

    def _sum_of(self, name: str) -> Whole:
        file = f"sums/{name}.npz"
        if not self._store.has(file):
            whole = self._computed(name)
            self._store.save(file, {"pull": whole.pull, "value": whole.value, "weight": whole.weight})
            self._store.remove(f"parts/{name}")
            self.evaluations += 1
        found = self._store.load(file)
        return Whole(float(found["value"]), torch.from_numpy(found["pull"]), float(found["weight"]))

    def _computed(self, name: str) -> Whole:
        """Let the workers compute what is missing, then add it up in the order of the blocks."""
        boxes = self.maps.boxes("fixed")
        tasks = [SumTask(self.maps, self.lattice, box, name, f"parts/{name}/{n}.npz") for n, box in enumerate(boxes)]
        run_all(self.workers, [task for task in tasks if not self._store.has(task.name)], self.tell)
        n = self.lattice.grid.dimension
        result, value, weight = torch.zeros((n, *self.lattice.shape)), 0.0, 0.0
        for task in tasks:
            part = self._store.load(task.name)
            seen = BlockSum(self.maps, self.lattice, task.box).seen.seen
            result[(slice(None), *seen)] += torch.from_numpy(part["pull"])
            value, weight = value + float(part["value"]), weight + float(part["weight"])
        return Whole(value, result, weight)


def run_all(workers: Workers, tasks: Sequence[Any], tell: Callable[[Done], None]) -> None:
    """Run all tasks, and tell of each."""
    for done in workers.run(tasks):
        tell(done)
