"""What 3D Slicer stores of segments beside their voxels: names, colours, which label is which. Knows no files.

Keys are ``Segment{n}_{what}``, as the metadata of ``.seg.nrrd`` files has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

KEY = re.compile(r"Segment(\d+)_(\w+)")
OF_THE_OLD_GRID = ("Segmentation_ConversionParameters", "Segmentation_ReferenceImageExtentOffset")
"""Keys that describe the grid a segmentation had."""


def names_of(segments: Mapping[str, str]) -> dict[int, str]:
    """Label → name."""
    found = {}
    for key, value in segments.items():
        match = KEY.fullmatch(key)
        if match is not None and match[2] == "LabelValue":
            found[int(value)] = segments.get(f"Segment{match[1]}_Name", value)
    return found


def described(labels: Mapping[int, str], colours: Mapping[int, str] | None = None) -> dict[str, str]:
    """Label → name as 3D Slicer stores it, one layer."""
    found: dict[str, str] = {}
    for number, (label, name) in enumerate(labels.items()):
        found |= {
            f"Segment{number}_ID": f"Segment_{label}",
            f"Segment{number}_LabelValue": str(label),
            f"Segment{number}_Layer": "0",
            f"Segment{number}_Name": name,
        }
        if colours is not None and label in colours:
            found[f"Segment{number}_Color"] = colours[label]
    return found


def on_labels(segments: Mapping[str, str], layers: npt.NDArray[Any]) -> dict[str, str]:
    """The same of a resampled image, (z, y, x, layers): the extents are those of the labels in it."""
    found = {key: value for key, value in segments.items() if key not in OF_THE_OLD_GRID}
    if any(key.startswith("Segmentation_") for key in segments):
        found["Segmentation_ReferenceImageExtentOffset"] = "0 0 0"
    for key, value in segments.items():
        match = KEY.fullmatch(key)
        if match is not None and match[2] == "LabelValue":
            layer = int(segments.get(f"Segment{match[1]}_Layer", "0"))
            found[f"Segment{match[1]}_Extent"] = _extent(layers[..., layer] == int(value))
    return found


def _extent(there: Any) -> str:
    """First and last index along x, y and z, as 3D Slicer writes it; an empty segment ends before it starts."""
    index = np.nonzero(there)
    ends = [(int(axis.min()), int(axis.max())) if axis.size else (0, -1) for axis in index[::-1]]
    return " ".join(f"{low} {high}" for low, high in ends)
