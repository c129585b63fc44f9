"""A small phantom pair whose images are textures: an alignment sees at once that the headers are right.

The organs of a phantom of this size tell a turn by some degrees so little that every rotation is searched, which takes
four times as long as all the rest.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from conftest import points_of
from moved_pair import scene
from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.phantom import PhantomPair, make_pair


def textured_pair(size: int = 16) -> PhantomPair:
    """Labels, landmarks and truth are those of the phantom, 2 mm of deformation; the images are whole numbers."""
    pair = make_pair(size=size, displacement_mm=2.0)
    here, there = pair.fixed.grid, pair.moving.grid
    fixed = textured(points_of(here) + pair.true_field().mm(), here)
    return replace(pair, fixed=fixed, moving=textured(points_of(there), there))


def textured(points: Tensor, grid: Grid) -> Volume:
    """The texture at ``points`` (3, z, y, x), stored on ``grid``."""
    values = torch.from_numpy(500 + 4 * scene(points.movedim(0, -1).numpy()))
    return Volume(values[None].clamp(min=0).round().float(), grid)
