"""Whether a file is HDF5, by what is in it, and whether an image in one lies in it whole.

ITK and nibabel know HDF5 by its content, whatever its name, and its library reads on in other files where a part says
so. Knows no voxels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semreg.errors import ImageError
from semreg.io.endings import MINC

SIGNATURE = b"\x89HDF\r\n\x1a\n"
ENDINGS = (".h5", ".hdf5", ".he5", ".hd5", ".hdf", *MINC)
"""Of images in HDF5: those of ITK, and MINC 2."""
WRONG = (OSError, LookupError, ValueError, TypeError, RuntimeError)
"""What h5py raises for damaged files."""


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5: its library looks at these places alone. Raises OSError."""
    place, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while place < size:
            file.seek(place)
            if file.read(len(SIGNATURE)) == SIGNATURE:
                return True
            place = max(512, 2 * place)
    return False


def check_whole(path: Path) -> None:
    """Refuse HDF5 under the name of another format, and HDF5 of which a part lies in another file (ImageError)."""
    try:
        if not is_hdf5(path):
            return
    except OSError as error:
        raise ImageError(f"expected an image file that can be read, got {path}: {error.strerror or error}") from error
    if not path.name.lower().endswith(ENDINGS):
        raise ImageError(
            f"expected an image in the format that its name says, got HDF5 in {path}: convert it, or call it .h5"
        )
    import h5py

    try:
        with h5py.File(path, "r") as file:
            part = _elsewhere(file, h5py)
    except WRONG as error:
        raise ImageError(f"expected a complete image, got {path}: it is damaged; copy it again") from error
    if part is not None:
        raise ImageError(
            f"expected an image in HDF5 that is in one file, got {path}, of which {part} is in another: write it anew"
        )


def _elsewhere(file: Any, h5py: Any) -> str | None:
    """The first part of a file that lies in another one."""
    todo, seen = [file], set()
    while todo:
        group = todo.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                return f"{group.name}/{name}"
            item = group[name] if isinstance(link, h5py.HardLink) else None
            if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                return str(item.name)
            if isinstance(item, h5py.Group) and (place := h5py.h5o.get_info(item.id).addr) not in seen:
                seen.add(place)
                todo.append(item)
    return None
