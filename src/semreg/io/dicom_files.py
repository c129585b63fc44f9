"""What each DICOM file says that it is: an image of a series, something else, or damaged. Reads headers, no pixels.

pydicom is imported by the functions that need it; ``read_header`` is the one place that lets it read a file.
"""

from __future__ import annotations

import logging
import math
import mmap
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from semreg.errors import ImageError, SemregError
from semreg.io.patients import Origin

logger = logging.getLogger("semreg")

P = ParamSpec("P")
T = TypeVar("T")

FAILURES = (
    EOFError, ValueError, KeyError, OSError, AttributeError, NotImplementedError, struct.error, TypeError,
    OverflowError, RecursionError, LookupError, zlib.error, AssertionError,
)  # fmt: skip
"""What pydicom raises for a file that is damaged."""
WITHOUT_PREAMBLE = tuple(b"\x08\0" + element + b"\0" for element in (b"\0", b"\1", b"\5", b"\x08", b"\x16", b"\x18"))
"""First tags of old files that have no preamble."""
FACTS = (
    "SOPClassUID", "SeriesInstanceUID", "ImageType", "Rows", "Columns", "BitsAllocated", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "TotalPixelMatrixColumns", "TotalPixelMatrixRows",
    "FrameIncrementPointer", "RescaleSlope", "RescaleIntercept", "DoseGridScaling", "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
)  # fmt: skip
"""What is asked of a header."""
DIRECTORY = "1.2.840.10008.1.3.10"
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
"""Transfer syntaxes of pixels that are not compressed."""
DEFLATED = "1.2.840.10008.1.2.1.99"
BITS = (1, 8, 12, 16, 32, 64)
PALETTES = ("RedPaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData")
BESIDE = ("SEG", "RTDOSE", "PR", "KO", "REG", "SR", "OT")
"""Modalities of what belongs to a series and is not meant by a folder, unless it is alone or asked for."""


@dataclass(frozen=True)
class DicomFile:
    """An image in a file, or what may be one."""

    path: Path
    facts: Any
    """Its header, a data set of pydicom; None where it cannot be read."""
    trouble: str = ""
    """Why it cannot be read as an image; empty where it can."""

    def text(self, name: str) -> str:
        """A value as text, empty where there is none."""
        return "" if self.facts is None else str(value_of(self.facts, name) or "").strip(" \0")

    @property
    def uid(self) -> str:
        """Of its series, empty where it does not say it."""
        return self.text("SeriesInstanceUID")

    @property
    def size(self) -> tuple[int, ...]:
        """Columns, rows and, of several frames, their number."""
        columns, rows, frames = (whole(self.facts, name) for name in ("Columns", "Rows", "NumberOfFrames"))
        return (columns, rows, frames) if frames > 1 else (columns, rows)


