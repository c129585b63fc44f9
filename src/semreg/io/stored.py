"""An image as its file holds it. Reads no file and knows nothing of ITK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt

from semreg.config import Modality
from semreg.core.geometry import Grid, Matrix
from semreg.io.bridge import Samples
from semreg.io.patients import Origin
from semreg.io.pictures import grey


@dataclass(frozen=True)
class Stored:
    """The voxels of a file, where they lie, and what else it says."""

    array: npt.NDArray[Any]
    """(z, y, x), with the components as a further last axis if there are several, and frames as a first one."""
    grid: Grid
    index: Matrix | None
    """From an index of ``grid`` to one of the array where the file's axes are sheared; None: they are the same."""
    pixel_type: str
    components: int = 1
    frames: tuple[float, float] | None = None
    """Origin and spacing of the axis of frames; None: there is none."""
    segments: Mapping[str, str] = field(default_factory=dict)
    """What 3D Slicer stores of segments, such as ``Segment0_Name``."""
    modality: Modality | None = None
    """What its DICOM header says that it is; None: nothing, as in other formats."""
    oriented: bool | None = None
    """Whether its header says how the patient lies: DICOM does, NIfTI without codes does not; None: it may."""
    origin: Origin | None = None
    """Of whom and in which frame it is by its DICOM header; None: it is in another format."""

    def grey(self) -> Stored:
        """Colours as their luminance."""
        return replace(self, array=grey(self.array), components=1)

    def samples(self) -> Samples:
        """One value a voxel."""
        return Samples(self.array, self.grid, self.index)
