"""An image in chunks as the door for images gives it: whole, at the resolution that fits into memory, which is said."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from semreg.io.bridge import PIXEL_TYPES
from semreg.io.ngff.names import MARKS, is_ngff
from semreg.io.ngff.opening import open_pyramid
from semreg.io.ngff.pyramid import Pyramid, Resolution
from semreg.io.stored import Stored
from semreg.runtime.memory import SHARE, available_bytes

logger = logging.getLogger("semreg")
BYTES_A_VOXEL = 100
"""What a voxel of the fixed image takes from reading to writing, its displacement included."""
HASHED_BYTES = 1 << 30
"""Bytes of an image up to which all of them are in its checksum."""
META = (*MARKS, ".zarray")


def stored_in_chunks(path: Path, choice: str | None) -> Stored:
    """The image at the finest resolution that fits into memory (ImageError, GeometryError, ConfigError)."""
    pyramid = open_pyramid(path, choice)
    for note in pyramid.notes:
        logger.warning("%s: %s", path, note)
    level = fitting(pyramid)
    array = level.stored([0] * level.grid.dimension, level.grid.shape)
    kind = level.dtype if level.pooling == 1 else "float32"
    if kind not in PIXEL_TYPES:
        array, kind = array.astype(np.float32), "float32"
    return Stored(array, level.grid, None, kind)


def fitting(pyramid: Pyramid) -> Resolution:
    """The finest resolution that fits into memory; what is not the finest there is, is said."""
    number, level = pyramid.within(max(1, int(SHARE * available_bytes() / BYTES_A_VOXEL)))
    if level is not pyramid.finest:
        logger.warning(
            "%s: %s are read, resolution %d%s: the finest, %s, does not fit into memory (semreg large registers it in "
            "blocks)",
            pyramid.path, level.grid.sentence, number,
            f" by means of {level.pooling} samples an axis" if level.pooling > 1 else "", pyramid.finest.grid.sentence,
        )  # fmt: skip
    return level


def files_in(path: Path) -> list[Path]:
    """The files whose bytes are the checksum of an image: all of a small one, the metadata of a large one."""
    if not is_ngff(path):
        return [path]
    files = sorted(each for each in path.rglob("*") if each.is_file())
    if sum(each.stat().st_size for each in files) <= HASHED_BYTES:
        return files
    return [each for each in files if each.name in META]
