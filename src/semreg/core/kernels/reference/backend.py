"""The functions in torch as one backend."""

from __future__ import annotations

from semreg.core.kernels.contract import Kernels
from semreg.core.kernels.reference import compression, corners, fields, mind, search, spline


class Reference:
    """See ``Kernels``: candidate by candidate, axis by axis, and some samples, nodes or slabs at once."""

    cost_volume = staticmethod(search.cost_volume)
    coupled_choice = staticmethod(search.coupled_choice)
    compare = staticmethod(fields.compare)
    compare_jointly = staticmethod(fields.compare_jointly)
    read = staticmethod(fields.read)
    pull = staticmethod(fields.pull)
    spline_product = staticmethod(spline.spline_product)
    spline_adjoint = staticmethod(spline.spline_adjoint)
    compression = staticmethod(compression.compression)
    patch_differences = staticmethod(mind.patch_differences)
    compose = staticmethod(fields.compose)
    least_corner = staticmethod(corners.least_corner)
    jacobian_determinant = staticmethod(fields.jacobian_determinant)


REFERENCE: Kernels = Reference()
