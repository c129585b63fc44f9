"""What a header promises, compared with what its files can hold and with the memory there is. Reads no voxels.

A header of a few bytes can promise any size; readers allocate it first and look into the file then. Some take what is
missing from memory that was used before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semreg.errors import ImageError
from semreg.io import tiff
from semreg.io.endings import AFNI, FREESURFER, MINC, PHILIPS
from semreg.io.nifti_header import is_nifti_name, is_packed
from semreg.io.text_headers import META, VTK, fields_of, has_text_header
from semreg.runtime.memory import available_bytes

DEFLATED = 1032.0
"""Bytes that one byte of gzip, zlib or PNG can stand for at most; a byte of JPEG, in its blocks, stands for fewer."""
WRITTEN = 8.0
"""The same of numbers in text: a digit and what parts it from the next one, for eight bytes."""
ENCODINGS = {b"raw": 1.0, b"hex": 1.0, b"ascii": WRITTEN, b"text": WRITTEN, b"txt": WRITTEN}
"""What a byte stands for in the encodings of NRRD; ``DEFLATED`` in others."""
PLAIN = {".gipl": 256, ".mrc": 1024, ".spr": 0, ".sdt": 0}
"""Endings of formats that are never compressed, and the bytes of their header."""
DEFLATING = (".png", ".jpg", ".jpeg", *MINC)
"""Formats that are compressed, and MINC, which may be."""
LARGEST_AXIS = 1 << 31
"""Voxels along an axis from which a number is a negative one, or nonsense."""


@dataclass(frozen=True)
class Promise:
    """What a header says of the voxels of an image."""

    size_xyz: tuple[int, ...]
    voxel_bytes: int
    """Of all components together."""
    components: int = 1

    @property
    def stored(self) -> int:
        """Bytes of the voxels as they are stored, not compressed."""
        return math.prod(self.size_xyz) * self.voxel_bytes

    @property
    def needed(self) -> int:
        """Bytes that reading takes: the reader's copy, that of the array, and the values as float32."""
        return 2 * self.stored + 4 * self.components * math.prod(self.size_xyz)

    def check(self, path: Path, held: float) -> None:
        """Refuse what ``held`` bytes cannot hold, and what does not fit into memory.

        Args:
            path: The image, for messages.
            held: The most bytes of voxels that its files can hold; infinite where nobody can tell.

        Raises:
            ImageError: With the numbers.
        """
        size = " × ".join(map(str, self.size_xyz)) or "no axes"
        if not self.size_xyz or not all(0 < n < LARGEST_AXIS for n in self.size_xyz):
            raise ImageError(
                f"expected a positive number of voxels along each axis in {path}, got {size}: it is damaged"
            )
        if self.stored > held:
            raise ImageError(
                f"expected a complete image, got {path}, whose header promises {size} voxels, {self.stored} bytes, "
                f"of which it holds at most {held:.0f}: the file is cut short or damaged; copy it again"
            )
        free = available_bytes()
        if self.needed > free:
            raise ImageError(
                f"expected an image that fits into memory, got {path} of {size} voxels: reading it takes "
                f"{self.needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are free; use a smaller image or a larger machine"
            )


def most_held(path: Path, files: Sequence[Path]) -> float:
    """The most bytes of voxels that the ``files`` of the image ``path`` can hold, infinite where nobody can tell.

    Raises OSError.
    """
    there = sum(file.stat().st_size for file in files)
    name = path.name.lower()
    if has_text_header(path):
        return _of_text(path, there)
    if is_nifti_name(path) or name.endswith((*AFNI, *PHILIPS, *FREESURFER)):
        return there * (DEFLATED if any(is_packed(file) for file in files) else 1.0)
    if name.endswith(tiff.ENDINGS):
        return tiff.most_bytes(tiff.first_page(path), there)
    if name.endswith(".bmp"):
        with path.open("rb") as file:
            start = int.from_bytes(file.read(14)[10:], "little")  # of the pixels; the reader takes any
        return max(0, there - start) * DEFLATED
    if name.endswith(DEFLATING):
        return there * DEFLATED
    header = next((size for ending, size in PLAIN.items() if name.endswith(ending)), None)
    return math.inf if header is None else max(0, there - header)


def _of_text(path: Path, there: int) -> float:
    fields, header = fields_of(path)
    if path.name.lower().endswith(VTK):
        return there * WRITTEN if "ascii" in fields else there - header
    if path.name.lower().endswith(META):
        packed = fields.get("compresseddata", b"").lower().startswith((b"t", b"1"))
        written = fields.get("binarydata", b"t").lower().startswith((b"f", b"0"))
        return there * (DEFLATED if packed else WRITTEN if written else 1.0)
    encoding = fields.get("encoding", b"").lower()
    return there * ENCODINGS.get(encoding, DEFLATED)
