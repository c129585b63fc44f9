"""The functions in torch as one backend."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from semreg.core.kernels.contract import Comparison, Costs, Extended, JointComparison, Kernels, Matrix
from semreg.core.kernels.reference import corners, fields, mind, search, spline
from semreg.core.scattered import Table


class Reference:
    """See ``Kernels``."""

    def cost_volume(
        self, near: Extended, far: Extended, candidates: Tensor, how: Costs, total: Tensor, *, add: bool
    ) -> None:
        """Candidate by candidate."""
        search.cost_volume(near, far, candidates, how, total, add=add)

    def coupled_choice(
        self, cost: Tensor, candidates: Tensor, shape: tuple[int, ...], coupling: Sequence[float]
    ) -> tuple[Tensor, float]:
        """Some nodes at once."""
        return search.coupled_choice(cost, candidates, shape, coupling)

    def compare(
        self, moving: Table, fixed: Tensor, index: Tensor, share: Tensor, how: Comparison
    ) -> tuple[float, Tensor]:
        """Some samples at once."""
        return fields.compare(moving, fixed, index, share, how)

    def compare_jointly(
        self, fixed: Tensor, moving: Tensor, weight: Tensor | None, how: JointComparison
    ) -> tuple[float, Tensor]:
        """Through autograd."""
        return fields.compare_jointly(fixed, moving, weight, how)

    def read(self, table: Table, index: Tensor) -> Tensor:
        """Some samples at once."""
        return fields.read(table, index)

    def pull(self, table: Table, index: Tensor, gradient: Tensor) -> Tensor:
        """Some samples at once."""
        return fields.pull(table, index, gradient)

    def spline_product(self, coefficients: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        """Axis by axis, the last one first."""
        return spline.spline_product(coefficients, matrices)

    def spline_adjoint(self, values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        """The same with transposed matrices."""
        return spline.spline_product(values, [matrix.T for matrix in matrices])

    def patch_differences(
        self, image: Tensor, mask: Tensor | None, radius: int, dilation: int
    ) -> tuple[Tensor, Tensor | None]:
        """One comparison for all pairs of the same difference."""
        return mind.patch_differences(image, mask, radius, dilation)

    def compose(self, first: Tensor, second: Tensor, forth: Matrix, back: Matrix) -> Tensor:
        """Slab by slab."""
        return fields.compose(first, second, forth, back)

    def least_corner(self, vox: Tensor) -> Tensor:
        """Corner by corner."""
        return corners.least_corner(vox)

    def jacobian_determinant(self, vox: Tensor) -> Tensor:
        """Slab by slab."""
        return fields.jacobian_determinant(vox)


REFERENCE: Kernels = Reference()
