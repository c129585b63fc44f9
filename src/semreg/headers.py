"""What the header of a NIfTI file says that a reader must not pass over: units, spacing, two frames. Knows no voxels.

ITK reads such headers without a word; here it is checked what it made of them.
"""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semreg.errors import GeometryError
from semreg.geometry import Grid, Matrix
from semreg.nifti import HEADER_BYTES

UNITS_MM = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}
"""Code of the unit of length in ``xyzt_units`` → its name and its length in mm; 2 is mm, 0 says nothing."""
DIFFERENT = 0.1
"""Distance, in voxels, from which two frames of one file are different."""


@dataclass(frozen=True)
class _Header:
    """What a NIfTI-1 header says of space; points are RAS in the file's unit."""

    sizes: tuple[int, ...]
    pixdim: tuple[float, ...]
    unit: int
    codes: tuple[int, int]
    """qform_code and sform_code, 0: there is none."""
    quaternion: tuple[float, ...]
    offset: tuple[float, ...]
    qfac: float
    rows: tuple[float, ...]


def check_nifti(path: Path, grid: Grid) -> list[str]:
    """What was repaired or is doubtful in the header of a NIfTI-1 file that ITK reads as ``grid``, one sentence each.

    Empty for any other file. Raises GeometryError for a spacing of 0, or one that is no number, along an axis of
    several voxels, which ITK takes for 1 mm.
    """
    header = _read(path)
    if header is None:
        return []
    bad = [s for n, s in zip(header.sizes, header.pixdim, strict=True) if n > 1 and not (np.isfinite(s) and s != 0)]
    if bad:
        raise GeometryError(
            f"expected a positive spacing in the header, got {bad[0]:g} among {header.pixdim}: correct the header"
        )
    return [note for note in (_units(header, grid), _odd_spacing(header), _two_frames(header, grid)) if note]


def _read(path: Path) -> _Header | None:
    """The header of a NIfTI-1 file, None for anything else."""
    if not path.name.endswith((".nii", ".nii.gz")):
        return None
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            data = file.read(HEADER_BYTES)
    except (OSError, EOFError):
        return None
    if len(data) < HEADER_BYTES or data[344:348] != b"n+1\0":
        return None
    order = "<" if struct.unpack_from("<i", data)[0] == 348 else ">"
    axes, *sizes = struct.unpack_from(f"{order}8h", data, 40)
    qfac, *pixdim = struct.unpack_from(f"{order}8f", data, 76)
    count = min(3, axes)
    quaternion = struct.unpack_from(f"{order}6f", data, 256)
    return _Header(
        tuple(sizes[:count]), tuple(pixdim[:count]), data[123] & 7, struct.unpack_from(f"{order}2h", data, 252),
        quaternion[:3], quaternion[3:], -1.0 if qfac < 0 else 1.0, struct.unpack_from(f"{order}12f", data, 280),
    )  # fmt: skip


def _units(header: _Header, grid: Grid) -> str:
    if header.unit not in UNITS_MM:
        return ""
    name, length = UNITS_MM[header.unit]
    spacing = " × ".join(f"{s:.4g}" for s in grid.spacing_xyz)
    return f"its header is in {name}: multiplied by {length:g}, which gives a spacing of {spacing} mm"


def _odd_spacing(header: _Header) -> str:
    spacing = ", ".join(f"{s:g}" for s in header.pixdim)
    if not all(np.isfinite(s) and s != 0 for s in header.pixdim):
        return f"the spacing along an axis of one voxel is missing ({spacing}): it counts as 1 mm"
    return ""


def _two_frames(header: _Header, grid: Grid) -> str:
    """Where sform and qform put a corner of the image at different places, how far, and which is used."""
    if min(header.codes) <= 0 or len(header.sizes) < 3 or grid.dimension < 3:
        return ""
    scale = UNITS_MM.get(header.unit, ("", 1.0))[1]
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
    corners[:, :3] *= np.array(header.sizes) - 1
    lps = np.diag([-scale, -scale, scale])
    by_qform, by_sform = (corners @ (lps @ matrix).T for matrix in (_qform(header), np.reshape(header.rows, (3, 4))))
    apart = float(np.linalg.norm(by_qform - by_sform, axis=1).max())
    if apart <= DIFFERENT * min(grid.spacing):
        return ""
    index = np.column_stack([corners[:, 2::-1], np.ones(len(corners))])
    used = (grid.index_to_point() @ index.T)[:3].T
    to_qform, to_sform = (np.linalg.norm(used - points, axis=1).max() for points in (by_qform, by_sform))
    chosen = "qform" if to_qform < to_sform else "sform"
    return f"its sform and qform differ by up to {apart:.4g} mm: the {chosen} is used, as ITK does"


def _qform(header: _Header) -> Matrix:
    """The rows (3, 4) of the matrix from voxels (i, j, k) to RAS that the quaternion says."""
    b, c, d = header.quaternion
    a = np.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
    rotation: npt.NDArray[np.float64] = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    scales = np.abs(header.pixdim) * np.array([1.0, 1.0, header.qfac])
    return np.column_stack([rotation * scales, header.offset])
