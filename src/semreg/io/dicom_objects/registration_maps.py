"""Registration objects of DICOM read as maps fixed → moving, whoever wrote them; ``registrations`` says which way."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from semreg.core.geometry import Grid, Matrix, nearest_rotation
from semreg.errors import GeometryError
from semreg.io.dicom_files import careful, is_dicom, read_header
from semreg.io.dicom_objects.registrations import DEFORMABLE, LINEAR
from semreg.io.patients import Patient

logger = logging.getLogger("semreg")


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
