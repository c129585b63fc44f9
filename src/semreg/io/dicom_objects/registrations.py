"""Spatial Registration and Deformable Spatial Registration objects: the map between two frames of reference, in mm.

The two lead opposite ways (PS3.17 O.1). The matrix of a Spatial Registration brings points of the source to the
registered frame (PS3.3 C.20.2.1.1); a Deformable Spatial Registration says where in the source a point of the
registered frame is sampled (PS3.3 C.20.3.1.1):

    source = M_post (M_pre (p) + Δ(p)),   p in the registered frame

The registered frame is that of the fixed image, the source that of the moving one. So the second leads as all
transforms of semreg do, fixed → moving, and the first is their inverse.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from semreg.core.fields import Field
from semreg.core.geometry import Matrix
from semreg.errors import GeometryError
from semreg.io.bridge import quantised_mm
from semreg.io.dicom_objects.headers import DicomImage
from semreg.io.dicom_objects.writing import (
    code,
    decimals,
    item,
    made_by_semreg,
    new_uid,
    of_study,
    put,
    refer_to,
    reference,
    stamp,
)

logger = logging.getLogger("semreg")

LINEAR = "1.2.840.10008.5.1.4.1.1.66.1"
"""Spatial Registration Storage."""
DEFORMABLE = "1.2.840.10008.5.1.4.1.1.66.3"
"""Deformable Spatial Registration Storage."""
ORTHOGONAL = 1e-6
"""Largest |MᵀM − 1| of a matrix that counts as a rotation."""
MOST_BYTES = 2**32 - 2
"""Of one element of DICOM."""


@dataclass(frozen=True)
class Sides:
    """What a registration object joins, and the frames of reference of both."""

    fixed: DicomImage | None
    """None: the fixed image is in no DICOM."""
    moving: DicomImage
    frame: str
    """The Frame of Reference UID of the fixed image, the registered frame."""
    source: str
    """That of the moving image."""

    @classmethod
    def of(cls, fixed: DicomImage | None, moving: DicomImage) -> Sides:
        """Both images; a frame of reference that is not known is a new one, and the log says so."""
        frames = {"fixed": "" if fixed is None else fixed.frame, "moving": moving.frame}
        for role, frame in frames.items():
            if not frame:
                logger.warning(
                    "the %s image says no frame of reference: what is written in DICOM gets a new one, which no other "
                    "object shares",
                    role,
                )  # fmt: skip
        return cls(fixed, moving, frames["fixed"] or new_uid(), frames["moving"] or new_uid())

    @property
    def known(self) -> tuple[DicomImage, ...]:
        """The images that have headers, the fixed one first."""
        return (self.moving,) if self.fixed is None else (self.fixed, self.moving)

    @property
    def framed(self) -> tuple[tuple[DicomImage, str], ...]:
        """The same with the frame of reference of each."""
        known = [] if self.fixed is None else [(self.fixed, self.frame)]
        return (*known, (self.moving, self.source))


def linear_object(matrix: Matrix, sides: Sides) -> Any:
    """A Spatial Registration object (PS3.3 A.39.1) of a linear map.

    Args:
        matrix: fixed → moving, homogeneous (4, 4) in mm.
        sides: the images.

    Returns:
        A data set of pydicom.
    """
    data = _begun(sides, LINEAR)
    back = np.asarray(np.linalg.inv(matrix))
    put(
        data,
        RegistrationSequence=[
            _linear_item(image, back if image is sides.moving else np.eye(4), frame) for image, frame in sides.framed
        ],
    )
    return data


def deformable_object(field: Field, after: Matrix, sides: Sides) -> Any:
    """A Deformable Spatial Registration object (PS3.3 A.39.2).

    Args:
        field: displacements on the fixed image's grid, fixed → moving; their values are those of ``write_field``.
        after: what follows them, homogeneous (4, 4) in mm.
        sides: the images.

    Returns:
        A data set of pydicom.

    Raises:
        GeometryError: for a field that does not fit into one element.
    """
    if 12 * field.grid.voxels > MOST_BYTES:
        raise GeometryError(
            f"expected a field of at most {MOST_BYTES // 12} voxels in DICOM, got {field.grid.voxels}: leave --dicom "
            "out, or register a coarser fixed image"
        )
    data = _begun(sides, DEFORMABLE)
    items = [
        _deformable_item(image, after if image is sides.moving else np.eye(4), frame) for image, frame in sides.framed
    ]
    put(items[-1], DeformableRegistrationGridSequence=[_grid_item(field)])
    put(data, DeformableRegistrationSequence=items)
    return data


def _begun(sides: Sides, sop_class: str) -> Any:
    """Patient, study, series, frame of reference, equipment and content of a registration object."""
    data = of_study(sides.known[0].first)
    stamp(data, sop_class)
    made_by_semreg(data)
    put(
        data, Modality="REG", SeriesInstanceUID=new_uid(), SeriesNumber=1, InstanceNumber=1,
        SeriesDescription="semreg registration", ContentLabel="REGISTRATION", ContentCreatorName="",
        ContentDescription="", FrameOfReferenceUID=sides.frame,
        PositionReferenceIndicator=str(sides.known[0].first.get("PositionReferenceIndicator") or ""),
    )  # fmt: skip
    refer_to(data, sides.known)
    return data


def _references(image: DicomImage) -> list[Any]:
    return [reference(header) for header in image.headers]


def _kind() -> Any:
    return code("125024", "Image Content-based Alignment")


def _linear_item(image: DicomImage, matrix: Matrix, frame: str) -> Any:
    own = item(RegistrationTypeCodeSequence=_kind(), MatrixSequence=[_matrix_item(matrix)])
    return item(FrameOfReferenceUID=frame, MatrixRegistrationSequence=[own], ReferencedImageSequence=_references(image))


def _deformable_item(image: DicomImage, after: Matrix, frame: str) -> Any:
    return item(
        SourceFrameOfReferenceUID=frame,
        PreDeformationMatrixRegistrationSequence=[_matrix_item(np.eye(4))],  # readers expect both matrices
        PostDeformationMatrixRegistrationSequence=[_matrix_item(after)],
        ReferencedImageSequence=_references(image),
        RegistrationTypeCodeSequence=_kind(),
    )


def _matrix_item(matrix: Matrix) -> Any:
    return item(
        FrameOfReferenceTransformationMatrix=decimals(matrix.ravel()),
        FrameOfReferenceTransformationMatrixType=kind_of_matrix(matrix),
    )


def kind_of_matrix(matrix: Matrix) -> str:
    """RIGID, RIGID_SCALE or AFFINE (PS3.3 C.20.2.1.2)."""
    product = matrix[:3, :3].T @ matrix[:3, :3]
    if np.abs(product - np.eye(3)).max() < ORTHOGONAL and np.linalg.det(matrix[:3, :3]) > 0:
        return "RIGID"
    scaled = np.abs(product - np.diag(np.diag(product))).max() < ORTHOGONAL
    return "RIGID_SCALE" if scaled and np.linalg.det(matrix[:3, :3]) > 0 else "AFFINE"


def _grid_item(field: Field) -> Any:
    """The grid, whose third axis is the cross product of the others: that of a left-handed image is turned round."""
    grid = field.grid
    axes, origin = np.asarray(grid.direction), np.asarray(grid.origin_xyz)
    vectors = np.stack([quantised_mm(field, component).numpy() for component in range(3)], -1)
    if np.linalg.det(axes) < 0:
        origin = origin + axes[:, 2] * (grid.size_xyz[2] - 1) * grid.spacing_xyz[2]
        vectors = vectors[::-1]
    return item(
        ImagePositionPatient=decimals(origin),
        ImageOrientationPatient=decimals(axes[:, :2].T.ravel()),
        GridDimensions=list(grid.size_xyz),
        GridResolution=list(grid.spacing_xyz),
        VectorGridData=np.ascontiguousarray(vectors, dtype="<f4").tobytes(),
    )
