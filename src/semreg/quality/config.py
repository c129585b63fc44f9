"""The settings of an evaluation, each with its unit. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from semreg.errors import ConfigError

Outsides: TypeAlias = Literal["continue", "identity", "background"]


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What may be chosen of the measures."""

    tolerance_mm: float = 2.0
    """Surfaces that are no further apart than this agree: of the surface Dice, in mm."""
    similarity: bool = True
    """Whether the intensities are compared, which takes most of the time."""
    bins: int = 64
    """Classes of intensity of each image for the mutual information."""

    outside: Outsides = "identity"
    """What the transform does beyond the boxes of its fields, as ``semreg.transforms.Outside``. These voxels are left
    out; landmarks there are left out with ``background`` only, as a point has no other."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        if not (math.isfinite(self.tolerance_mm) and self.tolerance_mm >= 0):
            raise ConfigError(f"expected a tolerance >= 0 mm, got {self.tolerance_mm}")
        if not 2 <= self.bins <= 256:
            raise ConfigError(f"expected 2 to 256 bins, got {self.bins}")
        if self.outside not in get_args(Outsides):
            raise ConfigError(f"expected an outside of {', '.join(get_args(Outsides))}, got {self.outside!r}")
