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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from semreg.core.fields import Field
from semreg.core.geometry import Grid, Matrix, nearest_rotation
from semreg.errors import GeometryError
from semreg.io.bridge import quantised_mm
from semreg.io.dicom_files import careful, is_dicom, read_header
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
from semreg.io.patients import Patient

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


@dataclass(frozen=True)
class Deformation:
    """Displacements Δ in mm on a grid of the registered frame."""

    grid: Grid
    vectors: npt.NDArray[np.float32]
    """(z, y, x, 3), each x, y, z."""


@dataclass(frozen=True)
class DicomMap:
    """A map fixed → moving in mm, LPS: p → ``after`` · (p + Δ(p)), as both kinds of objects can say it."""

    deformation: Deformation | None
    after: Matrix


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


def _described(image: DicomImage) -> dict[str, Any]:
    return {
        "ReferencedImageSequence": [reference(header) for header in image.headers],
        "RegistrationTypeCodeSequence": code("125024", "Image Content-based Alignment"),
    }


def _linear_item(image: DicomImage, matrix: Matrix, frame: str) -> Any:
    described = _described(image)
    kind = described.pop("RegistrationTypeCodeSequence")
    own = item(RegistrationTypeCodeSequence=kind, MatrixSequence=[_matrix_item(matrix)])
    return item(FrameOfReferenceUID=frame, MatrixRegistrationSequence=[own], **described)


