"""Shapes of tensors that recur, as types: axes of one name are as long in all arguments and results of a call.

Those of few functions stand in their signatures. ``p`` counts samples, ``c`` channels, ``d`` spatial axes, ``*s`` are
the axes of a grid, (z, y, x) or (y, x).
"""

from __future__ import annotations

from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

Scalar: TypeAlias = Float[Tensor, ""]
"""One number that may have a gradient."""
Samples: TypeAlias = Float[Tensor, "p c"]
"""Features, a row a sample."""
Weights: TypeAlias = Float[Tensor, "p"]
"""How much each sample counts."""
Places: TypeAlias = Float[Tensor, "d p"]
"""Where samples are read, fractional voxels."""
Channels: TypeAlias = Float[Tensor, "c *s"]
"""Channels on a grid."""
Mask: TypeAlias = Float[Tensor, "1 *s"]
"""How much each voxel counts, 0 to 1."""
Vectors: TypeAlias = Float[Tensor, "d *s"]
"""Displacements on a grid."""
Values: TypeAlias = Float[Tensor, "*s"]
"""One number a voxel."""
