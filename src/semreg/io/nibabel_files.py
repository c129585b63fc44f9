"""Images that nibabel reads and ITK does not, or not all of them: NIfTI-2, FreeSurfer, MINC, AFNI, Philips PAR/REC.

nibabel is imported when such a file is read. What its header promises is compared with the file and the memory before
a voxel is read, as for all formats.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from semreg.core.geometry import Grid
from semreg.errors import GeometryError, ImageError
from semreg.io.bridge import PIXEL_TYPES, Lattice, check_scalar_image
from semreg.io.endings import AFNI, FREESURFER, MINC, PHILIPS
from semreg.io.image_files import data_files
from semreg.io.nifti_header import notes_on, place_of, read_header
from semreg.io.promises import Promise, most_held
from semreg.io.quiet import quiet_readers
from semreg.io.stored import Stored

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
WRONG = (
    OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError,
    RuntimeError, struct.error, zlib.error,
)  # fmt: skip
"""What readers written in Python raise for damaged files, beside the errors of their own."""

T = TypeVar("T")


def is_for_nibabel(path: Path) -> bool:
    """Whether a file is of a format that is read here, by its name and, of NIfTI, by its version."""
    if path.name.lower().endswith((*FREESURFER, *MINC, *AFNI, *PHILIPS)):
        return True
    header = read_header(path)
    return header is not None and header.version == 2


@dataclass(frozen=True)
class _Opened:
    """An image of which the header was read."""

    image: Any
    size: tuple[int, ...]
    """x, y, z, and frames if there are several."""
    components: int


def read_with_nibabel(path: Path, *, scalar: bool) -> tuple[Stored, list[str]]:
    """The voxels of such a file, and what was repaired or is doubtful; ``scalar``: one value a voxel alone."""
    found = _opened(path, scalar=scalar)
    image, size, components = found.image, found.size, found.components
    lattice, notes = _place(image, path, size)
    voxels = _reading(path, lambda: np.asarray(image.dataobj))
    kind = np.dtype(image.get_data_dtype()).newbyteorder("=")
    if voxels.dtype.kind == "f" and kind.kind != "f":  # scaled
        kind = np.dtype(np.float32)
    if kind.name not in PIXEL_TYPES:
        raise ImageError(f"expected voxels that are real numbers, got {kind} in {path}: convert the image first")
    array = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    if _is_minc(image):  # frames, z, y, x as they are stored, other than in all other formats
        array = array.reshape(size[::-1])
    else:
        array = array.reshape(*size, components) if components > 1 else array.reshape(size)
        array = array.transpose(*range(len(size) - 1, -1, -1), *range(len(size), array.ndim))
    grid, index = lattice.straight(str(path))
    frames = (0.0, _frame_step(image)) if len(size) == 4 else None
    return Stored(array, grid, index, kind.name, components, frames), notes


def grid_with_nibabel(path: Path) -> Grid:
    """Where the voxels of such a file lie, from its header; of a series over time those of each frame.

    Raises as ``read_with_nibabel`` for several values a voxel.
    """
    found = _opened(path, scalar=False)
    kind = str(found.image.get_data_dtype())
    _reading(path, lambda: check_scalar_image(found.size[:3], found.components, kind))
    return _place(found.image, path, found.size)[0].straight(str(path))[0]


def _opened(path: Path, *, scalar: bool) -> _Opened:
    """The image with its header alone, whose voxels are there and fit into memory."""
    try:
        import nibabel
    except ImportError:
        raise ImageError(
            f"expected the package nibabel to read {path}, it is not installed: pip install 'semreg[nibabel]', or "
            "convert the image to NIfTI-1 or NRRD"
        ) from None
    try:
        image: Any = _reading(path, lambda: nibabel.load(path, mmap=False))
    except MemoryError:  # for a header
        raise ImageError(
            f"expected a complete image, got {path}, whose header promises more than it holds: copy it again"
        ) from None
    shape = tuple(int(n) for n in image.shape)
    shape = shape[::-1] if _is_minc(image) else shape
    dtype = np.dtype(image.get_data_dtype())
    components = len(dtype.names or "1") * (shape[4] if len(shape) == 5 and shape[3] == 1 else 1)
    Promise(shape, dtype.itemsize, components).check(path, _reading(path, lambda: most_held(path, data_files(path))))
    size = shape[:3] if components > 1 else shape
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    if scalar:
        _reading(path, lambda: check_scalar_image(size, components, str(dtype)))
    if not 2 <= len(size) <= 4 or dtype.names:
        raise ImageError(f"expected an image in 2-D or 3-D, got {path} of size {shape} and type {dtype}")
    return _Opened(image, size, components)


def _place(image: Any, path: Path, size: tuple[int, ...]) -> tuple[Lattice, list[str]]:
    """Where the voxels lie in LPS, and notes: of NIfTI-2 by the rule of NIfTI-1, else by nibabel's affine."""
    header = read_header(path)
    dimension, notes = min(len(size), 3), []
    matrix = LPS @ np.asarray(image.affine, dtype=np.float64)
    matrix = matrix[:, [2, 1, 0, 3]] if _is_minc(image) else matrix
    if header is not None:
        notes = _reading(path, lambda: notes_on(header))
        matrix = _reading(path, lambda: place_of(header).matrix) if dimension == 3 else matrix
    linear, origin = matrix[:dimension, :dimension], matrix[:dimension, 3]
    return _reading(path, lambda: Lattice.of_matrix(size[:dimension], linear, origin)), notes


def _frame_step(image: Any) -> float:
    zooms = image.header.get_zooms()
    step = float(zooms[0 if _is_minc(image) else 3]) if len(zooms) > 3 else 1.0
    return step if np.isfinite(step) and step > 0 else 1.0


def _is_minc(image: Any) -> bool:
    return "minc" in type(image).__module__


def _reading(path: Path, action: Callable[[], T]) -> T:
    """Run ``action``; what goes wrong becomes one sentence that names the file."""
    try:
        with quiet_readers(), _without_notes():
            return action()
    except (ImageError, GeometryError) as error:
        named = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise type(error)(named) from error
    except _errors() as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ImageError(f"expected an image that nibabel reads, got {path}: {said}; copy it again") from error


@contextmanager
def _without_notes() -> Iterator[None]:
    """What nibabel repairs it says on the standard error, and what it raises too."""
    from nibabel.imageglobals import logger

    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _errors() -> tuple[type[Exception], ...]:
    """What nibabel raises for damaged files: errors of its own have no class in common."""
    from nibabel.casting import CastingError, FloatingError
    from nibabel.filebasedimages import ImageFileError
    from nibabel.filename_parser import TypesFilenamesError
    from nibabel.freesurfer.mghformat import MGHError
    from nibabel.minc1 import MincError
    from nibabel.orientations import OrientationError
    from nibabel.parrec import PARRECError
    from nibabel.spatialimages import HeaderDataError, HeaderTypeError, ImageDataError
    from nibabel.wrapstruct import WrapStructError

    return (
        *WRONG, CastingError, FloatingError, ImageFileError, TypesFilenamesError, MGHError, MincError, OrientationError,
        PARRECError, HeaderDataError, HeaderTypeError, ImageDataError, WrapStructError,
    )  # fmt: skip
