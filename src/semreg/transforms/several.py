"""Files that hold several transforms which nothing joins: counted, refused, or one of them taken by its number.

ITK writes such files from a list of transforms, and SimpleITK reads the first one alone. A composite is one transform:
it says itself how its parts are joined.
"""

from __future__ import annotations

import mmap
import re
import tempfile
from pathlib import Path
from typing import Any

from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io import files
from semreg.io.bridge import import_itk

CHOSEN = re.compile(r"(.+)#([0-9]+)")
BLOCK = re.compile(rb"^[ \t]*Transform:[ \t]*(\w+)", re.MULTILINE)
MATRIX = re.compile(rb"\w*Transform\w*_\d_\d\0")
"""The name of the matrix that holds the parameters, in files of Matlab's version 4; one a transform."""
HDF5 = b"\x89HDF\r\n\x1a\n"
TEXT = b"#Insight Transform File"
MATLAB_NAMES = (".mat",)


def chosen(path: str | Path) -> tuple[Path, int | None]:
    """The file that a name stands for, and the number behind it.

    Args:
        path: ``pair.tfm#2`` is the second transform of pair.tfm; a file whose own name ends so is that file.

    Returns:
        The file, and the number, from 1, or None where none is given.
    """
    path = Path(path)
    found = CHOSEN.fullmatch(path.name)
    if found is None or path.exists():
        return path, None
    return path.with_name(found[1]), int(found[2])


def count(path: Path) -> int:
    """How many transforms a file of ITK holds side by side; 1 for a composite and for every other kind of file."""
    with path.open("rb") as file:
        start = file.read(len(TEXT))
        if start.startswith(HDF5):
            return _count_in_hdf5(file)
    if start == TEXT:
        names = BLOCK.findall(path.read_bytes())
        return 1 if names and names[0].startswith(b"Composite") else len(names)
    return max(1, len(MATRIX.findall(path.read_bytes()))) if path.suffix in MATLAB_NAMES else 1


def check_one(path: Path) -> None:
    """Refuse a file with several transforms (GeometryError): it does not say which is meant, or in which order."""
    number = count(path)
    if number > 1:
        raise GeometryError(
            f"expected one transform or a composite, got {number} transforms side by side in {path}: choose one by its "
            f"number, {path.name}#1 to {path.name}#{number}, or join them in the order they are meant, "
            f"semreg compose {path.name}#1 {path.name}#2 -o joined.h5"
        )


def read_numbered(path: Path, number: int) -> Any:
    """The ``number``-th transform of a file, from 1, as a SimpleITK transform.

    Raises GeometryError where there are fewer, ConfigError where it takes itk and that is not installed.
    """
    if not path.is_file():
        raise GeometryError(f"expected a transform file, got {path}: there is no such file")
    total = count(path)
    if not 1 <= number <= total:
        raise GeometryError(f"expected a number from 1 to {total}, got {number} for {path}: it holds {total}")
    if total == 1:
        return files.read_transform(path)
    with tempfile.TemporaryDirectory(prefix="semreg-") as folder:
        data = path.read_bytes() if path.suffix not in MATLAB_NAMES else b""
        if data.startswith(TEXT):
            alone = Path(folder) / "alone.tfm"
            starts = [match.start() for match in BLOCK.finditer(data)] + [len(data)]
            alone.write_bytes(TEXT + b" V1.0\n#Transform 0\n" + data[starts[number - 1] : starts[number]])
        else:
            alone = Path(folder) / "alone.h5"
            _write_alone(path, number, alone)
        return files.read_transform(alone)


def _count_in_hdf5(file: Any) -> int:
    """Each transform is a group with an entry of this name; a composite is the first of them and has no numbers."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b"CompositeTransform_") >= 0:
            return 1
        found, place = 0, data.find(b"TransformType")
        while place >= 0:
            found += 1
            place = data.find(b"TransformType", place + 1)
        return max(found, 1)


def _write_alone(path: Path, number: int, target: Path) -> None:
    """One transform of a binary file as a file of its own: SimpleITK reaches the first one only, itk all."""
    try:
        itk = import_itk()
    except ImageError as error:
        raise ConfigError(
            f"expected the package itk to take one of several transforms out of {path}, got no such package: "
            "pip install 'semreg[itk]', or save each transform in a file of its own"
        ) from error
    itk.transformwrite([itk.transformread(str(path))[number - 1]], str(target))
