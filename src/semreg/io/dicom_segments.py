"""DICOM Segmentation objects as label maps: segments are labels, frames that are left out are empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from semreg.core.fields import Volume
from semreg.core.geometry import Grid, nearest_rotation
from semreg.errors import GeometryError, ImageError
from semreg.io.dicom_files import careful, read_header
from semreg.io.dicom_frames import Frame, decoded, frame_of, group_of
from semreg.io.segments import described

UNEVEN = 0.05
"""Share of the distance of planes by which a frame may lie off its plane; in the plane, share of a pixel times two."""


@careful
def read_segmentation(path: Path, facts: Any) -> tuple[Volume, str, dict[str, str]]:
    """The labels, float32 (1, z, y, x), their type, and their names (``segments``).

    A fractional object has one segment and becomes its fraction, 0 to 1. Raises ImageError for segments that overlap,
    GeometryError where the frames are no planes of one grid.
    """
    data, _ = read_header(path)
    frames, numbers = _frames(data, path)
    grid, planes = _grid(frames, (int(data.Columns), int(data.Rows)), data, path)
    pixels = decoded(path, facts).numpy()
    names = {int(each.SegmentNumber): str(each.get("SegmentLabel") or each.SegmentNumber) for each in _segments(data)}
    kind = str(data.get("SegmentationType") or "BINARY")
    if kind == "FRACTIONAL":
        if len(set(numbers)) > 1:
            raise ImageError(f"expected one segment of fractions in {path}, got {len(set(numbers))}: export one")
        values = np.zeros(grid.shape, np.float32)
        values[planes] = pixels / float(data.get("MaximumFractionalValue") or 255)
        return Volume(torch.from_numpy(values)[None], grid), "float32", {}
    labels = _labelled(pixels, planes, None if kind == "LABELMAP" else numbers, grid, path)
    return Volume(torch.from_numpy(labels)[None], grid), "uint16", described(names)


@careful
def segmentation_grid(path: Path) -> Grid:
    """The grid of ``read_segmentation``."""
    data, _ = read_header(path)
    return _grid(_frames(data, path)[0], (int(data.Columns), int(data.Rows)), data, path)[0]


def _segments(data: Any) -> Any:
    return [each for each in data.get("SegmentSequence") or () if each.get("SegmentNumber") is not None]


def _frames(data: Any, path: Path) -> tuple[list[Frame], list[int]]:
    """Where each frame lies and of which segment it is."""
    shared = (data.get("SharedFunctionalGroupsSequence") or [{}])[0]
    own = list(data.get("PerFrameFunctionalGroupsSequence") or ())
    frames = [frame for frame in (frame_of(each, shared) for each in own) if frame is not None]
    if not frames or len(frames) != int(data.get("NumberOfFrames") or 1):
        raise GeometryError(f"expected the position of each frame of the segmentation in {path}, got none: convert it")
    name = "SegmentIdentificationSequence", "ReferencedSegmentNumber"
    return frames, [int(group_of(each, shared, *name) or 1) for each in own]


def _grid(frames: list[Frame], size_xy: tuple[int, int], data: Any, path: Path) -> tuple[Grid, list[int]]:
    """The smallest grid that holds all frames, and the plane of each."""
    first = frames[0]
    rows, columns = np.array(first.cosines[:3]), np.array(first.cosines[3:])
    axes = nearest_rotation(np.stack([rows, columns, np.cross(rows, columns)], 1))
    along = np.array([frame.position for frame in frames]) @ axes
    height = np.unique(np.round(along[:, 2], 3))
    measures = [
        group_of(data.PerFrameFunctionalGroupsSequence[0], (data.get("SharedFunctionalGroupsSequence") or [{}])[0],
                 "PixelMeasuresSequence", name)
        for name in ("SpacingBetweenSlices", "SliceThickness")
    ]  # fmt: skip
    steps = [abs(float(each)) for each in measures if each] or [1.0]
    least = float(np.diff(height).min()) if len(height) > 1 else steps[0]
    step = steps[0] if abs(round(least / steps[0]) - least / steps[0]) < UNEVEN and least > steps[0] / 2 else least
    lowest = along[:, 2].min()
    plane = (along[:, 2] - lowest) / step
    spacing = np.array(first.spacing_xy)
    off = np.abs(along[:, :2] - along[0, :2]) / spacing
    alike = all(np.allclose(f.cosines, first.cosines, atol=1e-3) and f.spacing_xy == first.spacing_xy for f in frames)
    if np.abs(plane - np.rint(plane)).max() > UNEVEN or off.max() > 2 * UNEVEN or not alike:
        raise GeometryError(
            f"expected frames that are planes of one grid in {path}, got others: convert the segmentation to NRRD or "
            "NIfTI"
        )
    planes = np.rint(plane).astype(int)
    origin = axes @ np.append(along[0, :2], lowest)
    grid = Grid((*size_xy, int(planes.max()) + 1), (*first.spacing_xy, step), tuple(origin), tuple(map(tuple, axes)))
    return grid, planes.tolist()


def _labelled(
    pixels: npt.NDArray[Any], planes: list[int], numbers: list[int] | None, grid: Grid, path: Path
) -> npt.NDArray[np.float32]:
    """The labels (z, y, x); ``numbers``: the segment of each frame, None: its values are labels (ImageError)."""
    labels = np.zeros(grid.shape, np.float32)
    for number, (plane, frame) in enumerate(zip(planes, pixels, strict=True)):
        label = frame if numbers is None else (frame > 0) * float(numbers[number])
        if ((labels[plane] > 0) & (label > 0)).any():
            raise ImageError(
                f"expected segments that do not overlap in {path}, got several at one voxel: export them one by one"
            )
        labels[plane] += label
    return labels
