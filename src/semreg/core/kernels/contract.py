"""What a backend computes: the few functions that take nearly all the time of a registration, on plain tensors.

All tensors of a call lie on one device, and so do the results; nothing goes to another one in between.
Shapes are in tensor order, (C, *S); lengths are voxels or nodes, never mm. ``reference`` says in torch what each
function returns, and a test compares every backend with loops written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Num
from torch import Tensor

from semreg.core.scattered import Table
from semreg.core.shapes import Channels, Mask, Places, Samples, Scalar, Values, Vectors, Weights

Cost: TypeAlias = Callable[[Channels, Channels, Channels], Values]
"""Two features (C, *S) and scratch (C, *S) → how much each sample costs, (*S)."""
Slope: TypeAlias = Callable[[Samples, Samples, Weights], tuple[float, Samples]]
"""Two features (P, C) and the share of each sample (P,) → a sum over the samples, and its derivative in the second."""
Matrix: TypeAlias = npt.NDArray[np.float64]

COUNTED_COSTS = 1 << 19
"""Costs over which the mean is taken that candidates nobody has seen get."""
UNSEEN = 0.05
"""Share of a voxel that the mean cost counts for, so that candidates without any valid voxel have a cost too."""


@dataclass(frozen=True)
class Extended:
    """Features (C, *S) and weights (1, *S) or None, with ``widths`` samples more on every side."""

    features: Channels
    weight: Mask | None
    widths: tuple[int, ...]

    def inner(self) -> Extended:
        """Without the additional samples."""
        zero = tuple(0 for _ in self.widths)
        return Extended(*self.shifted(zero), zero)

    def shifted(
        self, offset: tuple[int, ...], stride: int = 1
    ) -> tuple[Float[Tensor, "c *t"], Float[Tensor, "1 *t"] | None]:
        """The features and weights that every ``stride``-th inner sample sees ``offset`` samples away."""
        sizes = zip(offset, self.widths, self.features.shape[1:], strict=True)
        part = (slice(None), *[slice(w + o, n - w + o, stride) for o, w, n in sizes])
        return self.features[part], None if self.weight is None else self.weight[part]


@dataclass(frozen=True, kw_only=True)
class Costs:
    """How the costs of candidates are computed."""

    compare: Cost
    smoothing: int
    """How many times the costs are averaged over 3 nodes an axis."""
    factor: float = 1.0
    """What they are multiplied by in the end."""
    stride: int = 1
    """Every how many samples of the far side there is a node."""
    counted: int | None = None
    """Of how many of the first candidates the mean cost stands for what nobody has seen. None: what nodes allow."""
    unseen: float | None = None
    """This mean where it is known, as it is for nodes that are a part of others. None: it is computed."""
    formula: str = ""
    """The name of what ``compare`` computes, for a backend that knows it itself; empty: none does."""

    def counted_of(self, candidates: int, nodes: int) -> int:
        """``counted`` for so many candidates and nodes: the same number for every backend."""
        most = max(1, COUNTED_COSTS // nodes) if self.counted is None else self.counted
        return min(candidates, most)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How samples are compared."""

    slope: Slope
    formula: str = ""
    """The name of what ``slope`` computes, for a backend that knows it itself; empty: none does."""
    change: Samples | None = None
    """What is added to what is read, (P, C)."""


@dataclass(frozen=True, kw_only=True)
class JointComparison:
    """How samples are compared whose distance is no sum over them: all at once."""

    value: Callable[[Samples, Samples, Weights | None, tuple[int, ...]], Scalar]
    """Features (P, C) of both, weight (P,), shape → the distance, differentiable in the second."""
    shape: tuple[int, ...]
    """The samples an axis, *S."""
    formula: str = ""
    """The name of what ``value`` computes, for a backend that knows it itself; empty: none does."""
    radius: int = 0
    """Of distances in windows: their half width in samples."""


