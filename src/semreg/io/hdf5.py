"""Writes transforms as HDF5, so that the same content is the same bytes and no copy of a field is made on the way.

ITK says what lies in a file: it writes a layout, with one voxel in place of a field, which is copied. Left out are the
times that it keeps of each object, and the system it ran on. Numbers of a field go straight to the file. Knows nothing
of registration.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semreg.core.fields import Field
from semreg.core.sampling import slabs
from semreg.io.bridge import PIECE_POINTS
from semreg.io.bridge.common import interleaved

if TYPE_CHECKING:
    import h5py

VERSION = "v108"
"""Of the format: that of ITK's files, whose structure has checksums."""
SYSTEM = ("OSName", "OSVersion")
TYPE, PARAMETERS, FIXED = "TransformType", "TransformParameters", "TransformFixedParameters"
PIECE = 1 << 20
"""Numbers that are copied at once."""


def rewrite(layout: Path, path: Path, field: Field | None = None) -> None:
    """Copy the transforms of a file of ITK to ``path``, without times.

    Args:
        layout: the file of ITK.
        path: the new file.
        field: what stands in place of the only displacement field of ``layout``, in single precision, which all the
            values of files are exact in; None: all is as in the layout.

    Raises:
        OSError: where it cannot be written.
    """
    import h5py

    with h5py.File(layout, "r") as given, h5py.File(path, "w", libver=(VERSION, VERSION)) as new:

        def copy(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Group):
                new.create_group(name)
            elif name not in SYSTEM:
                _copy(item, new.require_group(item.parent.name), field)

        given.visititems(copy)


def _copy(item: h5py.Dataset, group: h5py.Group, field: Field | None) -> None:
    """One dataset of a transform, or one beside them."""
    name = item.name.rpartition("/")[2]
    of_field = field is not None and TYPE in item.parent and _word(item.parent[TYPE]).startswith("DisplacementField")
    if field is None or not of_field:
        new = group.create_dataset(name, item.shape, item.dtype, track_times=False)
        for start in range(0, len(item), PIECE):
            new[start : start + PIECE] = item[start : start + PIECE]
    elif name == TYPE:
        text = _word(item).replace("_double_", "_float_")
        group.create_dataset(name, data=np.array([text.encode()], dtype=object), dtype=item.dtype, track_times=False)
    elif name == FIXED:
        numbers = item[()]
        numbers[: field.grid.dimension] = field.grid.size_xyz  # origin, spacing and direction follow
        group.create_dataset(name, data=numbers, track_times=False)
    else:
        _stream(field, group.create_dataset(name, (field.vox.numel(),), np.float32, track_times=False))


def _stream(field: Field, dataset: Any) -> None:
    place = 0
    for part in slabs(field.grid.shape, PIECE_POINTS):
        numbers = interleaved(field, part, np.float32).ravel()
        dataset[place : place + len(numbers)] = numbers
        place += len(numbers)


def _word(dataset: h5py.Dataset) -> str:
    return bytes(dataset[0]).decode("ascii")
