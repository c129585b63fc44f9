"""The parameter files of elastix, ``TransformParameters.0.txt``, as SimpleITK transforms and back.

elastix maps points as ITK does, fixed → moving in mm, LPS. Its directions of grids are stored column by column, ITK's
row by row. Of the transforms that elastix knows those are read that ITK has too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from semreg.core.geometry import Grid
from semreg.errors import ConfigError, GeometryError, SemregError
from semreg.io import files
from semreg.io.bridge import matrix_of
from semreg.io.transform_files.building import build
from semreg.io.transform_files.record import Numbers, Stored
from semreg.io.transform_files.text import numbers
from semreg.runtime.texts import read_text
from semreg.transforms.chain import Chain
from semreg.transforms.domain import Outside
from semreg.transforms.formats.contract import Format
from semreg.transforms.formats.displacement import field_of

Parameters: TypeAlias = dict[str, list[str]]
"""The values of each parameter, as they are written, without their quotes."""

NONE = "NoInitialTransform"
LINE = re.compile(r"^\s*\((\w+)\s+(.*)\)\s*(?://.*)?$")
VALUE = re.compile(r'"([^"]*)"|(\S+)')
LONGEST_CHAIN = 20
LINEAR = {
    "TranslationTransform": "TranslationTransform", "EulerTransform": "Euler{}DTransform",
    "SimilarityTransform": "Similarity{}DTransform", "AffineTransform": "AffineTransform",
}  # fmt: skip
"""elastix's kinds, and ITK's with the same parameters for a dimension."""
SPLINES = ("BSplineTransform", "RecursiveBSplineTransform")
FILES = {"DeformationFieldTransform": "DeformationFieldFileName", "File": "TransformFileName"}
"""Kinds that are in another file, and what names it."""


def is_elastix(path: Path) -> bool:
    """Whether a text file holds the parameters of a transform in the way of elastix."""
    try:
        with path.open("rb") as file:
            start = file.read(1 << 16)
    except OSError:
        return False
    return re.search(rb"^[ \t]*\(Transform\s", start, re.MULTILINE) is not None


def read_elastix(path: Path, read_other: Callable[[Path], Any]) -> list[Any]:
    """The SimpleITK transforms of a parameter file and of those it starts from, the first applied first.

    ``read_other`` reads an image of displacements and a file of ITK. Raises GeometryError for what ITK cannot express.
    """
    chain: list[Any] = []
    seen: set[Path] = set()
    dimension: int | None = None
    while True:
        seen.add(path.resolve())
        parameters = parse(path)
        initial = _text(parameters, ("InitialTransformParameterFileName", "InitialTransformParametersFileName"), NONE)
        dimension = _dimension(parameters, path, dimension)
        chain.insert(0, _transform(parameters, path, dimension, read_other))
        if initial == NONE:
            return chain
        if _text(parameters, ("HowToCombineTransforms",), "Compose") != "Compose":
            raise GeometryError(
                f'expected (HowToCombineTransforms "Compose") in {path}, got another way: run elastix with it'
            )
        if len(chain) == LONGEST_CHAIN:
            raise GeometryError(f"expected at most {LONGEST_CHAIN} transforms in a chain, got more from {path}")
        before, path = path, _beside(path, initial)
        if path.resolve() in seen:
            raise GeometryError(f"expected a chain of transforms that ends, got {before}, which leads back to {path}")


def linear_text(transform: Any, reference: Grid) -> str:
    """The parameter file of a linear SimpleITK transform; ``reference`` is the grid transformix will write images on.

    Translations and Euler transforms stay what they are, any other becomes an AffineTransform.
    """
    import SimpleITK as sitk

    n = transform.GetDimension()
    if isinstance(transform, sitk.TranslationTransform):
        return _text_of("TranslationTransform", list(transform.GetOffset()), reference)
    if isinstance(transform, (sitk.Euler2DTransform, sitk.Euler3DTransform)):
        extra = [("CenterOfRotationPoint", _numbers(transform.GetCenter()))]
        if n == 3:
            extra.append(("ComputeZYX", '"true"' if transform.GetComputeZYX() else '"false"'))
        return _text_of("EulerTransform", list(transform.GetParameters()), reference, extra)
    matrix = matrix_of(transform)
    values = [*matrix[:n, :n].ravel().tolist(), *matrix[:n, n].tolist()]
    return _text_of("AffineTransform", values, reference, [("CenterOfRotationPoint", _numbers([0.0] * n))])


def field_text(image_name: str, reference: Grid) -> str:
    """The parameter file of a displacement field in the image ``image_name``, found from where transformix runs."""
    extra = [
        ("DeformationFieldFileName", f'"{image_name}"'),
        ("DeformationFieldInterpolationOrder", "1"),  # as ITK; 0, the nearest vector, is what elastix takes by itself
    ]
    return _text_of("DeformationFieldTransform", [], reference, extra)


def _text_of(kind: str, values: Sequence[float], grid: Grid, extra: Sequence[tuple[str, str]] = ()) -> str:
    n = grid.dimension
    columns = np.asarray(grid.direction).T.ravel().tolist()
    lines = [
        ("Transform", f'"{kind}"'),
        ("NumberOfParameters", str(len(values))),
        *([("TransformParameters", _numbers(values))] if values else []),
        *extra,
        ("InitialTransformParameterFileName", f'"{NONE}"'),
        ("HowToCombineTransforms", '"Compose"'),
        ("FixedImageDimension", str(n)),
        ("MovingImageDimension", str(n)),
        ("FixedInternalImagePixelType", '"float"'),
        ("MovingInternalImagePixelType", '"float"'),
        ("Size", " ".join(map(str, grid.size_xyz))),
        ("Index", " ".join(["0"] * n)),
        ("Spacing", _numbers(grid.spacing_xyz)),
        ("Origin", _numbers(grid.origin_xyz)),
        ("Direction", _numbers(columns)),
        ("UseDirectionCosines", '"true"'),
        ("ResampleInterpolator", '"FinalLinearInterpolator"'),
        ("Resampler", '"DefaultResampler"'),
        ("DefaultPixelValue", "0"),
        ("ResultImageFormat", '"nii.gz"'),
        ("ResultImagePixelType", '"float"'),
        ("CompressResultImage", '"true"'),
    ]
    return "".join(f"({name} {value})\n" for name, value in lines)


def parse(path: Path, error: type[SemregError] = GeometryError) -> Parameters:
    """The entries of a parameter file, of a transform or of a registration; ``error`` for one that cannot be read."""
    text = read_text(path, "a parameter file of elastix", error)
    found = (LINE.match(line) for line in text.splitlines())
    return {match[1]: [a or b for a, b in VALUE.findall(match[2])] for match in found if match}


def _dimension(parameters: Parameters, path: Path, known: int | None) -> int:
    """2 or 3; where a file does not say it, ``known`` from the one that starts from it (GeometryError)."""
    said = parameters.get("FixedImageDimension", [] if known is None else [str(known)])
    if said not in (["2"], ["3"]):
        raise GeometryError(
            f"expected a transform in 2-D or 3-D, got {' '.join(said)[:40] or 'no '}-D in {path}: "
            "correct its FixedImageDimension, or extract one frame of a series first"
        )
    return int(said[0])


def _transform(parameters: Parameters, path: Path, n: int, read_other: Callable[[Path], Any]) -> Any:
    """One SimpleITK transform, without what it starts from."""
    kind = _text(parameters, ("Transform",), "")
    if kind in FILES:
        return read_other(_beside(path, _text(parameters, (FILES[kind],), "")))
    name, fixed = _spline(parameters, path, n) if kind in SPLINES else _linear(parameters, path, n)
    values = _values(parameters, "TransformParameters", path)
    try:
        return build([Stored.of(name, values, np.array(fixed))])[0]
    except GeometryError as error:
        raise GeometryError(f"{error} ({path})") from error


def _linear(parameters: Parameters, path: Path, n: int) -> tuple[str, list[float]]:
    """ITK's name and its fixed parameters of the kind that has the same parameters."""
    kind = _text(parameters, ("Transform",), "")
    if kind not in LINEAR:
        raise GeometryError(
            f"expected a Translation-, Euler-, Similarity-, Affine-, BSpline- or DeformationFieldTransform in {path}, "
            f"got {kind or 'none'}: let transformix -def all write its field and use that"
        )
    fixed: list[float] = []
    if kind != "TranslationTransform":
        fixed = _values(parameters, "CenterOfRotationPoint", path, n).tolist()
    if kind == "EulerTransform" and n == 3:
        fixed.append(float(_text(parameters, ("ComputeZYX",), "false") == "true"))
    return f"{LINEAR[kind].format(n)}_double_{n}_{n}", fixed


