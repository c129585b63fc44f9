"""What a registration gives back to a clinic: the warped image as a series, and the map as a registration object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Matrix
from semreg.core.sampling import sample, transform_index
from semreg.io.atomic_output import OutputFolder
from semreg.io.bridge import matrix_of
from semreg.io.dicom_objects.registrations import Sides, deformable_object, linear_object
from semreg.io.dicom_objects.series import write_series
from semreg.io.dicom_objects.writing import save
from semreg.io.result_folder import DICOM, REGISTRATION


@dataclass(frozen=True)
class FoundMap:
    """A map fixed → moving in mm: a deformation, if there is one, and a matrix after it."""

    deformation: Field | None
    after: Matrix

    @classmethod
    def of(cls, deformation: Field, affine: Any | None) -> FoundMap:
        """A deformation and the SimpleITK transform that follows it; one that moves nothing is none."""
        after = np.eye(4) if affine is None else matrix_of(affine)
        return cls(deformation if bool(deformation.vox.any()) else None, after)

    def move(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Where points (3, N) in mm lead to."""
        if self.deformation is not None:
            field = self.deformation
            index = transform_index(field.grid.point_to_index(), torch.from_numpy(np.ascontiguousarray(points)))
            vox = field.vox.float()
            shift = sample(vox, index.to(vox)).double().cpu()
            points = np.asarray(transform_index(field.grid.index_to_point(), index + shift).numpy())
        return np.asarray(self.after[:3, :3] @ points + self.after[:3, 3:])


def write_result(found: FoundMap, warped: Volume, sides: Sides, folder: OutputFolder) -> list[str]:
    """Write the warped image as a derived series, and the map as a registration object.

    Args:
        found: the map, fixed → moving.
        warped: the moving image on the fixed grid.
        sides: what the headers of both images say.
        folder: where the files go: the series into its folder ``dicom``, the object beside it.

    Returns:
        The names of the files.

    Raises:
        GeometryError: for a field that is too large for DICOM.
        ConfigError: for images in 2-D.
        ImageError: for an element of a header that cannot be written again.
        OutputError: where the files cannot be written.
    """
    names = write_series(warped, sides.moving, sides.frame, found.move, folder.stage(DICOM))
    if found.deformation is None:
        data = linear_object(found.after, sides)
    else:
        data = deformable_object(found.deformation, found.after, sides)
    save(data, folder.stage(REGISTRATION))
    return [REGISTRATION, *(f"{DICOM}/{name}" for name in names)]
