"""The planes a stack is looked at in, their letters and their aspect. Knows nothing of pages.

Radiological display: axial slices from below, coronal ones from the front, so the patient's right is on the left;
sagittal ones with anterior on the left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from semreg.core.geometry import Grid

T = TypeVar("T", bound=np.generic)

OBLIQUE = 0.35
"""Least part of a unit vector along an axis that gets a letter: about 20°."""


@dataclass(frozen=True)
class Plane:
    """One family of slices of a stack (z, y, x): which axis they are counted along, and how they are drawn."""

    name: str
    across: int
    rows: int
    columns: int
    upwards: bool
    """Whether rows are drawn from the last to the first: superior is on top."""
    letters: tuple[str, str, str, str]
    """At the left, right, top and bottom edge; empty in 2-D."""
    along: str
    """The direction in which slices are counted, a letter; empty in 2-D."""

    def cut(self, stack: npt.NDArray[T], number: int) -> npt.NDArray[T]:
        """The slice as it is drawn: the first row on top."""
        picture: npt.NDArray[T] = np.take(stack, number, axis=self.across)
        return picture[::-1] if self.upwards else picture


def planes_of(grid: Grid) -> tuple[Plane, ...]:
    """The planes of a view grid that show more than a line."""
    if grid.dimension == 2:
        return (Plane("plane", 0, 1, 2, False, ("", "", "", ""), ""),)
    forth = [letters_of(grid, axis) for axis in range(3)]
    back = [_opposite(word) for word in forth]
    every = (
        Plane("axial", 0, 1, 2, False, (back[2], forth[2], back[1], forth[1]), forth[0]),
        Plane("coronal", 1, 0, 2, True, (back[2], forth[2], forth[0], back[0]), forth[1]),
        Plane("sagittal", 2, 0, 1, True, (back[1], forth[1], forth[0], back[0]), forth[2]),
    )
    shown = [plane for plane in every if min(grid.shape[plane.rows], grid.shape[plane.columns]) > 1]
    return tuple(shown) or every[:1]


def letters_of(grid: Grid, axis: int) -> str:
    """The direction of a tensor axis in letters, the main one first: ``L``, or ``LP`` if it is oblique."""
    vector = np.asarray(grid.direction)[:, ::-1][:, axis]
    order = np.argsort(-np.abs(vector))
    words = [("LR", "PA", "SI")[k][0 if vector[k] > 0 else 1] for k in order if abs(vector[k]) > OBLIQUE]
    return "".join(words[:2])


def _opposite(word: str) -> str:
    return word.translate(str.maketrans("LRPASI", "RLAPIS"))


def doubt_of_letters(grids: Mapping[str, Grid], oriented: Mapping[str, bool | None]) -> str:
    """Why the letters may be wrong, in a sentence; empty where nothing speaks against them.

    A file whose orientation was lost has the identity as direction and begins at the origin; so may a good one.

    Args:
        grids: where the images lie, by their names.
        oriented: whether their headers say how the patient lies, by their names, as far as that is known.

    Returns:
        The sentence.
    """
    unknown = [name for name, grid in grids.items() if grid.dimension == 3 and oriented.get(name) is None]
    whys = {
        "no place in the header": [name for name in grids if oriented.get(name) is False],
        "the identity as direction and the origin as first voxel, as files do whose orientation was lost": [
            name for name in unknown if _bare(grids[name])
        ],
    }
    said = [f"{_named(names)} {why}" for why, names in whys.items() if names]
    if not said:
        return ""
    return (
        f"The letters R, L, A, P, S and I may be wrong: {'; '.join(said)}. "
        "Check the letters at an organ whose side you know."
    )


def _named(names: Sequence[str]) -> str:
    return " and ".join(f"the {name} image" for name in names) + (" each have" if len(names) > 1 else " has")


def _bare(grid: Grid) -> bool:
    """Whether the direction is the identity, of ITK or of NIfTI, and the first voxel lies where the axes meet."""
    straight = np.array_equal(np.abs(grid.direction), np.eye(3)) and grid.direction[0][0] == grid.direction[1][1]
    return bool(straight and np.all(np.abs(grid.origin_xyz) <= 2 * np.asarray(grid.spacing_xyz)))