def _spline(parameters: Parameters, path: Path, n: int) -> tuple[str, list[float]]:
    """The same of a B-spline, of the order and the grid of the file."""
    if _text(parameters, ("UseCyclicTransform",), "false") == "true":
        raise GeometryError(f"expected a B-spline without a cycle, got a cyclic one in {path}: write its field")
    order = _text(parameters, ("BSplineTransformSplineOrder",), "3")
    if order not in ("1", "2", "3"):
        raise GeometryError(f"expected a B-spline of order 1, 2 or 3 in {path}, got {order[:40]}: write its field")
    if any(_values(parameters, "GridIndex", path) if "GridIndex" in parameters else ()):
        raise GeometryError(f"expected a grid of a B-spline from index 0 on in {path}, got another: write its field")
    columns = _values(parameters, "GridDirection", path, n * n)
    grid = [_values(parameters, f"Grid{name}", path, n).tolist() for name in ("Size", "Origin", "Spacing")]
    rows = columns.reshape(n, n).T.ravel().tolist()
    return f"BSplineTransform_double_{n}_{n}_{order}", [*grid[0], *grid[1], *grid[2], *rows]


def _text(parameters: Parameters, names: Sequence[str], default: str) -> str:
    """The one value of the first of ``names`` that is there."""
    for name in names:
        if parameters.get(name):
            return parameters[name][0]
    return default


