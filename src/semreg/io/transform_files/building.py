"""SimpleITK's transforms from the numbers of a file, which have been checked. Knows no format of files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semreg.errors import GeometryError
from semreg.io.transform_files.record import COMPOSITE, FIELD, SPLINE, Stored
from semreg.io.transform_files.text import HEADER

RENAMED = {"Rigid3DTransform": "AffineTransform"}
"""Kinds of before and the kind that has the same parameters."""


def build(stored: Sequence[Stored]) -> list[Any]:
    """The transforms of a file side by side; a composite is one, of all that follow it (GeometryError)."""
    if not stored:
        raise GeometryError("expected a transform, got none: the file is empty or cut short; copy it again")
    first, *rest = stored
    if any(each.kind == COMPOSITE for each in rest):
        raise GeometryError("expected a composite in front of its parts, got one behind: save it anew")
    if first.kind != COMPOSITE:
        return [_one(each) for each in stored]
    if not rest or any(each.dimension != first.dimension for each in rest):
        raise GeometryError(
            f"expected a composite of transforms in {first.dimension}-D, got {len(rest)}, not all of them so: "
            "it is cut short or damaged; copy it again"
        )
    import SimpleITK as sitk

    return [sitk.CompositeTransform([_one(each) for each in rest])]


def _one(stored: Stored) -> Any:
    if stored.kind == FIELD:
        return _field(stored)
    if stored.kind == SPLINE:
        import SimpleITK as sitk

        spline = sitk.BSplineTransform(stored.dimension, stored.order)
        spline.SetFixedParameters(stored.fixed.tolist())
        spline.SetParameters(stored.parameters.tolist())
        return spline
    return _read_by_itk(stored)


def field_transform(vectors: npt.NDArray[Any], place: Callable[[Any], Any]) -> Any:
    """A ``SimpleITK.DisplacementFieldTransform`` of vectors (*S, D) in mm; ``place`` sets where their image lies."""
    import SimpleITK as sitk

    return sitk.DisplacementFieldTransform(
        place(sitk.GetImageFromArray(vectors.astype(np.float64, copy=False), isVector=True))
    )


def spline_transform(coefficients: npt.NDArray[Any], place: Callable[[Any], Any], after: Any | None = None) -> Any:
    """A cubic ``SimpleITK.BSplineTransform`` of coefficients (D, *S) in mm, x y(, z); ``place`` sets where they lie.

    ``after``: a transform that follows it; both are a composite then.
    """
    import SimpleITK as sitk

    images = [place(sitk.GetImageFromArray(each.astype(np.float64, copy=False))) for each in coefficients]
    spline = sitk.BSplineTransform(images, 3)
    return spline if after is None else sitk.CompositeTransform([after, spline])  # the last one is applied first


def _field(stored: Stored) -> Any:
    n = stored.dimension

    def place(image: Any) -> Any:
        image.SetOrigin(stored.fixed[n : 2 * n].tolist())
        image.SetSpacing(stored.fixed[2 * n : 3 * n].tolist())
        image.SetDirection(stored.fixed[3 * n :].tolist())
        return image

    return field_transform(stored.parameters.reshape(*stored.size[::-1], n), place)


def _read_by_itk(stored: Stored) -> Any:
    """ITK reads its own words for it, written anew: so each of the many kinds is what ITK takes it for."""
    import SimpleITK as sitk

    n, kind = stored.dimension, RENAMED.get(stored.kind, stored.kind)
    numbers = (" ".join(map(repr, each.tolist())) for each in (stored.parameters, stored.fixed))
    text = "{} V1.0\n#Transform 0\nTransform: {}_double_{}_{}\nParameters: {}\nFixedParameters: {}\n"
    with tempfile.TemporaryDirectory(prefix="semreg-") as folder:
        file = Path(folder) / "one.tfm"
        file.write_text(text.format(HEADER.decode(), kind, n, n, *numbers), encoding="ascii")
        try:
            return sitk.ReadTransform(str(file)).Downcast()
        except RuntimeError as error:
            raise GeometryError(f"expected parameters of a {kind}, got others: check its source") from error
