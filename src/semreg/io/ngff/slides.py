"""Whole slides in TIFF as pyramids, through tifffile: 2-D, their colours as luminance. Knows no registration."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semreg.core.geometry import Grid
from semreg.errors import ConfigError, ImageError
from semreg.io.ngff.metadata import MM
from semreg.io.ngff.pyramid import EXTRA, Pyramid, Resolution, chosen_samples, sample_of
from semreg.io.pictures import grey

COLOURS = -1
"""In ``where``: the axis of the colours."""
UNITS = {"µm": 1e-3, "um": 1e-3, "nm": 1e-6, "mm": 1.0, "cm": 10.0, **MM}


@dataclass(frozen=True)
class SlideResolution(Resolution):
    """One resolution of a slide of colours, whose last axis of the array they are."""

    def stored(self, start: Sequence[int], stop: Sequence[int]) -> npt.NDArray[Any]:
        """The luminance of the samples of a box."""
        if self.pooling > 1:
            scaled = [[n * self.pooling for n in ends] for ends in (start, stop)]
            fine = SlideResolution(self.array, self.grid, self.where).stored(*scaled)
            k = self.pooling
            return np.asarray(fine.reshape(fine.shape[0] // k, k, fine.shape[1] // k, k).mean((1, 3)), np.float32)
        spans = iter(zip(start, stop, strict=True))
        found = np.asarray(self.array[tuple(slice(*next(spans)) if w is None else _kept(w) for w in self.where)])
        kept = [w for w in self.where if w is None or w == COLOURS]
        return grey(np.moveaxis(found, kept.index(COLOURS), -1))

    def coarsened(self, factor: int) -> Resolution:
        """As of any resolution."""
        found = Resolution.coarsened(self, factor)
        return SlideResolution(found.array, found.grid, found.where, found.pooling)


def _kept(where: int) -> int | slice:
    return slice(None) if where == COLOURS else where


def open_slide(path: Path, choice: str | None) -> Pyramid:
    """The pyramid of the first series of a TIFF file (ImageError, ConfigError)."""
    try:
        import tifffile
        import zarr
    except ImportError:
        raise ConfigError(f"expected the package tifffile to read {path.name}, it is not installed: {EXTRA}") from None
    try:
        file = tifffile.TiffFile(path)
        series = file.series[0]
        axes, shapes = series.axes, [level.shape for level in series.levels]
        spacing, inner = _spacing(file), series.aszarr()
        weakref.finalize(inner, file.close)  # it is read as long as somebody holds an array of it
        store = zarr.open(inner, mode="r")
    except (tifffile.TiffFileError, OSError, ValueError, IndexError) as error:
        raise ImageError(f"expected a whole slide that tifffile reads, got {path}: {error}") from error
    arrays = [store] if hasattr(store, "shape") else [store[str(number)] for number in range(len(shapes))]
    notes = () if spacing is not None else ("it says no size of its pixels: they count as 1 mm",)
    names = [letter.lower() for letter in axes]
    chosen = chosen_samples(choice, names)
    levels = tuple(_level(array, names, chosen, shapes[0], spacing or (1.0, 1.0)) for array in arrays)
    return Pyramid(path, levels, notes, tuple(names))


def _level(
    array: Any, names: Sequence[str], chosen: dict[str, int], finest: Sequence[int], spacing: tuple[float, float]
) -> Resolution:
    """One resolution; its pixels are as many times as large as it has fewer, and its edge is that of the finest."""
    colours = "s" in names and array.shape[names.index("s")] in (3, 4)
    where: list[int | None] = []
    for name, count in zip(names, array.shape, strict=True):
        kept = None if name in "yx" else COLOURS if name == "s" and colours else sample_of(name, count, chosen)
        where.append(kept)
    place = [names.index("y"), names.index("x")]
    shape = [array.shape[p] for p in place]
    steps = [s * finest[p] / array.shape[p] for s, p in zip(spacing, place, strict=True)]
    origin = [(step - s) / 2 for step, s in zip(steps, spacing, strict=True)]
    grid = Grid(tuple(shape)[::-1], tuple(steps)[::-1], tuple(origin)[::-1], ((1.0, 0.0), (0.0, 1.0)))
    kind = SlideResolution if colours else Resolution
    return kind(array, grid, tuple(where))


def _spacing(file: Any) -> tuple[float, float] | None:
    """The size of a pixel in mm, y and x, as OME-XML says it; None: it does not."""
    if not file.is_ome:
        return None
    from xml.etree import ElementTree as ET

    root = ET.fromstring(file.ome_metadata)  # noqa: S314 - expat of Python expands no external entity
    pixels = next((each for each in root.iter() if each.tag.endswith("Pixels")), None)
    if pixels is None:
        return None
    found = []
    for axis in "YX":
        size, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if size is None or unit not in UNITS:
            return None
        found.append(float(size) * UNITS[unit])
    return found[0], found[1]
