"""What a network is that registers in one pass: how images are prepared for it, and what its numbers mean.

Whatever decides where a point goes must be said; nothing of that is guessed from the network or from its file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from semreg.core.fields import Field
from semreg.core.geometry import ANATOMY, Grid
from semreg.core.sampling import base_index
from semreg.core.shapes import Vectors
from semreg.features.contract import LARGEST, Normalisation
from semreg.runtime.settings import require

NORMALISED = ("unit-cube", "minus-one-to-one")
"""Units that go from one end of an axis to the other."""


@dataclass(frozen=True, kw_only=True)
class RegistrarSpec:
    """A network that takes two images and returns a displacement field, as a start for a registration.

    Read from the TOML file beside the model (``net.pt`` → ``net.toml``), or given in Python. A tuple "per axis" is in
    the order of the network's own tensor axes.
    """

    first: Literal["fixed", "moving"]
    """Which image is the first input, or the first channel of the only one."""
    direction: Literal["fixed-to-moving", "moving-to-fixed"]
    """``fixed-to-moving``: at a voxel of the fixed image, where it is found in the moving one; so do networks whose
    spatial transformer reads the moving image through their output. ``moving-to-fixed``: at a voxel of the moving
    image, where it goes."""
    unit: Literal["voxels", "unit-cube", "minus-one-to-one", "mm"]
    """Of the output: voxels of its grid; 1 or 2 from one end of the axis to the other; mm along its axes."""
    components: Literal["tensor", "reversed"]
    """``tensor``: the first component moves along the first tensor axis. ``reversed``: along the last one, as in
    ``grid_sample``."""
    ends: Literal["centres", "edges"] | None = None
    """With ``unit-cube`` and ``minus-one-to-one``: whether an axis ends at the centres of its outer voxels
    (``align_corners=True``) or at their outer edges."""
    gives: Literal["displacement", "positions"] = "displacement"
    """``positions``: where a point goes instead of by how much; mm then count from the centre of the first voxel."""
    output: int = 0
    """Which output it is, of a network that returns several; −1 is the last."""
    dimension: Literal[2, 3] = 3
    """Spatial axes of its input."""
    shape: tuple[int, ...] | None = None
    """Input size in voxels per axis. Alone: the box of the fixed image is brought to that many voxels. With
    ``spacing_mm``: so many of them around its middle. None: what ``spacing_mm`` needs, or what the program fixes."""
    spacing_mm: tuple[float, ...] | None = None
    """Voxel size that it was trained at, mm: one number or one per axis."""
    multiple: int = 1
    """Input sizes are multiples of this many voxels, where ``shape`` leaves them open."""
    axes: str | None = None
    """Directions in which its tensor axes grow, first axis first, as for ``semreg.ModelSpec``. None: ``SPL``, of images
    ``PL``."""
    normalisation: Normalisation = field(default_factory=Normalisation)
    """What happens to the intensities, with the statistics of each image itself."""
    name: str = ""
    """For messages and records. Empty: the name of the file."""
    sha256: str | None = None
    """Checksum of the file; another file is refused."""
    licence: str = ""
    source: str = ""
    """Where it comes from: a URL, a paper."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        n = self.dimension
        whole = self.shape is None or (len(self.shape) == n and 1 <= min(self.shape) <= max(self.shape) < LARGEST)
        require(whole, f"shape with {n} positive numbers of voxels", self.shape)
        lengths = self.spacing_mm
        fits = lengths is None or (len(lengths) in (1, n) and 0 < min(lengths) <= max(lengths) < LARGEST)
        require(fits, f"spacing_mm with one positive number or {n} of them", lengths)
        require(self.multiple >= 1, "multiple >= 1 voxel", self.multiple)
        spanned = sorted(ANATOMY.get(letter, (-1, 0))[0] for letter in self.letters) == list(range(n))
        require(spanned, f"axes such as {'SPL' if n == 3 else 'PL'}, one letter for each axis", repr(self.axes))
        if self.unit in NORMALISED:
            require(self.ends is not None, f"ends, centres or edges, with the unit {self.unit}", "none")
        else:
            require(self.ends is None, f"no ends with the unit {self.unit}", self.ends)

    @property
    def letters(self) -> str:
        """``axes``, or the usual ones."""
        return "SPL"[-self.dimension :] if self.axes is None else self.axes

    def input_grid(self, image: Grid) -> Grid:
        """The grid of both inputs, its middle that of the fixed image, whose axes ``image`` has in the network's order.

        ``shape`` or ``spacing_mm`` is set.
        """
        wanted = self.spacing_mm or tuple(e / n for e, n in zip(image.extent_mm, self.shape or (), strict=True))
        spacing = wanted * image.dimension if len(wanted) == 1 else wanted
        shape = self.shape or tuple(
            self.multiple * max(1, math.ceil(extent / step / self.multiple - 1e-3))
            for extent, step in zip(image.extent_mm, spacing, strict=True)
        )
        steps = [a / b for a, b in zip(spacing, image.spacing, strict=True)]
        begin = [(n - 1) / 2 - (m - 1) / 2 * k for n, m, k in zip(image.shape, shape, steps, strict=True)]
        return image.lattice(begin, steps, shape)

    def field_of(self, output: Vectors, grid: Grid) -> Field:
        """The displacement fixed → moving that an output (D, *S) on the input grid stands for."""
        ordered = output.flip(0) if self.components == "reversed" else output
        scale, shift = self._to_voxels(grid)
        vox = ordered * _column(scale, ordered)
        if self.gives == "positions":
            vox = vox + _column(shift, ordered) - base_index(grid.shape, like=ordered)
        found = Field(vox, grid)
        return found.inverse() if self.direction == "moving-to-fixed" else found

    def _to_voxels(self, grid: Grid) -> tuple[list[float], list[float]]:
        """For each axis voxels per unit, and the index of the position 0."""
        sizes = np.array(grid.shape, dtype=np.float64)
        spans = sizes - 1 if self.ends == "centres" else sizes
        if self.unit == "unit-cube":
            return list(spans), [0.0 if self.ends == "centres" else -0.5] * len(sizes)
        if self.unit == "minus-one-to-one":
            return list(spans / 2), list((sizes - 1) / 2)
        scale = np.ones_like(sizes) if self.unit == "voxels" else 1 / np.array(grid.spacing)
        return list(scale), [0.0] * len(sizes)


def _column(values: list[float], like: Vectors) -> Float[Tensor, "d *_one"]:
    """One number for each component, beside vectors (D, *S)."""
    return torch.tensor(values, dtype=like.dtype, device=like.device).reshape(-1, *[1] * (like.ndim - 1))
