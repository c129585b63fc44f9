"""Features of two images compared at scattered points in mm, with the derivative in the moving points."""

from semreg.itk.sampled.config import SampledConfig
from semreg.itk.sampled.objective import SampledObjective

__all__ = ["SampledConfig", "SampledObjective"]
