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
Batch: TypeAlias = Float[Tensor, "b c *s"]
"""Tiles of an image, as networks take them."""
Output: TypeAlias = Float[Tensor, "b _c *_s"]
"""What a network makes of them, one of some, each with channels and a grid of its own."""
Map: TypeAlias = Float[Tensor, "_c *_s"]
"""One of some outputs for a whole image."""
Direction: TypeAlias = Float[Tensor, "d d"]
"""The direction matrix of an image, as ITK has it."""
Numbers: TypeAlias = Float[Tensor, "..."]
"""Any number of values, in whatever order."""
Mask: TypeAlias = Float[Tensor, "1 *s"]
"""How much each voxel counts, 0 to 1."""
Vectors: TypeAlias = Float[Tensor, "d *s"]
"""Displacements on a grid."""
Values: TypeAlias = Float[Tensor, "*s"]
"""One number a voxel."""
