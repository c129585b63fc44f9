"""Two images of a pipeline and what lies beside the moving one: arrays (1, i, j, k) with an affine to RAS.

Knows no pipeline: MONAI and TorchIO keep images alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semreg.config import RegistrationConfig
from semreg.core.fields import Field, Volume, warp
from semreg.core.geometry import Matrix
from semreg.errors import ImageError
from semreg.io.bridge import Lattice, Samples
from semreg.io.bridge.nifti1 import ras_affine
from semreg.registration.pipeline import register

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Placed:
    """An image of a pipeline: (1, i, j, k), and from (i, j, k) to mm in RAS."""

    data: Tensor
    affine: npt.NDArray[np.float64]

    @classmethod
    def of(cls, volume: Volume, like: Tensor) -> Placed:
        """A volume as a pipeline has it, with the type of ``like``."""
        array = volume.data[0].permute(*reversed(range(volume.grid.dimension)))[None]
        whole = not like.dtype.is_floating_point
        return cls((array.round() if whole else array).to(like.dtype), ras_affine(volume.grid))

    def volume(self) -> Volume:
        """As semreg has it (ImageError for more than one channel)."""
        if len(self.data) != 1:
            raise ImageError(f"expected one channel to register, got {len(self.data)}: pick one")
        array = self.data[0].detach().cpu().numpy()
        matrix: Matrix = (TO_LPS @ np.asarray(self.affine, dtype=np.float64))[:3]
        lattice = Lattice.of_matrix(array.shape, matrix[:, :3], matrix[:, 3])
        return Samples(array.T, *lattice.straight()).volume()


def registered(
    fixed: Placed,
    moving: Placed,
    along: Mapping[str, tuple[Placed, bool]],
    config: RegistrationConfig | None,
    options: Mapping[str, Any],
) -> tuple[Placed, dict[str, Placed], Field]:
    """The moving image on the fixed grid, what lies beside it as well, and the displacement.

    Args:
        fixed: the image that stays.
        moving: the image that is moved.
        along: images in the space of the moving one, each with whether it holds labels, which are read at the nearest
            voxel.
        config: the settings; None: those of ``options``, or the defaults.
        options: what else ``semreg.register`` takes.

    Returns:
        The warped image, the others, and the field, fixed → moving.
    """
    result = register(fixed.volume(), moving.volume(), config=config, **options)
    beside = {
        name: Placed.of(
            warp(each.volume(), result.field, mode="nearest" if labels else "linear", outside=0.0), each.data
        )
        for name, (each, labels) in along.items()
    }
    return Placed.of(result.warped, torch.empty(0)), beside, result.field
