"""What the header of a NIfTI file says, and where it puts the voxels: the one place that chooses between two frames.

Knows no voxels and nothing of ITK. Analyze 7.5 is read as a NIfTI header that says no place.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semreg.core.geometry import Matrix
from semreg.errors import GeometryError, ImageError

HEADER_BYTES = 352
"""The header and the four bytes that say that no extension follows."""
HEADER_BYTES_2 = 544
"""The same of NIfTI-2."""
SECOND = (b"n+2\0", b"ni2\0")
"""Where NIfTI-2 says what it is: at byte 4."""
LONGEST_EXTENSION = 1 << 26
"""Bytes between the header and the voxels of NIfTI-2."""
UNITS_MM = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}
"""Code of the unit of length in ``xyzt_units`` → its name and its length in mm; 2 is mm, 0 says nothing."""
BITS = {2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64, 2304: 32}
"""Bits of a voxel by its type: readers go by the type, whatever the header says of the bits."""
SCANNER = 1
"""NIFTI_XFORM_SCANNER_ANAT."""
DIFFERENT = 0.1
"""Distance, in voxels, from which two places are different."""
SINGLE = (".nii", ".nii.gz")
PAIRED = (".hdr", ".hdr.gz", ".img", ".img.gz")


@dataclass(frozen=True)
class NiftiHeader:
    """What a header says; points are RAS in the file's unit."""

    sizes: tuple[int, ...]
    """Of all axes."""
    pixdim: tuple[float, ...]
    """Of the first three axes, or as many as there are."""
    unit: int
    codes: tuple[int, int]
    """qform_code and sform_code, 0: there is none."""
    quaternion: tuple[float, ...]
    offset: tuple[float, ...]
    qfac: float
    rows: tuple[float, ...]
    datatype: int = 0
    bits: int = 0
    starts: int = 0
    """The byte of the file of voxels at which they start, -1 where it is no number."""
    single: bool = False
    """Whether header and voxels are one file."""
    axes: int = 3
    """The number of axes, whatever it is; ``sizes`` is empty where there cannot be so many."""
    scaling: tuple[float, float] = (0.0, 0.0)
    order: str = "<"
    version: int = 1

    @property
    def least(self) -> int:
        """The first byte at which the voxels can start."""
        return (HEADER_BYTES if self.version == 1 else HEADER_BYTES_2) if self.single else 0

    @property
    def scale(self) -> float:
        """Length of the file's unit in mm."""
        return UNITS_MM.get(self.unit, ("", 1.0))[1]


@dataclass(frozen=True)
class NiftiPlace:
    """Where the voxels lie: ``matrix`` (3, 4) from (i, j, k) to mm, LPS, by the frame ``source`` (sform, qform, "")."""

    matrix: Matrix
    source: str


def is_nifti_name(path: Path, endings: tuple[str, ...] = SINGLE + PAIRED) -> bool:
    """Whether a file is named as NIfTI (or Analyze) files are, whatever the case."""
    return path.name.lower().endswith(endings)


