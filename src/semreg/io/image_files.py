"""Which files an image is in, and their checksum: pairs of header and voxels, lists of files, DICOM series.

Knows nothing of what is in them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from semreg.errors import ImageError
from semreg.io.digests import sha256_of
from semreg.io.endings import AFNI, PHILIPS, STIMULATE
from semreg.io.ngff.names import in_chunks
from semreg.io.nifti_header import PAIRED, beside, is_nifti_name
from semreg.io.ordinary_file import check_file
from semreg.io.text_headers import META, NRRD, names_of_voxels, promised_bytes

COUNTER = re.compile(r"%0?\d*[diu]")
"""What stands for the number of a file in a pattern."""


def checksum(path: str | Path, series: str | None = None) -> str:
    """SHA-256 of the bytes of a file, or of all files of the DICOM series in a folder, sorted by name (ImageError).

    Of an image whose header stands apart from its voxels, those of all its ``data_files``.
    """
    path = Path(path)
    return digest_of(path, files_of(path, series))


def data_files(path: str | Path) -> tuple[Path, ...]:
    """The files that hold an image: the file itself, and those with its voxels if they stand apart, header first.

    Pairs of Analyze, NIfTI (.hdr and .img), Stimulate (.spr and .sdt), AFNI (.HEAD and .BRIK) and Philips (.PAR and
    .REC) are known by their names; MetaImage and NRRD headers say where their voxels are, as one file, a list or a
    numbered pattern. Raises ImageError for a header that cannot be read.
    """
    path = Path(path)
    name = path.name.lower()
    if is_nifti_name(path, PAIRED):
        return tuple(sorted((path, *beside(path)), key=lambda file: ".hdr" not in file.name.lower()))
    for endings in (STIMULATE, AFNI, PHILIPS):
        if name.endswith(endings):
            return _pair(path, endings)
    if name.endswith((*META, *NRRD)):
        return (path, *_named_in(path))
    return (path,)


def _pair(path: Path, endings: tuple[str, ...]) -> tuple[Path, ...]:
    """Header and voxels of a pair, of which ``path`` is one; the other where it is there, in capitals too."""
    own = next(ending for ending in endings if path.name.lower().endswith(ending))
    stem, both = path.name[: -len(own)], []
    for kind in (endings[:1], endings[1:]):
        names = [stem + case for each in kind for case in (each, each.upper(), each.upper().replace(".GZ", ".gz"))]
        there = [path] if own in kind else [file for file in map(path.with_name, names) if file.is_file()]
        both += there[:1]
    return tuple(both)


def _named_in(header: Path) -> list[Path]:
    """The files of voxels that a MetaImage or NRRD header names; none where the voxels follow it."""
    try:
        places = [place for text in names_of_voxels(header) for place in _places(header, text)]
    except OSError as error:
        raise ImageError(f"expected an image file that can be read, got {header}: {error}") from error
    for place in places:
        check_file(place, f"the voxels that {header} names")
    outside = [each for each in places if header.parent.absolute() not in _normal(each).parents]
    if outside and sum(each.stat().st_size for each in places) != promised_bytes(header):
        raise ImageError(
            f"expected the voxels of {header} in its folder or below it, or elsewhere in files of exactly the size "
            f"that it promises, not compressed, got {outside[0]}: put them beside the header"
        )
    return places


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))


def _places(header: Path, text: str) -> list[Path]:
    """The files meant by a name of a header; of a pattern, as ``slice%03d.raw 1 40 1``, all that are there."""
    if "%" not in text or (header.name.lower().endswith(NRRD) and not re.search(r"%\d*d", text)):
        return [header.parent / text]
    folder, name = os.path.split(text.split(maxsplit=1)[0])
    parts = COUNTER.split(name)
    if len(parts) != 2 or "%" in folder + "".join(parts):
        raise ImageError(
            f"expected a pattern with one counter, as slice%03d.raw, in the name of a file in {header}, got {text!r}: "
            "write the image anew, or as NIfTI"
        )
    files = re.compile(r"\s*-?\d+".join(map(re.escape, parts)))
    found = sorted(file for file in (header.parent / folder).glob("*") if files.fullmatch(file.name))
    return found or [header.parent / text]  # which there is not


def files_of(path: Path, series: str | None) -> list[Path]:
    """The files of an image: itself, or all of one DICOM series in a folder."""
    if in_chunks(path):
        from semreg.io.ngff.door import files_in

        return files_in(path)
    if path.is_file():
        if series is not None:
            raise ImageError(f"expected a DICOM folder to choose the series {series!r} from, got the file {path}")
        return [path]
    if not path.is_dir():
        check_file(path, "an image file or a DICOM folder")
    from semreg.io.dicom import choose_series  # loads torch, which no file needs

    return list(choose_series(path, series).files)


def digest_of(path: Path, names: Sequence[Path]) -> str:
    """SHA-256 of the bytes of an image in the files ``names`` that ``files_of`` returns for ``path``."""
    try:
        return sha256_of(*(sorted(names) if path.is_dir() else data_files(path)))
    except OSError as error:
        raise ImageError(f"expected an image file that can be read, got {error.filename}: {error.strerror}") from error
