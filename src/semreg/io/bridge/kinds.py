"""What users may hand over as an image, a mask, a transform: types for signatures. Imports no other package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt
from torch import Tensor

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.io.bridge.images import LoadedImage
from semreg.io.bridge.samples import LabelMap


class SimpleITKImage(Protocol):
    """A ``SimpleITK.Image``."""

    def GetPixelIDTypeAsString(self) -> str:  # noqa: N802 - SimpleITK's name
        """Its type of voxels."""


class ITKImage(Protocol):
    """An ``itk.Image``."""

    def GetLargestPossibleRegion(self) -> Any:  # noqa: N802 - ITK's name
        """All of it."""


class NibabelImage(Protocol):
    """An image of nibabel."""

    @property
    def affine(self) -> Any:
        """From indices to mm, RAS."""

    @property
    def dataobj(self) -> Any:
        """Its voxels."""


class SimpleITKTransform(Protocol):
    """A ``SimpleITK.Transform``."""

    def TransformPoint(self, point: Any) -> Any:  # noqa: N802 - SimpleITK's name
        """Where it brings a point."""


ImageLike: TypeAlias = (
    str
    | Path
    | LoadedImage
    | Volume
    | SimpleITKImage
    | ITKImage
    | NibabelImage
    | tuple[npt.NDArray[Any], Grid]
    | tuple[Tensor, Grid]
)
"""An image: a file or a folder of DICOM, or an object of semreg, SimpleITK, itk, nibabel, or an array with its grid."""
LabelsLike: TypeAlias = ImageLike | LabelMap
"""A label map."""
TransformLike: TypeAlias = str | Path | Field | SimpleITKTransform
"""A transform of points fixed → moving in mm: a file of any tool, a Field, or a SimpleITK transform."""
