"""The parameter files of elastix, ``TransformParameters.0.txt``, as SimpleITK transforms and back.

elastix maps points as ITK does, fixed → moving in mm, LPS. Its directions of grids are stored column by column, ITK's
row by row. Of the transforms that elastix knows those are read that ITK has too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from semreg.core.geometry import Grid
from semreg.errors import ConfigError, GeometryError
from semreg.io import files
from semreg.io.bridge import matrix_of
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


def is_elastix(path: Path) -> bool:
    """Whether a text file holds the parameters of a transform in the way of elastix."""
    try:
        with path.open("rb") as file:
            start = file.read(1 << 16)
    except OSError:
        return False
    return re.search(rb"^\s*\(Transform\s", start, re.MULTILINE) is not None


def read_elastix(path: Path, read_field: Callable[[Path], Any]) -> list[Any]:
    """The SimpleITK transforms of a parameter file and of those it starts from, the first applied first.

    ``read_field`` reads an image of displacements. Raises GeometryError for what ITK cannot express.
    """
    chain: list[Any] = []
    while True:
        parameters = _parse(path)
        initial = _text(parameters, ("InitialTransformParameterFileName", "InitialTransformParametersFileName"), NONE)
        chain.insert(0, _transform(parameters, path, read_field))
        if initial == NONE:
            return chain
        if _text(parameters, ("HowToCombineTransforms",), "Compose") != "Compose":
            raise GeometryError(
                f'expected (HowToCombineTransforms "Compose") in {path}, got another way: run elastix with it'
            )
        if len(chain) == LONGEST_CHAIN:
            raise GeometryError(f"expected at most {LONGEST_CHAIN} transforms in a chain, got more from {path}")
        path = _beside(path, initial)


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


def _parse(path: Path) -> Parameters:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GeometryError(f"expected a parameter file of elastix, got {path}: it cannot be read ({error})") from error
    found = (LINE.match(line) for line in text.splitlines())
    return {match[1]: [a or b for a, b in VALUE.findall(match[2])] for match in found if match}


def _transform(parameters: Parameters, path: Path, read_field: Callable[[Path], Any]) -> Any:
    """One SimpleITK transform, without what it starts from."""
    kind = _text(parameters, ("Transform",), "")
    n = int(_values(parameters, "FixedImageDimension", path, 1)[0])
    if n not in (2, 3):
        raise GeometryError(f"expected a transform in 2-D or 3-D, got {n}-D in {path}: extract one frame first")
    if kind == "DeformationFieldTransform":
        return read_field(_beside(path, _text(parameters, ("DeformationFieldFileName",), "")))
    if kind in ("BSplineTransform", "RecursiveBSplineTransform"):
        return _bspline(parameters, path, n)
    transform = _linear(kind, n)
    if transform is None:
        raise GeometryError(
            f"expected a Translation-, Euler-, Similarity-, Affine-, BSpline- or DeformationFieldTransform in {path}, "
            f"got {kind or 'none'}: let transformix -def all write its field and use that"
        )
    if kind != "TranslationTransform":
        transform.SetCenter(_values(parameters, "CenterOfRotationPoint", path, n))
    if kind == "EulerTransform" and n == 3:
        transform.SetComputeZYX(_text(parameters, ("ComputeZYX",), "false") == "true")
    transform.SetParameters(_values(parameters, "TransformParameters", path, len(transform.GetParameters())))
    return transform


def _linear(kind: str, dimension: int) -> Any | None:
    """The SimpleITK transform with the parameters that elastix's ``kind`` has; None if there is none."""
    import SimpleITK as sitk

    flat = dimension == 2
    made: dict[str, Callable[[], Any]] = {
        "TranslationTransform": lambda: sitk.TranslationTransform(dimension),
        "EulerTransform": sitk.Euler2DTransform if flat else sitk.Euler3DTransform,
        "SimilarityTransform": sitk.Similarity2DTransform if flat else sitk.Similarity3DTransform,
        "AffineTransform": lambda: sitk.AffineTransform(dimension),
    }
    return made[kind]() if kind in made else None


def _bspline(parameters: Parameters, path: Path, n: int) -> Any:
    """A B-spline of the order, the grid and the coefficients of the file."""
    import SimpleITK as sitk

    if _text(parameters, ("UseCyclicTransform",), "false") == "true":
        raise GeometryError(f"expected a B-spline without a cycle, got a cyclic one in {path}: write its field")
    columns = _values(parameters, "GridDirection", path, n * n)
    rows = np.reshape(columns, (n, n)).T.ravel().tolist()
    grid = [_values(parameters, f"Grid{name}", path, n) for name in ("Size", "Origin", "Spacing")]
    order = int(_text(parameters, ("BSplineTransformSplineOrder",), "3"))
    if order not in (1, 2, 3):
        raise GeometryError(f"expected a B-spline of order 1, 2 or 3 in {path}, got {order}: write its field")
    transform = sitk.BSplineTransform(n, order)
    transform.SetFixedParameters([value for values in (*grid, rows) for value in values])
    count = len(transform.GetParameters())
    transform.SetParameters(_values(parameters, "TransformParameters", path, count))
    return transform


def _text(parameters: Parameters, names: Sequence[str], default: str) -> str:
    """The one value of the first of ``names`` that is there."""
    for name in names:
        if parameters.get(name):
            return parameters[name][0]
    return default


def _values(parameters: Parameters, name: str, path: Path, count: int) -> list[float]:
    """``count`` finite numbers (GeometryError)."""
    texts = parameters.get(name, [])
    try:
        values = [float(text) for text in texts]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise GeometryError(
            f"expected {count} finite numbers as ({name} ...) in {path}, got {len(texts)} values: check the file"
        )
    return values


def _beside(path: Path, name: str) -> Path:
    """A file that a parameter file names: as it says, or else of that name in the folder of the file."""
    named = Path(name)
    nearest = path.parent / named.name
    for candidate in (path.parent / named, nearest):
        if name and candidate.is_file():
            return candidate
    raise GeometryError(f"expected the file {name!r} that {path} names, got none: put it into the same folder")


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


ELASTIX = Format(write, is_elastix, lambda path: read_elastix(path, files.read_transform))
