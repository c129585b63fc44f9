"""The seam between what is computed and how: a contract of few functions, and a backend for each kind of device.

All that is here takes the backend of the device its tensors lie on. ``contract`` says what each function returns.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Num
from torch import Tensor

from semreg.core.kernels.contract import Comparison, Costs, Extended, JointComparison, Matrix
from semreg.core.kernels.table import BACKENDS, kernels_for
from semreg.core.scattered import Table
from semreg.core.shapes import Places, Samples, Values, Vectors, Weights

__all__ = [
    "BACKENDS",
    "Comparison",
    "Costs",
    "Extended",
    "JointComparison",
    "compare",
    "compare_jointly",
    "compose",
    "cost_volume",
    "coupled_choice",
    "jacobian_determinant",
    "kernels_for",
    "least_corner",
    "patch_differences",
    "pull",
    "read",
    "spline_adjoint",
    "spline_product",
]


def cost_volume(
    near: Extended,
    far: Extended,
    candidates: Num[Tensor, "k d"],
    how: Costs,
    total: Float[Tensor, "nodes k"] | None = None,
    *,
    add: bool = False,
) -> Float[Tensor, "nodes k"]:
    """``Kernels.cost_volume`` into ``total`` (nodes, K), a new one if none is given."""
    if total is None:
        total = near.features.new_empty((near.features[0].numel(), len(candidates)))
    kernels_for(near.features.device).cost_volume(near, far, candidates, how, total, add=add)
    return total


def coupled_choice(
    cost: Float[Tensor, "nodes k"], candidates: Num[Tensor, "k d"], shape: tuple[int, ...], coupling: Sequence[float]
) -> tuple[Float[Tensor, "d *shape"], float]:
    """``Kernels.coupled_choice``."""
    return kernels_for(cost.device).coupled_choice(cost, candidates, shape, coupling)


def compare(moving: Table, fixed: Samples, index: Places, share: Weights, how: Comparison) -> tuple[float, Places]:
    """``Kernels.compare``."""
    return kernels_for(index.device).compare(moving, fixed, index, share, how)


def compare_jointly(
    fixed: Samples, moving: Samples, weight: Weights | None, how: JointComparison
) -> tuple[float, Samples]:
    """``Kernels.compare_jointly``."""
    return kernels_for(fixed.device).compare_jointly(fixed, moving, weight, how)


def read(table: Table, index: Places) -> Samples:
    """``Kernels.read``."""
    return kernels_for(index.device).read(table, index)


def pull(table: Table, index: Places, gradient: Samples) -> Places:
    """``Kernels.pull``."""
    return kernels_for(index.device).pull(table, index, gradient)


def spline_product(
    coefficients: Float[Tensor, "c *in"], matrices: Sequence[Float[Tensor, "_out _in"]]
) -> Float[Tensor, "c *out"]:
    """``Kernels.spline_product``."""
    return kernels_for(coefficients.device).spline_product(coefficients, matrices)


def spline_adjoint(
    values: Float[Tensor, "c *out"], matrices: Sequence[Float[Tensor, "_out _in"]]
) -> Float[Tensor, "c *in"]:
    """``Kernels.spline_adjoint``."""
    return kernels_for(values.device).spline_adjoint(values, matrices)


def compression(
    coefficients: Float[Tensor, "d *controls"],
    bases: Sequence[Sequence[Float[Tensor, "_places _controls"]]],
    limit: float,
) -> tuple[float, Float[Tensor, "d *controls"]]:
    """``Kernels.compression``."""
    return kernels_for(coefficients.device).compression(coefficients, bases, limit)


def patch_differences(
    image: Values, mask: Values | None, radius: int, dilation: int
) -> tuple[Float[Tensor, "channels *inner"], Float[Tensor, "*inner"] | None]:
    """``Kernels.patch_differences``."""
    return kernels_for(image.device).patch_differences(image, mask, radius, dilation)


def compose(first: Vectors, second: Float[Tensor, "d *t"], forth: Matrix, back: Matrix) -> Vectors:
    """``Kernels.compose``."""
    return kernels_for(first.device).compose(first, second, forth, back)


def jacobian_determinant(vox: Vectors) -> Values:
    """``Kernels.jacobian_determinant``."""
    return kernels_for(vox.device).jacobian_determinant(vox)


def least_corner(vox: Vectors) -> Float[Tensor, "*cells"]:
    """``Kernels.least_corner``."""
    return kernels_for(vox.device).least_corner(vox)
