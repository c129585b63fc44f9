"""The settings of a comparison at scattered points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from semreg.config import FeatureConfig, ModelConfig
from semreg.runtime.settings import require


@dataclass(frozen=True, kw_only=True)
class SampledConfig:
    """How features are compared at points."""

    mode: Literal["static", "jacobian"] = "static"
    """``static``: features of both images are extracted once and interpolated. ``jacobian``: the models run on patches
    around the points and are differentiated."""
    models: tuple[ModelConfig, ...]
    """One for each pairing: distance (empty: l2), weight, pca, subset, normalise."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    """``spacing_mm`` None: the fixed image's smallest spacing, coarser for large images. ``pooling`` None: 1."""
    seed: int = 0
    """Of the channels that are drawn."""
    normalise_losses: bool = True
    """Divide each distance by its first value, or, where that is about 0, by the distance of unrelated features."""
    batch_size: int = 64
    """``jacobian``: patches that a network is given at once, which bounds the memory."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(self.mode in ("static", "jacobian"), "the mode static or jacobian", repr(self.mode))
        require(len(self.models) >= 1, "at least one model", len(self.models))
        require(self.seed >= 0, "seed >= 0", self.seed)
        require(self.batch_size >= 1, "batch_size >= 1 patch", self.batch_size)
        redrawn = any(model.redraw for model in self.models)
        require(not redrawn, "models.redraw=false: a value at points is a function of the points alone", "true")
