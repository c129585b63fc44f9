"""Images in chunks opened: which arrays a folder of OME-Zarr has, and where each lies. No voxel is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semreg.errors import ConfigError, ImageError
from semreg.io.ngff.metadata import Multiscale, multiscale_of, place_of, spatial
from semreg.io.ngff.names import whole_slide
from semreg.io.ngff.pyramid import EXTRA, Pyramid, Resolution, chosen_samples, sample_of


def open_pyramid(path: str | Path, choice: str | None = None) -> Pyramid:
    """Open an image of OME-Zarr, or a whole slide in TIFF; no voxel is read.

    Args:
        path: the folder, or the file of the slide.
        choice: which sample of axes beside those of space, as ``c=1,t=0``; None: they have one.

    Returns:
        Its resolutions.

    Raises:
        ImageError: for what is no such image, and for further axes of several samples that are not chosen.
        GeometryError: for metadata that do not say where the samples lie.
        ConfigError: where zarr, or for a slide tifffile, is not installed.
    """
    path = Path(path)
    if whole_slide(path):
        from semreg.io.ngff.slides import open_slide

        return open_slide(path, choice)
    group = open_group(path)
    try:
        image = multiscale_of(group.attrs.asdict())
        levels, notes = _levels(group, image, choice)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    return Pyramid(path, levels, notes, tuple(axis.name for axis in image.axes))


def open_group(path: Path) -> Any:
    """The group of Zarr at a path, to be read (ImageError, ConfigError)."""
    try:
        import zarr
    except ImportError:
        raise ConfigError(f"expected the package zarr to read {path.name}, it is not installed: {EXTRA}") from None
    try:
        return zarr.open_group(str(path), mode="r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageError(f"expected a group of Zarr with an image, got {path}: {error}") from error


def _levels(group: Any, image: Multiscale, choice: str | None) -> tuple[tuple[Resolution, ...], tuple[str, ...]]:
    chosen = chosen_samples(choice, [axis.name for axis in image.axes])
    places, notes, levels = spatial(image.axes), list[str](), []
    for dataset in image.datasets:
        if dataset.path not in group:
            raise ImageError(f"expected an array {dataset.path}, got none: the image is not complete; copy it again")
        array = group[dataset.path]
        if not hasattr(array, "shape") or len(array.shape) != len(image.axes):
            raise ImageError(f"expected an array of {len(image.axes)} axes at {dataset.path}, got another: check it")
        where = tuple(
            None if place in places else sample_of(axis.name, array.shape[place], chosen)
            for place, axis in enumerate(image.axes)
        )
        place = place_of(image, dataset)
        levels.append(Resolution(array, place.grid([array.shape[p] for p in places]), where))
        notes += [note for note in place.notes if note not in notes]
    ordered = sorted(levels, key=lambda level: -level.grid.voxels)
    if np.dtype(ordered[0].array.dtype).kind not in "biuf":
        raise ImageError(f"expected voxels that are real numbers, got {ordered[0].dtype}: convert the image")
    return tuple(ordered), (*notes, *_shifted(ordered))


def _shifted(levels: Sequence[Resolution]) -> list[str]:
    """Whether coarser resolutions begin where the finest does, as no means of blocks do."""
    first = levels[0].grid
    same = [
        number
        for number, level in enumerate(levels[1:], start=1)
        if np.allclose(level.grid.origin_xyz, first.origin_xyz, atol=1e-9) and level.grid.shape != first.shape
    ]
    if not same:
        return []
    numbers = ", ".join(map(str, same))
    beside = "if they are means of blocks, they lie up to half of their voxel beside their place"
    return [f"its resolutions {numbers} begin at the origin of the finest one: {beside}; they are taken as written"]
