"""What the viewer of the page reads: stacks as sheets, planes, colours."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from semreg.report.colours import BLUE, FOLDED, LARGER, ORANGE, SMALLER, viridis
from semreg.report.encode import Sheets, sheets, sheets_within
from semreg.report.planes import Plane
from semreg.report.stacks import Map, Stacks
from semreg.report.windows import Code

GREY_BYTES = 10_000_000
"""What all grey stacks may take on the page, as text."""


class StackSheets(Sheets, kw_only=True):
    """A stack whose samples are fewer than those of the grey ones: (z, y, x)."""

    shape: tuple[int, ...]


class MapSheets(StackSheets, kw_only=True):
    """A map, of bytes from ``low`` to ``high``."""

    low: float
    high: float
    unit: str
    reach: float
    """Octaves at the ends of the colours of the Jacobian map."""


class VectorSheets(StackSheets, kw_only=True):
    """Displacements in mm with 16 bits a component, from −``reach`` to ``reach``."""

    reach: float
    largest: float
    high: float
    """99.5th percentile of the lengths."""


class GreyWindow(msgspec.Struct):
    """Values that are shown as black and as white."""

    name: str
    low: float
    high: float


class Greys(msgspec.Struct):
    """What the bytes of an image stand for, and the windows to choose from, the first at first."""

    table: list[float]
    windows: tuple[GreyWindow, ...]
    unit: str


class Place(msgspec.Struct):
    """One way to lay the moving image on the fixed one: see ``stacks.State``."""

    key: str
    word: str
    covered: float


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
    """``fixed``, and the moving image by the key of its state."""
    states: tuple[Place, ...]
    greys: dict[str, Greys]
    """Of the images ``fixed`` and ``moving``."""
    linear: list[list[float]] | None
    """What follows the deformation, on indices (z, y, x) of the view grid, homogeneous."""
    octaves: float
    """log2 of its determinant."""
    maps: dict[str, MapSheets]
    labels: dict[str, StackSheets]
    """Of the images, and ``structure``: the rigid parts, or what slides."""
    vectors: VectorSheets
    colours: Colours


def viewer_data(stacks: Stacks, planes: tuple[Plane, ...]) -> ViewerData:
    """What the viewer reads of a case."""
    maps = {"jacobian": stacks.jacobian, "uncertainty": stacks.uncertainty}
    labels = stacks.labels | ({} if stacks.structure is None else {"structure": stacks.structure})
    return ViewerData(
        shape=stacks.shape,
        full=stacks.full,
        spacing=tuple(stacks.spacing),
        to_point=stacks.grid.index_to_point().tolist(),
        dimension=stacks.grid.dimension,
        planes=planes,
        stacks=sheets_within({"fixed": stacks.fixed, **stacks.moving}, GREY_BYTES),
        states=tuple(Place(state.key, state.word, state.covered) for state in stacks.states),
        greys={role: greys_of(code) for role, code in stacks.codes.items()},
        linear=None if stacks.linear is None else stacks.linear.tolist(),
        octaves=0.0 if stacks.linear is None else float(np.log2(abs(np.linalg.det(stacks.linear)))),
        maps={name: map_sheets(each) for name, each in maps.items() if each is not None},
        labels={n: sheets(each, StackSheets, quality=None, shape=each.shape) for n, each in labels.items()},
        vectors=vector_sheets(stacks.vectors),
        colours=Colours(viridis().ravel().tolist(), ORANGE, BLUE, SMALLER, LARGER, FOLDED),
    )


def greys_of(code: Code) -> Greys:
    """What the viewer must know of the bytes of an image."""
    windows = tuple(GreyWindow(each.name, each.low, each.high) for each in code.windows)
    return Greys([round(value, 6) for value in code.table.tolist()], windows, code.unit)


def map_sheets(chosen: Map) -> MapSheets:
    """A map without loss."""
    return sheets(
        chosen.stack, MapSheets, quality=None, shape=chosen.stack.shape, low=chosen.low, high=chosen.high,
        unit=chosen.unit, reach=chosen.reach,
    )  # fmt: skip


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