def read_header(path: Path) -> NiftiHeader | None:
    """The header of a NIfTI file or pair, or of Analyze 7.5; None for anything else."""
    if not is_nifti_name(path):
        return None
    header = next((each for each in (path, *beside(path)) if ".img" not in each.name.lower()), path)
    try:
        with opened(header) as file:
            data = file.read(HEADER_BYTES)
            if data[4:8] in SECOND:
                data += file.read(HEADER_BYTES_2 - HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        return None
    return parse_header(data, analyze=is_nifti_name(header, PAIRED))


def beside(path: Path) -> tuple[Path, ...]:
    """The other file of a pair of header and voxels, if it is there, in the case of the name that is given."""
    name = path.name
    own = next((ending for ending in PAIRED if name.lower().endswith(ending)), None)
    if own is None:
        return ()
    stem, given = name[: -len(own)], name[-len(own) :]
    kind = ".img" if own.startswith(".hdr") else ".hdr"
    kinds = (kind.upper(), kind) if given.isupper() else (kind, kind.upper())
    found = (path.with_name(stem + each + packed) for each in kinds for packed in ("", ".gz", ".GZ"))
    return tuple([each for each in found if each.is_file()][:1])


def opened(path: Path) -> gzip.GzipFile:
    """The file, unpacked where it is packed."""
    return gzip.open(path) if is_packed(path) else path.open("rb")  # type: ignore[return-value]


def is_packed(path: Path) -> bool:
    """Whether a file is one of gzip, by its first bytes: names may say something else. Raises OSError."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def parse_header(data: bytes, *, analyze: bool = False) -> NiftiHeader | None:
    """The header in the first bytes of a file; ``analyze``: one without a magic word is of Analyze 7.5."""
    if len(data) < 348:
        return None
    if data[4:8] in SECOND and len(data) >= HEADER_BYTES_2 - 4:
        return _parse_second(data)
    magic = data[344:348]
    order = next((o for o in "<>" if struct.unpack_from(f"{o}i", data)[0] == 348), None)
    if order is None or (magic not in (b"n+1\0", b"ni1\0") and not analyze):
        return None
    named = magic in (b"n+1\0", b"ni1\0")
    axes, *sizes = struct.unpack_from(f"{order}8h", data, 40)
    qfac, *pixdim = struct.unpack_from(f"{order}8f", data, 76)
    starts, slope, intercept = struct.unpack_from(f"{order}3f", data, 108)
    quaternion = struct.unpack_from(f"{order}6f", data, 256)
    codes = struct.unpack_from(f"{order}2h", data, 252)
    datatype, bits = struct.unpack_from(f"{order}2h", data, 70)
    known = axes if 0 < axes <= len(sizes) else 0
    return NiftiHeader(
        sizes=tuple(n if axis < 3 else max(1, n) for axis, n in enumerate(sizes[:known])),
        pixdim=tuple(pixdim[: min(3, known)]),
        axes=axes,
        unit=data[123] & 7 if named else 0,
        codes=(max(0, codes[0]), max(0, codes[1])) if named else (0, 0),
        quaternion=quaternion[:3],
        offset=quaternion[3:],
        qfac=-1.0 if qfac < 0 else 1.0,
        rows=struct.unpack_from(f"{order}12f", data, 280),
        datatype=datatype,
        bits=BITS.get(datatype, bits),
        starts=int(starts) if math.isfinite(starts) else -1,
        single=magic == b"n+1\0",
        scaling=(slope, intercept) if named else (0.0, 0.0),
        order=order,
    )


def _parse_second(data: bytes) -> NiftiHeader | None:
    """The header of a NIfTI-2 file in its first bytes, None where they do not say its length."""
    order = next((o for o in "<>" if struct.unpack_from(f"{o}i", data)[0] == HEADER_BYTES_2 - 4), None)
    if order is None:
        return None
    datatype, bits, axes, *sizes = struct.unpack_from(f"{order}2h8q", data, 12)
    qfac, *pixdim = struct.unpack_from(f"{order}8d", data, 104)
    starts, slope, intercept = struct.unpack_from(f"{order}q2d", data, 168)
    codes = struct.unpack_from(f"{order}2i", data, 344)
    quaternion = struct.unpack_from(f"{order}6d", data, 352)
    known = axes if 0 < axes <= len(sizes) else 0
    return NiftiHeader(
        sizes=tuple(n if axis < 3 else max(1, n) for axis, n in enumerate(sizes[:known])),
        pixdim=tuple(pixdim[: min(3, known)]),
        axes=axes,
        unit=struct.unpack_from(f"{order}i", data, 500)[0] & 7,
        codes=(max(0, codes[0]), max(0, codes[1])),
        quaternion=quaternion[:3],
        offset=quaternion[3:],
        qfac=-1.0 if qfac < 0 else 1.0,
        rows=struct.unpack_from(f"{order}12d", data, 400),
        datatype=datatype,
        bits=BITS.get(datatype, bits),
        starts=starts,
        single=data[4:8] == b"n+2\0",
        scaling=(slope, intercept),
        order=order,
        version=2,
    )


def says_no_place(path: Path) -> bool:
    """Whether a file is NIfTI or Analyze in 3-D, and its header does not say where its voxels lie."""
    header = read_header(path)
    return header is not None and len(header.pixdim) == 3 and max(header.codes) == 0


def place_of(header: NiftiHeader) -> NiftiPlace:
    """Where the voxels of a 3-D image lie.

    The rule is ITK's, so that a transform means the same in all programs that are built on it: of two frames that
    differ the sform holds if it is the scanner's (code 1), else the qform; of a single one that one; without any the
    first voxel is the origin and the axes are LPS. A sheared sform is kept, which ITK cannot. Raises GeometryError
    where the frame has numbers that are not finite.
    """
    lps = np.diag([-header.scale, -header.scale, header.scale])
    if max(header.codes) == 0:
        return NiftiPlace(np.column_stack([np.diag(np.abs(header.pixdim) * header.scale), np.zeros(3)]), "")
    both = min(header.codes) > 0
    source = "sform" if header.codes[1] and (not both or header.codes[1] == SCANNER) else "qform"
    if both and source == "qform" and frames_apart(header) <= DIFFERENT * header.scale * min(np.abs(header.pixdim)):
        source = "sform"
    frame = np.reshape(header.rows, (3, 4)) if source == "sform" else qform_of(header)
    if not np.isfinite(frame).all():
        raise GeometryError(
            f"expected finite numbers in the {source} of the header, got {frame.tolist()}: correct the header"
        )
    return NiftiPlace(lps @ frame, source)


def frames_apart(header: NiftiHeader) -> float:
    """The largest distance in mm between the places of a corner by the sform and by the qform."""
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
    corners[:, :3] *= np.array(header.sizes[:3]) - 1
    difference = (np.reshape(header.rows, (3, 4)) - qform_of(header)) * header.scale
    return float(np.linalg.norm(corners @ difference.T, axis=1).max())


def qform_of(header: NiftiHeader) -> Matrix:
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
    sizes = [s if np.isfinite(s) and s != 0 else 1.0 for s in header.pixdim]  # negative: the axis runs the other way
    scales = np.array(sizes) * np.array([1.0, 1.0, header.qfac])
    return np.column_stack([rotation * scales, header.offset])


def check_header(header: NiftiHeader, path: Path) -> None:
    """Refuse what libraries read as something else or not at all: sizes, and where the voxels start.

    Raises ImageError.
    """
    if not header.sizes:
        raise ImageError(f"expected 1 to 7 axes in the header of {path}, got {header.axes}: correct the header")
    if min(header.sizes) < 1:
        raise ImageError(
            f"expected a positive number of voxels along each axis in the header of {path}, got "
            f"{' × '.join(map(str, header.sizes))}: correct the header"
        )
    least, most = header.least, header.least + LONGEST_EXTENSION
    if header.starts < least or (header.version == 2 and header.starts > most):
        raise ImageError(
            f"expected the header of {path} to say where its voxels start, at byte {least} or soon after, got another "
            "vox_offset: correct the header"
        )


def notes_on(header: NiftiHeader) -> list[str]:
    """What was repaired or is doubtful in a header, one sentence each.

    Raises GeometryError for a spacing of 0, or one that is no number, along an axis of several voxels, which ITK takes
    for 1 mm, and for a place that is not finite.
    """
    space = list(zip(header.sizes, header.pixdim, strict=False))
    bad = [s for n, s in space if n > 1 and not (np.isfinite(s) and s != 0)]
    if bad:
        raise GeometryError(
            f"expected a positive spacing in the header, got {bad[0]:g} among {header.pixdim}: correct the header"
        )
    return [note for note in (_units(header), _odd_spacing(header), _frames(header)) if note]


def _units(header: NiftiHeader) -> str:
    if header.unit not in UNITS_MM:
        return ""
    spacing = " × ".join(f"{abs(s) * header.scale:.4g}" for s in header.pixdim)
    return (
        f"its header is in {UNITS_MM[header.unit][0]}: multiplied by {header.scale:g}, which gives a spacing of "
        f"{spacing} mm"
    )


def _odd_spacing(header: NiftiHeader) -> str:
    spacing = ", ".join(f"{s:g}" for s in header.pixdim)
    if not all(np.isfinite(s) and s != 0 for s in header.pixdim):
        return f"the spacing along an axis of one voxel is missing ({spacing}): it counts as 1 mm"
    return ""


def _frames(header: NiftiHeader) -> str:
    """Where sform and qform put a corner at different places, how far, and which is used; or that there is none."""
    if len(header.pixdim) < 3:
        return ""
    if max(header.codes) == 0:
        return (
            "its header says no place (the codes of sform and qform are 0): the first voxel counts as the origin and "
            "its axes as left, posterior and superior"
        )
    source = place_of(header).source  # and whether it is finite
    if min(header.codes) == 0:
        return ""
    apart = frames_apart(header)
    if not apart > DIFFERENT * header.scale * min(np.abs(header.pixdim)):
        return ""
    return f"its sform and qform differ by up to {apart:.4g} mm: the {source} is used"
