"""Series over time: the frames of one file with a fourth axis, or of one file each, read, and written into one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semreg.core.fields import Volume
from semreg.core.geometry import same_lattice
from semreg.errors import GeometryError, ImageError
from semreg.io.images import read_stored


@dataclass(frozen=True)
class Series:
    """Frames of one grid, in their order."""

    frames: tuple[Volume, ...]
    """(1, *S) each, float32."""
    pixel_type: str
    """That of the first file."""
    timing: tuple[float, float] = (0.0, 1.0)
    """Time of the first frame and between two, in the unit of the file; of several files their numbers."""


def read_frames(paths: Sequence[Path]) -> Series:
    """The frames of a series: of one file with an axis of time, or of several files in the order that they are given.

    Raises ImageError for a file that is no image or has several values a voxel, for one file without an axis of time,
    and for several files of which one has it; GeometryError for files on several grids.
    """
    frames: list[Volume] = []
    kind, timing = "float32", (0.0, 1.0)
    for number, path in enumerate(paths):
        stored = read_stored(path)
        if stored.components > 1:
            raise ImageError(f"expected one value a voxel, got {path} with {stored.components}: choose one of them")
        if stored.frames is not None and len(paths) > 1:
            raise ImageError(f"expected one series, or files of one frame each, got the series {path} among others")
        if stored.frames is None and len(paths) == 1:
            raise ImageError(f"expected a series over time, got {path} with one frame: name the files of all frames")
        kind = stored.pixel_type if number == 0 else kind
        timing = stored.frames or timing
        for array in stored.array if stored.frames is not None else [stored.array]:
            frame = replace(stored, array=array, frames=None).samples().volume()
            if frames and not same_lattice(frame.grid, frames[0].grid):
                raise GeometryError(
                    f"expected all frames on the grid of the first, {frames[0].grid.sentence}, got {path} on "
                    f"{frame.grid.sentence}: resample it"
                )
            frames.append(Volume(frame.data, frames[0].grid) if frames else frame)
    return Series(tuple(frames), kind, timing)