def _deformable_item(image: DicomImage, after: Matrix, frame: str) -> Any:
    return item(
        SourceFrameOfReferenceUID=frame,
        PreDeformationMatrixRegistrationSequence=[_matrix_item(np.eye(4))],  # readers expect both matrices
        PostDeformationMatrixRegistrationSequence=[_matrix_item(after)],
        **_described(image),
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


def is_registration(path: Path) -> bool:
    """Whether a file is one of both objects."""
    if not is_dicom(path):
        return False
    try:
        return str(read_header(path)[0].get("SOPClassUID")) in (LINEAR, DEFORMABLE)
    except ValueError:  # damaged: whoever reads it says so
        return False


@careful
def frames_of(path: Path) -> tuple[tuple[str, str], Patient]:
    """The frames of reference of an object, the registered one and that of its source, and its patient.

    The second is empty where several are registered or none says it.
    """
    data, _ = read_header(path)
    registered = str(data.get("FrameOfReferenceUID") or "")
    items = [*(data.get("RegistrationSequence") or ()), *(data.get("DeformableRegistrationSequence") or ())]
    said = {str(each.get("SourceFrameOfReferenceUID") or each.get("FrameOfReferenceUID") or "") for each in items}
    others = said - {registered, ""}
    source = next(iter(others)) if len(others) == 1 else registered if not others else ""
    return (registered, source), Patient.of(data)


@careful
def read_registration(path: Path) -> DicomMap:
    """The map of a registration object, from its registered frame of reference to the source.

    Raises GeometryError for several sources, for matrices that are not affine or singular, and for a grid that is
    none; ImageError for a damaged file. Vectors that are not defined (NaN) get the nearest one, with a warning.
    """
    data, _ = read_header(path)
    if str(data.SOPClassUID) == LINEAR:
        return DicomMap(None, _inverse(_source_matrix(data, path), path))
    items = list(data.get("DeformableRegistrationSequence") or ())
    found = [each for each in items if each.get("DeformableRegistrationGridSequence")]
    found = found or [each for each in items if not np.allclose(_both(each, path), np.eye(4), atol=1e-9)] or items[-1:]
    if len(found) != 1:
        raise _several(found, path, "SourceFrameOfReferenceUID")
    before = _single(found[0], "PreDeformationMatrixRegistrationSequence", path)
    after = _single(found[0], "PostDeformationMatrixRegistrationSequence", path)
    grids = found[0].get("DeformableRegistrationGridSequence")
    if not grids:
        return DicomMap(None, after @ before)
    grid, vectors = _read_grid(grids[0], path)
    # M_post (M_pre p + Δ) = M_post M_pre (p + M_pre⁻¹ Δ): one field on the same grid, then one matrix
    turned = vectors @ _inverse(before, path)[:3, :3].T
    return DicomMap(Deformation(grid, turned.astype(np.float32)), after @ before)


def _source_matrix(data: Any, path: Path) -> Matrix:
    """The matrix source → registered frame of the one item that says one."""
    items = list(data.get("RegistrationSequence") or ())
    matrices = [_product(each, path) for each in items]
    moved = [i for i, matrix in enumerate(matrices) if not np.allclose(matrix, np.eye(4), rtol=0, atol=1e-9)]
    if len(moved) > 1 or not items:
        raise _several([items[i] for i in moved], path, "FrameOfReferenceUID")
    return matrices[moved[0]] if moved else np.eye(4)


def _product(each: Any, path: Path) -> Matrix:
    """The matrices of one item, the first applied first (PS3.3 C.20.2.1.1)."""
    matrix = np.eye(4)
    for part in each.MatrixRegistrationSequence[0].MatrixSequence:
        matrix = _matrix(part, path) @ matrix
    return matrix


def _both(each: Any, path: Path) -> Matrix:
    names = "PostDeformationMatrixRegistrationSequence", "PreDeformationMatrixRegistrationSequence"
    return np.asarray(_single(each, names[0], path) @ _single(each, names[1], path))


def _single(each: Any, name: str, path: Path) -> Matrix:
    items = each.get(name)
    return _matrix(items[0], path) if items else np.eye(4)


def _matrix(part: Any, path: Path) -> Matrix:
    values = np.array([float(v) for v in part.FrameOfReferenceTransformationMatrix])
    affine = values.size == 16 and np.isfinite(values).all() and np.allclose(values[12:], [0, 0, 0, 1], atol=1e-9)
    if not affine:
        raise GeometryError(f"expected affine matrices of 16 finite numbers in {path}, got others: export it again")
    return values.reshape(4, 4)


def _inverse(matrix: Matrix, path: Path) -> Matrix:
    if abs(np.linalg.det(matrix)) < 1e-12:
        raise GeometryError(f"expected a matrix that can be inverted in {path}, got a singular one: export it again")
    return np.asarray(np.linalg.inv(matrix))


def _several(items: Sequence[Any], path: Path, name: str) -> GeometryError:
    uids = ", ".join(str(each.get(name)) for each in items) or "none"
    return GeometryError(
        f"expected one image that is registered in {path}, got {len(items)} ({uids}): export one registration"
    )


def _read_grid(data: Any, path: Path) -> tuple[Grid, npt.NDArray[np.float32]]:
    """The grid and its vectors (z, y, x, 3) in mm."""
    cosines = np.array([float(v) for v in data.ImageOrientationPatient])
    rows, columns = cosines[:3], cosines[3:]
    axes = nearest_rotation(np.stack([rows, columns, np.cross(rows, columns)], 1))
    size = tuple(int(v) for v in data.GridDimensions)
    spacing = tuple(float(v) for v in data.GridResolution)
    origin = tuple(float(v) for v in data.ImagePositionPatient)
    grid = Grid(size, spacing, origin, tuple(map(tuple, axes.tolist())))
    values = np.frombuffer(data.VectorGridData, "<f4")
    if values.size != 3 * grid.voxels:
        raise GeometryError(
            f"expected {3 * grid.voxels} numbers for a grid of {' × '.join(map(str, size))} vectors in {path}, got "
            f"{values.size}: export it again"
        )
    vectors = values.reshape(*grid.shape, 3)
    unknown = ~np.isfinite(vectors).all(-1)
    if unknown.all():
        raise GeometryError(f"expected displacements in {path}, got none that is a number: export it again")
    if unknown.any():
        logger.warning(
            "%s: %d of %d displacements are not defined: the nearest one stands for each, which is a guess",
            path, int(unknown.sum()), unknown.size,
        )  # fmt: skip
        nearest = scipy.ndimage.distance_transform_edt(
            unknown, sampling=grid.spacing, return_distances=False, return_indices=True
        )
        vectors = vectors[tuple(nearest)]
    return grid, vectors