def is_dicom(path: Path) -> bool:
    """Whether a file can be read and begins as DICOM files do."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or start[:4] in WITHOUT_PREAMBLE


def has_preamble(path: Path) -> bool:
    """Whether a file says that it is DICOM; one without may be anything."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def failures(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What pydicom raises for a file that is damaged, and ``more``."""
    import pydicom

    return (*FAILURES, pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException, *more)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever pydicom raises in the block says that a header is damaged (ImageError); it warns of nothing."""
    try:
        with warnings.catch_warnings(record=True):  # a file is what it is
            warnings.resetwarnings()
            yield
    except SemregError:
        raise
    except failures() as error:
        raise ImageError(
            f"expected a DICOM file, got {path}: its header is damaged ({_reason(error)}); copy it again"
        ) from error


def careful(read: Callable[Concatenate[Path, P], T]) -> Callable[Concatenate[Path, P], T]:
    """A function of a path and more in ``reading``."""

    @wraps(read)
    def inside(path: Path, /, *more: P.args, **named: P.kwargs) -> T:
        with reading(path):
            return read(path, *more, **named)

    return inside


@careful
def read_header(path: Path, *, pixels: bool = False) -> tuple[Any, int]:
    """The header of a file, a data set of pydicom, and the byte at which its pixels start; ``pixels``: with them.

    Values of ``FACTS`` that are damaged are missing in it. Raises ImageError for one that is damaged, OSError.
    """
    import pydicom

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole_file:
        # a length that is too large takes no memory there
        source: Any = whole_file
        data = pydicom.dcmread(source, stop_before_pixels=not pixels, force=is_dicom(path))
        start = whole_file.tell()
    for name in FACTS:
        if name in data and value_of(data, name) is None:
            del data[name]
    return data, start


def origin_of(path: Path) -> Origin:
    """Of whom and in which frame of reference a file is (ImageError where its header is damaged)."""
    header, _ = read_header(path)
    with reading(path):
        return Origin.of(header)


def value_of(data: Any, name: str) -> Any:
    """A value of a data set; None where there is none or it is damaged."""
    with warnings.catch_warnings(record=True):
        warnings.resetwarnings()
        try:
            return data.get(name)
        except failures():
            return None


def whole(data: Any, name: str) -> int:
    """A whole number of a data set; 0 where there is none."""
    try:
        return int(value_of(data, name) or 0)
    except failures():
        return 0


def look_at(path: Path) -> DicomFile | None:
    """The image in a file that begins as DICOM; None where it holds something else, such as structures or a report."""
    try:
        data, start = read_header(path)
    except ImageError as error:
        return DicomFile(path, None, str(error).partition(": ")[2].partition(";")[0])
    said = value_of(data, "SOPClassUID") and value_of(data, "SeriesInstanceUID")
    known = said and "Image Storage" not in kind_of(data)
    if "Rows" not in data and (known or is_directory(data) or not has_preamble(path)):
        return None
    return DicomFile(path, data, trouble_of(data, path.stat().st_size - start))


def is_directory(data: Any) -> bool:
    """Whether it is a DICOMDIR, which has no series."""
    return str(value_of(getattr(data, "file_meta", {}), "MediaStorageSOPClassUID")) == DIRECTORY


def trouble_of(data: Any, left: int) -> str:
    """Why the pixels of a header cannot be read, empty where they can; ``left``: the bytes behind the header."""
    rows, columns, samples, bits = (whole(data, n) for n in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated"))
    frames = whole(data, "NumberOfFrames") if value_of(data, "NumberOfFrames") is not None else 1
    for name, number in (("Rows", rows), ("Columns", columns), ("NumberOfFrames", frames)):
        if number < 1:
            return f"it is damaged: its {name} is {number}" if name in data else f"it is damaged: it has no {name}"
    photometric = str(value_of(data, "PhotometricInterpretation") or "")
    wrong = {
        f"its SamplesPerPixel is {samples}": samples not in (1, 3, 4),
        f"its BitsAllocated is {bits}": bits not in BITS,
        "its palette is missing": photometric.startswith("PALETTE") and not any(name in data for name in PALETTES),
        "its PixelSpacing is no pair of positive numbers": not _is_spacing(data),
    }
    if found := next((words for words, it_is in wrong.items() if it_is), ""):
        return f"it is damaged: {found}"
    stored = 2 if photometric.endswith("422") else samples
    plain = syntax_of(data) in NATIVE and syntax_of(data) != DEFLATED
    needed = rows * columns * stored * frames * bits // 8 if plain else 1
    if left < needed:
        return f"it is cut short: {max(0, left)} bytes of {needed}" if left > 0 else "it has no pixels"
    return ""


def _is_spacing(data: Any) -> bool:
    """Whether the spacing in the plane, if there is one, is one: GDCM takes anything else for 1 mm or for noise."""
    stored = data.get_item("PixelSpacing")
    if stored is None or not stored.value:
        return True
    try:
        values = [float(each) for each in value_of(data, "PixelSpacing")]
    except failures():
        return False
    return len(values) == 2 and all(0 < each < math.inf for each in values)


def syntax_of(data: Any) -> str:
    """The transfer syntax; explicit little endian where it does not say any."""
    return str(value_of(getattr(data, "file_meta", {}), "TransferSyntaxUID") or NATIVE[1])


def images_in(folder: Path) -> tuple[list[DicomFile], list[Path]]:
    """The images among the files of a folder, and those that are no DICOM but are called like one of them."""
    found, others = [], []
    for path in sorted(folder.iterdir()):
        if not path.is_file():
            continue
        if not is_dicom(path):
            others.append(path)
        elif (each := look_at(path)) is not None:
            found.append(each)
    patterns = {name_pattern(each.path) for each in found if not each.trouble}
    return found, [path for path in others if name_pattern(path) in patterns]


def of_one_kind(files: Iterable[DicomFile], name: str) -> list[DicomFile]:
    """The files of a series without those of another class than most, such as a segmentation; the log names these."""
    kinds: dict[str, list[DicomFile]] = {}
    for each in files:
        kinds.setdefault(each.text("SOPClassUID"), []).append(each)
    most = max(kinds.values(), key=len)
    for each in (each for kind in kinds.values() if kind is not most for each in kind):
        logger.warning("%s: %s is left out: it is of another kind (%s)", name, each.path.name, kind_of(each.facts))
    return most


def kind_of(data: Any) -> str:
    """The name of what a file is, such as "Segmentation Storage"."""
    uid = value_of(data, "SOPClassUID")
    return name_of(str(uid)) if uid else "no kind"


def name_of(uid: str) -> str:
    """What DICOM calls a UID; the UID where it does not know it."""
    import pydicom

    return pydicom.uid.UID(uid, validation_mode=pydicom.config.IGNORE).name


def name_pattern(path: Path) -> str:
    """The name of a file without its numbers: what files of one series have in common."""
    return re.sub(r"\d+", "#", path.name.lower())


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
