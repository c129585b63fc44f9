"""A network of images as a network of volumes: every slice along one axis is one image of a batch. Knows no tiles."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from semreg.core.shapes import Batch, Direction, Output
from semreg.errors import ModelContractError
from semreg.features.contract import IntensityStats, ModelSpec, Network

AXES = {"axial": "z", "coronal": "y", "sagittal": "x"}
"""Planes by name, and the direction (of LPS) across them."""
LETTERS = {"z": "SI", "y": "PA", "x": "LR"}


class SliceNetwork:
    """A 2-D network that sees a volume slice by slice along the tensor axis ``axis``; outputs are volumes."""

    def __init__(self, network: Network, axis: int) -> None:
        """``axis``: 0, 1 or 2, the tensor axis across the slices."""
        self.network = network
        self.axis = axis

    @property
    def spec(self) -> ModelSpec:
        """That of the 2-D network."""
        return self.network.spec

    def __call__(self, x: Batch, stats: IntensityStats, direction: Direction) -> Sequence[Output]:
        """All outputs (1, C_l, *S_l) for one volume ``x`` (1, C, *S); as many slices as voxels across."""
        column = x.ndim - 3 - self.axis  # columns of a direction matrix are in the order x, y, z
        inner = [i for i in range(3) if i != column]
        plane = direction[inner][:, inner]
        slices = x[0].movedim(self.axis + 1, 0).contiguous()
        try:
            results = list(self.network(slices, stats, plane))
        except ModelContractError:
            # normalisation within a slice makes NaN of a slice of one value, which has no features: 0
            flat = slices.flatten(1)
            shown = flat.amax(1) > flat.amin(1)
            if bool(shown.all()) or not bool(shown.any()):
                raise
            results = [_spread(y, shown) for y in self.network(slices[shown], stats, plane)]
        return [y.movedim(0, self.axis + 1)[None] for y in results]


def _spread(y: Float[Tensor, "_n c *s"], shown: Bool[Tensor, "b"]) -> Float[Tensor, "b c *s"]:
    """The results for the slices that were shown, and 0 for the others."""
    return y.new_zeros((len(shown), *y.shape[1:])).index_copy(0, shown.nonzero().flatten(), y)


def slice_axis(plane: str, axes: str) -> int:
    """The tensor axis across ``plane`` (axial, coronal, sagittal) in a volume whose axes grow along ``axes`` (SPL)."""
    letters = LETTERS[AXES[plane]]
    return next(axis for axis, letter in enumerate(axes) if letter in letters)
