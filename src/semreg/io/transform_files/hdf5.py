"""ITK's transforms in HDF5: the group ``TransformGroup`` with one group a transform, named by its number.

Run as a module with the name of a file it writes what is in the file to its standard output: so a file whose structure
nothing vouches for is read in a process of its own.
"""

from __future__ import annotations

import json
import mmap
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from semreg.errors import GeometryError
from semreg.io.hdf5_images import SIGNATURE
from semreg.io.transform_files.record import DAMAGED, Numbers, Stored

GROUP = "TransformGroup"
NAMES = {
    "type": ("TransformType",),
    "parameters": ("TransformParameters", "TranformParameters"),
    "fixed": ("TransformFixedParameters", "TranformFixedParameters"),
}
"""Names of the entries, and how older versions of ITK spell them."""
UNCHECKED = (b"TREE", b"SNOD", b"HEAP")
"""Parts of older files that have no checksum."""
REFERENCE, HEAP, LONGEST_NAME = struct.Struct("<IQI"), b"GCOL", 256
HEAP_HEADER, OBJECT_HEADER = struct.Struct("<4s4xQ"), struct.Struct("<H6xQ")
"""HDF5 File Format Specification 3.0, III.E, "Disk Format: Level 1E - Global Heap"."""
MOST_PACKED = 1100
"""How many bytes one byte of a file can stand for, in its compression (deflate: 1032)."""
CHILD_SECONDS, BYTES_PER_SECOND = 10, 10**7
"""What the process that reads may take of the processor's time, and at least how fast it is."""

BROKEN = (OSError, LookupError, ArithmeticError, ValueError, TypeError, RuntimeError, AttributeError, struct.error)
"""What comes of reading a damaged file: the library knows no exception of its own."""

Raw = tuple[str, Numbers, Numbers]


def is_hdf5(start: bytes) -> bool:
    """Whether a file that starts so is HDF5."""
    return start.startswith(SIGNATURE)


def parse(path: Path) -> list[Stored]:
    """The transforms of a file, one after the other; GeometryError for what is none."""
    if path.stat().st_size <= len(SIGNATURE):
        raise _damaged()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        own = data[len(SIGNATURE)] < 2 or any(data.find(part) >= 0 for part in UNCHECKED)
    return [Stored.of(*each) for each in (_from_child(path) if own else _read(path))]


def _read(path: Path) -> list[Raw]:
    """The names and the numbers, by h5py."""
    import h5py

    try:
        with h5py.File(path, "r") as file, path.open("rb") as data:
            group = file[GROUP]
            numbers = sorted(group, key=int)
            most = path.stat().st_size * MOST_PACKED
            return [_raw(_own(group, number, h5py.Group), h5py, data, most) for number in numbers]
    except BROKEN as error:
        raise _damaged() from error


def _raw(group: Any, h5py: Any, data: BinaryIO, most: int) -> Raw:
    found = {what: next((name for name in names if name in group), "") for what, names in NAMES.items()}
    name = _word(_own(group, found["type"], h5py.Dataset), data)
    if name.startswith("Composite"):
        return name, np.zeros(0), np.zeros(0)
    parameters, fixed = (_numbers(_own(group, found[what], h5py.Dataset), most) for what in ("parameters", "fixed"))
    return name, parameters, fixed


def _word(dataset: Any, data: BinaryIO) -> str:
    """The text of one value. It lies in a heap without a checksum, in which the library may walk for ever."""
    place = dataset.id.get_offset()
    if dataset.dtype.kind != "O" or place is None:
        return bytes(np.asarray(dataset[()]).ravel()[0]).decode("ascii")
    data.seek(place)
    _, heap, wanted = REFERENCE.unpack(data.read(REFERENCE.size))
    data.seek(heap)
    signature, size = HEAP_HEADER.unpack(data.read(HEAP_HEADER.size))
    while signature == HEAP and data.tell() + OBJECT_HEADER.size <= heap + size:
        number, length = OBJECT_HEADER.unpack(data.read(OBJECT_HEADER.size))
        text = data.read(min(length, LONGEST_NAME))
        if number == wanted:
            return text.decode("ascii")
        data.seek(-(-length // 8) * 8 - len(text), 1)
    raise KeyError(dataset.name)


def _own(group: Any, name: str, kind: type) -> Any:
    """What lies in the file itself under a name (LookupError): no link to another file."""
    found = group[name] if type(group.get(name, getlink=True)).__name__ == "HardLink" else None
    if not isinstance(found, kind):
        raise KeyError(name)
    return found


def _numbers(dataset: Any, most: int) -> Numbers:
    if dataset.dtype.kind not in "fiu" or dataset.external or dataset.is_virtual or dataset.nbytes > most:
        raise ValueError(dataset.name)
    return np.asarray(dataset[()], dtype=np.float64).ravel()


def _from_child(path: Path) -> Iterator[Raw]:
    """The same, read in a process of its own, which may die."""
    command = [sys.executable, "-m", __name__, str(path.absolute())]
    nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(command, stdin=nothing, stdout=pipe, stderr=nothing) as child:  # noqa: S603 - ourselves
        out: Any = child.stdout
        try:
            for name, *counts in json.loads(out.readline()):
                arrays = [np.empty(count) for count in counts]
                for array in arrays:
                    if array.size and out.readinto(array.data.cast("B")) != array.nbytes:
                        raise ValueError(name)
                yield name, arrays[0], arrays[1]
        except (ValueError, TypeError) as error:
            raise _damaged() from error
        finally:
            child.kill()


def _damaged() -> GeometryError:
    return GeometryError(f"expected transforms of ITK in HDF5, got another content: {DAMAGED}")


def main() -> None:
    """Write names, counts and numbers of the file named on the command line."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path = Path(sys.argv[1])
    seconds = CHILD_SECONDS + path.stat().st_size // BYTES_PER_SECOND
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    found = _read(path)
    out = sys.stdout.buffer
    out.write(json.dumps([(name, len(a), len(b)) for name, a, b in found]).encode() + b"\n")
    for _, parameters, fixed in found:
        out.write(parameters.tobytes())
        out.write(fixed.tobytes())
    out.flush()


if __name__ == "__main__":
    main()