class Kernels(Protocol):
    """A backend."""

    def cost_volume(
        self,
        near: Extended,
        far: Extended,
        candidates: Num[Tensor, "k d"],
        how: Costs,
        total: Float[Tensor, "nodes k"],
        *,
        add: bool,
    ) -> None:
        """Smoothed costs of every node and candidate, written into ``total`` (nodes, K) or added to it.

        ``near`` has a feature a node and no widths, ``far`` ``how.stride`` samples a node and widths that hold every
        candidate (K, D), in samples. Costs count by the product of both weights, and are averaged by it over 3 nodes an
        axis, the nodes that exist. Beside them the mean cost of ``how.counted_of`` candidates, or ``how.unseen``,
        counts ``UNSEEN``.
        """

    def coupled_choice(
        self,
        cost: Float[Tensor, "nodes k"],
        candidates: Num[Tensor, "k d"],
        shape: tuple[int, ...],
        coupling: Sequence[float],
    ) -> tuple[Float[Tensor, "d *shape"], float]:
        """A smooth displacement (D, *shape) in samples through cheap candidates, and the mean cost of the last choice.

        For each weight of ``coupling``: the candidate of least cost + weight · squared distance to the displacement (0
        at first) of each node, the first of equal ones, and the mean of these choices over 3 nodes an axis. ``cost``
        (nodes, K), ``candidates`` (K, D).
        """

    def compare(
        self,
        moving: Table,
        fixed: Samples,
        index: Places,
        share: Weights,
        how: Comparison,
    ) -> tuple[float, Places]:
        """A distance of ``fixed`` (P, C) to what ``moving`` holds at ``index`` (D, P), and its gradient there (D, P).

        ``share`` (P,) of the samples; the derivative of the interpolation is that of ``core.scattered``.
        """

    def compare_jointly(
        self,
        fixed: Samples,
        moving: Samples,
        weight: Weights | None,
        how: JointComparison,
    ) -> tuple[float, Samples]:
        """A distance of features (P, C) that sees all samples, ``weight`` (P,), and its derivative in ``moving``."""

    def read(self, table: Table, index: Places) -> Samples:
        """What ``table`` holds at ``index`` (D, P), interpolated linearly, (P, C); border values hold beyond."""

    def pull(self, table: Table, index: Places, gradient: Samples) -> Places:
        """The derivative in the index (D, P) of what has the ``gradient`` (P, C) in the values that are read there."""

    def spline_product(
        self, coefficients: Float[Tensor, "c *in"], matrices: Sequence[Float[Tensor, "_out _in"]]
    ) -> Float[Tensor, "c *out"]:
        """One matrix (out, in) an axis applied to ``coefficients`` (C, *in) → (C, *out); differentiable in them.

        What a band leaves out of a large matrix may be left unread: there a value that is not finite stays near its
        place. The adjoint is ``spline_adjoint``.
        """

    def spline_adjoint(
        self, values: Float[Tensor, "c *out"], matrices: Sequence[Float[Tensor, "_out _in"]]
    ) -> Float[Tensor, "c *in"]:
        """The transposed matrices applied to ``values`` (C, *out) → (C, *in)."""

    def compression(
        self,
        coefficients: Float[Tensor, "d *controls"],
        bases: Sequence[Sequence[Float[Tensor, "_places _controls"]]],
        limit: float,
    ) -> tuple[float, Float[Tensor, "d *controls"]]:
        """How far the displacement of a spline compresses space, and the derivative of that in its coefficients.

        The sum over all places of the square of what det(1 + ∂u) lacks of ``limit``. ``bases[axis]`` holds a matrix per
        axis (places, controls) of the derivative along ``axis``.
        """

    def patch_differences(
        self, image: Values, mask: Values | None, radius: int, dilation: int
    ) -> tuple[Float[Tensor, "channels *inner"], Float[Tensor, "*inner"] | None]:
        """Mean squared differences of the pairs of patches of MIND-SSC, (channels, *inner), and where all are known.

        ``image`` and ``mask`` in 0..1 (*S), inner is ``radius + dilation`` voxels less on every side; patches have
        2 radius + 1 voxels an axis and lie ``dilation`` voxels away along two axes. With a mask the means are weighted;
        known (*inner) is 1 where every pair of patches has a voxel that counts, else 0; None without a mask.
        """

    def compose(self, first: Vectors, second: Float[Tensor, "d *t"], forth: Matrix, back: Matrix) -> Vectors:
        """Displacements (D, *S): the ``first`` and what the ``second`` (D, *T) adds where it leads, in its voxels.

        ``forth`` (E, E) takes an index of the first grid to the second, ``back`` vectors the other way; between its
        samples the second is interpolated linearly, beyond its border vectors hold.
        """

    def jacobian_determinant(self, vox: Vectors) -> Values:
        """Determinant of ∂(index + vox)/∂index by central differences, one-sided and halved at the border as in ITK.

        ``vox`` (D, *S) in voxels → (*S). An axis of one voxel counts as unchanging.
        """

    def least_corner(self, vox: Vectors) -> Float[Tensor, "*cells"]:
        """The least determinant of the tetrahedra (triangles) of each cell, relative to their size: (D, *S) → (*S − 1).

        Those at its corners, that is by differences within the cell, and in 3-D the two between them. ``vox`` in
        voxels. An axis of one sample counts as unchanging and as one cell. At most 1, as without deformation.
        """