def _values(parameters: Parameters, name: str, path: Path, count: int | None = None) -> Numbers:
    """``count`` finite numbers, or those that are there (GeometryError)."""
    texts = parameters.get(name, [])
    try:
        values = numbers(" ".join(texts).encode())
    except GeometryError:
        values = np.array([np.nan])
    if len(values) != (len(values) if count is None else count) or not np.isfinite(values).all():
        raise GeometryError(
            f"expected {'' if count is None else f'{count} '}finite numbers as ({name} ...) in {path}, "
            f"got {len(texts)} values: check the file"
        )
    return values


def _beside(path: Path, name: str) -> Path:
    """A file that a parameter file names: as it says, or else of that name in the folder of the file."""
    named = Path(name)
    nearest = path.parent / named.name
    for candidate in (path.parent / named, nearest):
        if name and os.path.isfile(candidate):  # noqa: PTH113 - False where a name is none
            return candidate
    raise GeometryError(f"expected the file {name[:80]!r} that {path} names, got none: put it into the same folder")


def _numbers(values: Sequence[float]) -> str:
    return " ".join(repr(float(value)) for value in values)


def write(chain: Chain, path: Path, reference: Grid | None, outside: Outside) -> list[Path]:
    """A parameter file; where the chain deforms, it names the image of displacements beside it; both or none."""
    if chain.is_linear:
        if reference is None:
            raise ConfigError(
                "expected a reference image, whose grid transformix writes its results on: "
                "give --reference, the fixed image"
            )
        single = chain.links[0].transform if len(chain.links) == 1 else chain.affine()
        _write_text(linear_text(single, reference), path)
        return [path]
    field = field_of(chain, reference, outside)
    image = path.with_name(f"{path.stem}.field.mha")
    with files.OutputFolder(path.parent) as folder:
        files.write_field(field, folder.stage(image.name))
        _write_text(field_text(image.name, field.grid), folder.stage(path.name))
    return [path, image]


def _write_text(text: str, path: Path) -> None:
    with files.atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


ELASTIX = Format(write, is_elastix, lambda path: read_elastix(path, lambda other: files.read_transforms(other)[0]))
