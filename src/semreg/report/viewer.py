"""What the viewer of the page reads: stacks as sheets, planes, colours."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from semreg.report.colours import BLUE, FOLDED, LARGER, ORANGE, SMALLER, viridis
from semreg.report.encode import Sheets, sheets, sheets_within
from semreg.report.planes import Plane
from semreg.report.stacks import Stacks

GREY_BYTES = 9_500_000
"""What the three grey stacks may take on the page, as text."""


class StackSheets(Sheets, kw_only=True):
    """A stack whose samples are fewer than those of the grey ones: (z, y, x)."""

    shape: tuple[int, ...]


class MapSheets(StackSheets, kw_only=True):
    """A map, of bytes from ``low`` to ``high``."""

    low: float
    high: float
    unit: str


class VectorSheets(StackSheets, kw_only=True):
    """Displacements in mm with 16 bits a component, from −``reach`` to ``reach``."""

    reach: float
    largest: float
    high: float
    """99.5th percentile of the lengths."""


class Colours(msgspec.Struct):
    """Red, green and blue."""

    viridis: list[int]
    orange: tuple[int, int, int]
    blue: tuple[int, int, int]
    smaller: tuple[int, int, int]
    larger: tuple[int, int, int]
    folded: tuple[int, int, int]


class ViewerData(msgspec.Struct, kw_only=True, rename="camel"):
    """All of it."""

    shape: tuple[int, ...]
    full: tuple[int, ...]
    spacing: tuple[float, ...]
    to_point: list[list[float]]
    """From an index (z, y, x) of the view grid to mm, homogeneous."""
    dimension: int
    planes: tuple[Plane, ...]
    stacks: dict[str, Sheets]
    maps: dict[str, MapSheets]
    labels: dict[str, StackSheets]
    vectors: VectorSheets
    colours: Colours


def viewer_data(stacks: Stacks, planes: tuple[Plane, ...]) -> ViewerData:
    """What the viewer reads of a case."""
    maps = {"jacobian": stacks.jacobian, "uncertainty": stacks.uncertainty}
    return ViewerData(
        shape=stacks.shape,
        full=stacks.full,
        spacing=tuple(stacks.spacing),
        to_point=stacks.grid.index_to_point().tolist(),
        dimension=stacks.grid.dimension,
        planes=planes,
        stacks=sheets_within({"fixed": stacks.fixed, "before": stacks.before, "after": stacks.after}, GREY_BYTES),
        maps={
            name: sheets(m.stack, MapSheets, quality=None, shape=m.stack.shape, low=m.low, high=m.high, unit=m.unit)
            for name, m in maps.items()
            if m is not None
        },
        labels={n: sheets(each, StackSheets, quality=None, shape=each.shape) for n, each in stacks.labels.items()},
        vectors=vector_sheets(stacks.vectors),
        colours=Colours(viridis().ravel().tolist(), ORANGE, BLUE, SMALLER, LARGER, FOLDED),
    )


def vector_sheets(vectors: npt.NDArray[np.float32]) -> VectorSheets:
    """Displacements (3, z, y, x): the upper bytes of all three components, then the lower ones, one stack."""
    reach = float(np.abs(vectors).max()) or 1.0
    steps = np.rint(vectors / reach * 32767).astype(np.int32) + 32768
    halves = np.concatenate([steps >> 8, steps & 255]).astype(np.uint8)
    length = np.sqrt((vectors.astype(np.float64) ** 2).sum(0))
    return sheets(
        halves.reshape(-1, *vectors.shape[2:]), VectorSheets, quality=None, shape=vectors.shape[1:], reach=reach,
        largest=float(length.max()), high=float(np.percentile(length, 99.5)) or 1.0,
    )  # fmt: skip
