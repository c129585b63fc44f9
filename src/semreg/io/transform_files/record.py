"""A transform as a file of ITK holds it, and whether its numbers can be those of its kind. Knows no file and no ITK."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from semreg.errors import GeometryError

Numbers: TypeAlias = npt.NDArray[np.float64]

COMPOSITE, SPLINE, FIELD = "CompositeTransform", "BSplineTransform", "DisplacementFieldTransform"
NAME = re.compile(r"(\w+?)_(?:double|float)_(\d+)_(\d+)(?:_(\d+))?")
COUNTS: Mapping[tuple[str, int], tuple[int, tuple[int, ...]]] = {
    **{("IdentityTransform", n): (0, (0,)) for n in (2, 3)},
    **{("TranslationTransform", n): (n, (0,)) for n in (2, 3)},
    **{("ScaleTransform", n): (n, (n,)) for n in (2, 3)},
    **{("AffineTransform", n): (n * n + n, (n,)) for n in (2, 3)},
    **{("MatrixOffsetTransformBase", n): (n * n + n, (n,)) for n in (2, 3)},
    ("Rigid2DTransform", 2): (3, (2,)),
    ("Euler2DTransform", 2): (3, (2,)),
    ("CenteredRigid2DTransform", 2): (5, (0, 2)),
    ("Similarity2DTransform", 2): (4, (2,)),
    ("Rigid3DTransform", 3): (12, (3,)),
    ("Euler3DTransform", 3): (6, (3, 4)),
    ("VersorTransform", 3): (3, (3,)),
    ("VersorRigid3DTransform", 3): (6, (3,)),
    ("QuaternionRigidTransform", 3): (7, (3,)),
    ("Similarity3DTransform", 3): (7, (3,)),
    ("ScaleVersor3DTransform", 3): (9, (3,)),
    ("ScaleSkewVersor3DTransform", 3): (15, (3,)),
    ("ComposeScaleSkewVersor3DTransform", 3): (12, (3,)),
    ("ScaleLogarithmicTransform", 3): (3, (3,)),
}
"""By kind and dimension: how many parameters, and how many fixed ones, those of older files too."""
OTHERS = {
    "BSplineDeformable": ", a B-spline of ITK 3 and old versions of 3D Slicer",
    "ThinPlate": ", a thin-plate spline as 3D Slicer writes it",
}
"""Kinds that ITK has and SimpleITK lacks, and where they come from."""
LONGEST_VERSOR = 1 + 1e-6
STEPS_MM = (1e-9, 1e9)
"""Between which the spacing of a grid lies."""
DAMAGED = "it is cut short or damaged; copy it again"


@dataclass(frozen=True)
class Stored:
    """A transform of a file, as its numbers."""

    kind: str
    """In ITK's words, without the type of its numbers: ``Euler3DTransform``."""
    dimension: int
    order: int
    """Of a B-spline."""
    parameters: Numbers
    fixed: Numbers

    @classmethod
    def of(cls, name: str, parameters: Numbers, fixed: Numbers) -> Stored:
        """From ITK's whole name, ``Euler3DTransform_double_3_3``; GeometryError for what is none or does not fit it."""
        kind, dimension, order = kind_of(name)
        found = cls(kind, dimension, order, parameters, fixed)
        found._check()
        return found

    @property
    def size(self) -> tuple[int, ...]:
        """Of the grid of a B-spline or a field, x first."""
        return tuple(int(n) for n in self.fixed[: self.dimension])

    @property
    def has_grid(self) -> bool:
        """Whether it is a B-spline or a field."""
        return self.kind in (SPLINE, FIELD)

    def _check(self) -> None:
        n, kind = self.dimension, self.kind
        if kind == COMPOSITE:
            return
        if not (np.isfinite(self.parameters).all() and np.isfinite(self.fixed).all()):
            raise GeometryError(f"expected finite parameters of the {kind}, got NaN or infinity: check its source")
        wanted, fixed = ((-1, (n * (n + 3),)) if self.has_grid else COUNTS[kind, n])[:2]
        self._check_count("fixed parameters", len(self.fixed), fixed)
        if self.has_grid:
            self._check_grid()
            wanted = n * math.prod(self.size)
        self._check_count("parameters", len(self.parameters), (wanted,))
        versor = "Versor" in kind or kind == "Similarity3DTransform"
        if versor and float(np.linalg.norm(self.parameters[:3])) > LONGEST_VERSOR:
            raise GeometryError(f"expected a versor of length up to 1 in the {kind}, got more: check its source")

    def _check_count(self, what: str, count: int, wanted: tuple[int, ...]) -> None:
        if count not in wanted:
            raise GeometryError(
                f"expected {' or '.join(map(str, wanted))} {what} of the {self.kind}, got {count}: {DAMAGED}"
            )

    def _check_grid(self) -> None:
        n = self.dimension
        size, spacing, axes = self.fixed[:n], self.fixed[2 * n : 3 * n], self.fixed[3 * n :].reshape(n, n)
        least = self.order + 1 if self.kind == SPLINE else 1
        if (size != np.rint(size)).any() or size.min() < least or size.max() > 2**31:
            raise GeometryError(
                f"expected whole numbers from {least} on as the size of the grid of the {self.kind}, "
                f"got {size.tolist()}: {DAMAGED}"
            )
        if spacing.min() < STEPS_MM[0] or spacing.max() > STEPS_MM[1]:
            raise GeometryError(f"expected spacings above 0 mm in the {self.kind}, got {spacing.tolist()}: {DAMAGED}")
        length = np.linalg.norm(axes, axis=0)
        if np.abs(length - 1).max() > 0.1 or abs(np.linalg.det(axes)) < 1e-6:
            raise GeometryError(f"expected the axes of a grid in the {self.kind}, got {axes.tolist()}: {DAMAGED}")


def kind_of(name: str) -> tuple[str, int, int]:
    """Kind, dimension and order of a B-spline, from ITK's whole name; GeometryError for what SimpleITK cannot have."""
    said = NAME.fullmatch(name)
    if said is None:
        raise GeometryError(f"expected the name of a transform, got {name[:60]!r}: {DAMAGED}")
    kind, order = said[1], int(said[4] or 3)
    if kind.startswith("Inverse"):
        raise GeometryError(
            f"expected a transform from fixed to moving points, got {kind}, which 3D Slicer stored the other way "
            "round: convert it to a displacement field there, in the Transforms module, and save that"
        )
    if said[2] != said[3] or said[2] not in ("2", "3"):
        raise GeometryError(f"expected a transform in 2-D or 3-D, got {name[:60]}: extract one frame first")
    n = int(said[2])
    if kind.endswith(FIELD):
        return FIELD, n, order
    if (kind not in (COMPOSITE, SPLINE) and (kind, n) not in COUNTS) or not 0 <= order <= 3:
        whose = next((words for part, words in OTHERS.items() if part in kind), "")
        raise GeometryError(
            f"expected a transform that SimpleITK has, got {name[:60]}{whose}: let the program that wrote it save a "
            "displacement field"
        )
    return kind, n, order
