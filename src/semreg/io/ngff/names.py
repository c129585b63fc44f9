"""Which paths are images in chunks: OME-Zarr by what is in the folder, whole slides by their names. Imports no zarr.

Knows nothing of what is in the chunks.
"""

from __future__ import annotations

from pathlib import Path

ENDING = ".zarr"
SLIDES = (".ome.tif", ".ome.tiff", ".ome.btf", ".svs", ".ndpi", ".scn", ".btf")
"""Names of TIFF files that may hold a pyramid; plain TIFF is read by ITK."""
MARKS = ("zarr.json", ".zattrs", ".zgroup")
"""Files of which a folder of Zarr, version 3 or 2, has one."""


def is_ngff(path: Path) -> bool:
    """Whether a path is a folder of Zarr."""
    return path.is_dir() and any((path / mark).is_file() for mark in MARKS)


def in_chunks(path: Path) -> bool:
    """Whether a path is an image that is read in chunks."""
    return is_ngff(path) or whole_slide(path)


def is_ngff_name(path: Path) -> bool:
    """Whether the name of a file to write says OME-Zarr."""
    return path.name.lower().endswith(ENDING)


def whole_slide(path: Path) -> bool:
    """Whether the name of a file says that it is a whole slide in TIFF."""
    return path.name.lower().endswith(SLIDES) and path.is_file()
