"""The metric on features for a program in C++ that embeds Python: see ``native/cpp``. Loads neither itk nor SimpleITK.

The program has ITK itself, and two of them in one process would share symbols and fight.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from semreg.config import RegistrationConfig
from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.errors import ConfigError
from semreg.itk.sampled.config import SampledConfig
from semreg.itk.sampled.objective import FEWEST, Rows, SampledObjective, check_count, spacing_of_level
from semreg.itk.target import Points, Target
from semreg.registration.matching import resolve_models
from semreg.runtime.devices import choose_device
from semreg.runtime.settings import from_toml

logger = logging.getLogger("semreg")


class EmbeddedMetric:
    """The distance between features of two images at the sample points; features are extracted once a level."""

    fixed: Volume
    moving: Volume
    virtual: Grid
    moving_points: Callable[[Points], Points]
    _objective: SampledObjective

    def __init__(self, config: SampledConfig, device: torch.device) -> None:
        """Nothing is loaded yet. ConfigError for the mode jacobian."""
        if config.mode != "static":
            raise ConfigError(f'expected mode = "static" for the metric in C++, got {config.mode!r}: leave it out')
        self.config, self.device = config, device

    def initialize(self) -> None:
        """Load the models and extract the features of both images."""
        pairings = resolve_models(RegistrationConfig(models=self.config.models), self.fixed.grid.dimension, self.device)
        features = self.config.features
        if features.spacing_mm is None:
            features = replace(features, spacing_mm=spacing_of_level(pairings, self.fixed.grid, self.virtual))
        config = replace(self.config, features=features)
        self._objective = SampledObjective(self.fixed, self.moving, config, pairings, self.device)
        self._evaluated = False

    def place(self, fixed_points: Points) -> None:
        """Read the fixed features at the sample points; GeometryError where there are too few of them."""
        check_count(len(fixed_points), "in the fixed image: raise the sampling percentage, or enlarge the mask")
        self._objective.place(fixed_points)

    def evaluate_rows(self, rows: Rows, moving_points: Points, *, derivative: bool) -> tuple[float, Points | None]:
        """The weighted mean of the distances, and its derivative in the moving points, per mm."""
        if len(rows) < FEWEST and self._evaluated:  # as ITK has it where no point is left: as bad as it gets
            logger.warning("%d sample points are left in the moving image: the value is the largest number", len(rows))
            return float(np.finfo(np.float64).max), np.zeros_like(moving_points)
        check_count(len(rows), "in the moving image: check the initial transform, or raise the sampling percentage")
        self._evaluated = True
        if not derivative:
            return self._objective.value(rows, moving_points), None
        return self._objective.evaluate(rows, moving_points)


def make_target(settings: str, device: str) -> Target:
    """What C++ calls, for ``settings`` as TOML of a ``SampledConfig`` and a device such as ``cpu``.

    Args:
        settings: the tables ``[[models]]`` and ``[features]`` as in semreg.toml, and ``seed``, ``normalise_losses``.
        device: ``cpu``, ``cuda``, ``cuda:n``, ``mps`` or ``auto``.

    Returns:
        The target of one metric.

    Raises:
        ConfigError: for settings that there are not.
        DeviceError: for a device that is not there.
    """
    return Target(EmbeddedMetric(from_toml(SampledConfig, settings), choose_device(device)))
