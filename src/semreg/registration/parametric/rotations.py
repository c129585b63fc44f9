"""Which rotations a search tries."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from semreg.core.fields import Volume
from semreg.core.geometry import Grid, Matrix, canonical_order, reorder

RING_DEG = 20.0
"""How far the orientations lie that the one of the headers is compared with."""
LATTICE_DEG = 22.0
"""Edge of the body-centred lattice of rotation vectors: no rotation is more than about 12° from one of them."""
CIRCLE_DEG = 10.0
"""Step of the angles in 2-D."""
ISOTROPIC = 1.05
"""Principal axes whose standard deviations differ by less than this ratio have no direction."""


def rotation(vector_deg: tuple[float, ...]) -> Matrix:
    """The rotation by a vector of degrees: (3,) in 3-D, (1,), an angle, in 2-D."""
    if len(vector_deg) == 1:
        c, s = math.cos(math.radians(vector_deg[0])), math.sin(math.radians(vector_deg[0]))
        return np.array([[c, -s], [s, c]])
    return np.asarray(Rotation.from_rotvec(vector_deg, degrees=True).as_matrix())


def ring(dimension: int) -> list[Matrix]:
    """Rotations by ``RING_DEG`` about each axis, both ways."""
    axes = 1 if dimension == 2 else 3
    vectors = [RING_DEG * sign * np.eye(axes)[axis] for axis in range(axes) for sign in (1, -1)]
    return [rotation(tuple(vector)) for vector in vectors]


def ball(dimension: int, largest_deg: float) -> list[Matrix]:
    """Rotations up to ``largest_deg`` that leave no gap, the smallest first, without that by nothing."""
    if dimension == 2:
        count = int(min(largest_deg, 180.0) / CIRCLE_DEG + 1e-9)
        angles = [sign * k * CIRCLE_DEG for k in range(1, count + 1) for sign in (1, -1)]
        return [rotation((angle,)) for angle in angles if angle > -180.0]
    reach = largest_deg + LATTICE_DEG / 4
    count = math.ceil(reach / LATTICE_DEG) + 1
    corners = [np.array(k, dtype=np.float64) for k in itertools.product(range(-count, count + 1), repeat=3)]
    points = [LATTICE_DEG * (corner + shift) for corner in corners for shift in (0.0, 0.5)]
    lengths = [float(np.linalg.norm(point)) for point in points]
    chosen = [(n, tuple(p)) for n, p in zip(lengths, points, strict=True) if 0 < n <= min(reach, 180.0)]
    return [rotation(vector) for _, vector in sorted(chosen)]


def between_axes(fixed: Grid, moving: Grid) -> Matrix:
    """The rotation that turns the axes of the fixed image into those of the moving one, each named as it lies nearest.

    As if the patient had lain straight in both scanners.
    """
    axes = [np.asarray(reorder(grid, canonical_order(grid)).direction) for grid in (fixed, moving)]
    return np.asarray(axes[1] @ axes[0].T)


def between_moments(fixed: Volume, moving: Volume) -> list[Matrix]:
    """Rotations that turn the principal axes of one weight (1, *S) into those of the other; none if they have none."""
    frames = [principal_axes(volume) for volume in (fixed, moving)]
    if frames[0] is None or frames[1] is None:
        return []
    n = len(frames[0])
    found = []
    for signs in itertools.product((1.0, -1.0), repeat=n):
        turned = (frames[1] * np.array(signs)) @ frames[0].T
        if np.linalg.det(turned) > 0:
            found.append(np.asarray(turned))
    return found


def principal_axes(weight: Volume) -> Matrix | None:
    """The principal axes of a weight as columns, the longest first; None if they are not distinct."""
    share = weight.data[0].flatten().double()
    if float(share.sum()) <= 0:
        return None
    n = weight.grid.dimension
    index = torch.stack(
        torch.meshgrid(*[torch.arange(k, dtype=torch.float64) for k in weight.grid.shape], indexing="ij")
    ).flatten(1)
    share = share.cpu() / share.sum().cpu()
    centred = index - (index * share).sum(1, keepdim=True)
    linear = weight.grid.index_to_point()[:n, :n]
    covariance = linear @ ((centred * share) @ centred.T).numpy() @ linear.T
    values, vectors = np.linalg.eigh(covariance)
    deviations = np.sqrt(np.maximum(values[::-1], 0))
    if (deviations[:-1] <= ISOTROPIC * deviations[1:]).any():
        return None
    return np.asarray(vectors[:, ::-1])
