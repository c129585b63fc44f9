"""That both sides of a wall stay in contact, as a term of the objective: neither a gap nor an overlap.

The wall is moved by the displacement of its inside and by that of its outside. Both must give one surface, whatever
moves along it: the distance of a point of one from the plane of the other at its nearest point (Chen, Medioni: Object
modelling by registration of multiple range images, Image and Vision Computing 1992). So a slide along a curved wall
costs nothing, as it would if both displacements were compared in one place. Knows nothing of features.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from semreg.core.geometry import index_map
from semreg.core.sampling import transform_index
from semreg.registration.sliding.wall import WallPoints
from semreg.transforms.bspline import SplineLattice, SplinePoints
from semreg.transforms.pointwise import Distances

SD_VOXELS = 0.5
"""How far both surfaces may be apart: its standard deviation in voxels of the features."""
FAR = 2.0
"""Control intervals along the wall from which on a point has no partner: the other surface ends there."""


class Contact:
    """The term of one level, as a function of the coefficients of both splines.

    The wall of one control interval squared counts as much as the features of one control point.
    """

    def __init__(self, points: WallPoints, lattice: SplineLattice, spacing_mm: float, device: torch.device) -> None:
        """Lay out the splines at the points; no point has a partner yet."""
        index = transform_index(index_map(points.grid, lattice.grid), points.index)
        self.to_mm = torch.as_tensor(lattice.grid.spacing, dtype=torch.float32, device=device).reshape(-1, 1)
        self.place = index.to(device, torch.float32) * self.to_mm
        self.normals = points.normals.to(device, torch.float32)
        self.spline = SplinePoints(lattice, index, device)
        self.slopes = [SplinePoints(lattice, index, device, axis) for axis in range(lattice.grid.dimension)]
        lengths = [step * s for step, s in zip(lattice.step, lattice.grid.spacing, strict=True)]
        self.interval_mm = max(lengths)
        cells = math.prod(max(1.0, n / step) for n, step in zip(lattice.grid.shape, lattice.step, strict=True))
        patch = math.prod(lengths) / max(lengths)
        self.shares = points.areas.to(device, torch.float32) / (patch * cells * (SD_VOXELS * spacing_mm) ** 2)
        self.partner = torch.arange(index.shape[1], device=device)
        self.planes = self.normals
        self.counts = torch.ones_like(self.shares)

    def meet(self, inner: Tensor, outer: Tensor) -> None:
        """Look for the partners of all points where the displacements are those of two coefficients."""
        near, far = self.moved(inner), self.moved(outer)
        found = cKDTree(far.T.cpu().numpy()).query(near.T.cpu().numpy())[1]
        self.partner = torch.as_tensor(found, device=near.device)
        turned = torch.stack([slope(outer) * self.to_mm / self.to_mm[axis] for axis, slope in enumerate(self.slopes)])
        jacobian = turned.permute(2, 1, 0) + torch.eye(len(near), device=near.device)  # (N, D, D)
        carried = torch.linalg.solve(jacobian.transpose(1, 2), self.normals.T[..., None])[..., 0].T
        planes = carried / torch.linalg.vector_norm(carried, dim=0).clamp(min=1e-6)
        self.planes = planes[:, self.partner]
        apart = near - far[:, self.partner]
        along = apart - (apart * self.planes).sum(0) * self.planes
        self.counts = (torch.linalg.vector_norm(along, dim=0) < FAR * self.interval_mm).to(self.shares)

    def moved(self, coefficients: Tensor) -> Tensor:
        """Where the wall is brought by a displacement, (D, N) in mm along the axes."""
        return self.place + self.spline(coefficients) * self.to_mm

    def gaps(self, inner: Tensor, outer: Tensor) -> Tensor:
        """How far the inside is beyond the outside, along the normal of each point, (N,) in mm: below 0 is a gap."""
        return ((self.moved(inner) - self.moved(outer)[:, self.partner]) * self.planes).sum(0)

    def pull(self, inner: Tensor, outer: Tensor, unit: float) -> tuple[float, Tensor, Tensor]:
        """``unit`` times the term, and its gradient in both coefficients."""
        apart = self.gaps(inner, outer)
        weight = unit * self.shares * self.counts
        slope = 2 * weight * apart * self.planes * self.to_mm
        back = torch.zeros_like(slope).index_add_(1, self.partner, slope)
        return float((weight * apart.square()).double().sum()), self.spline.adjoint(slope), -self.spline.adjoint(back)

    def curvature(self, unit: float) -> tuple[Tensor, Tensor]:
        """Upper bounds of its curvature for each coefficient of both."""
        size = self.planes.abs()
        rows = 4 * unit * self.shares * self.counts * size * size.sum(0) * self.to_mm**2
        back = torch.zeros_like(rows).index_add_(1, self.partner, rows)
        return self.spline.adjoint(rows), self.spline.adjoint(back)

    def gaps_mm(self, inner: Tensor, outer: Tensor) -> Distances:
        """The sizes of the gaps and overlaps where both sides are there, (M,) in mm."""
        there = self.counts > 0
        return np.asarray(self.gaps(inner, outer)[there].abs().double().cpu().numpy())

    def slides_mm(self, inner: Tensor, outer: Tensor) -> Distances:
        """How far both displacements of a place are apart along the wall, (N,) in mm."""
        apart = self.moved(inner) - self.moved(outer)
        along = apart - (apart * self.normals).sum(0) * self.normals
        return np.asarray(torch.linalg.vector_norm(along, dim=0).double().cpu().numpy())
