"""Promises of the parameter files of elastix: what ITK can say of them is read, what is written elastix reads."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from conftest import make_grid, oblique_grid, points_of, rotation, smooth_field
from semreg.errors import GeometryError
from semreg.io.files import write_field
from semreg.transforms import Chain, read_chain, read_transform, write_chain

GRID = make_grid((9, 8, 7), (1.1, 1.4, 1.9), (-31.0, 12.5, 77.0), rotation(3))


def parameter_file(path, kind, values, *lines, dimension=3):
    """A file as elastix writes it, with only what its transform needs."""
    path.write_text(
        f'// a comment\n(Transform "{kind}")\n(NumberOfParameters {len(values)})\n'
        f"(TransformParameters {' '.join(map(repr, values))})\n(FixedImageDimension {dimension})\n"
        + "".join(f"({line})\n" for line in lines)
    )
    return path


def matrix_points(matrix, centre, shift):
    """A (p − c) + c + t, written out."""
    points = points_of(GRID).flatten(1).numpy()
    centre = np.reshape(centre, (3, 1))
    return matrix @ (points - centre) + centre + np.reshape(shift, (3, 1))


def moved(path):
    """Where the file brings the voxel centres."""
    return read_chain([path]).map(points_of(GRID).flatten(1).numpy())


def about(axis, angle):
    """The rotation matrix about one axis."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = [n for n in range(3) if n != axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = (-s, s) if axis != 1 else (s, -s)
    return matrix


def test_affine_is_read(tmp_path):
    """The matrix row by row, then the shift, about the centre."""
    matrix = rotation(3, 23.0) * 1.1
    path = parameter_file(
        tmp_path / "p.txt",
        "AffineTransform",
        [*matrix.ravel().tolist(), 4.0, 5.0, -6.0],
        "CenterOfRotationPoint 7 -8 9",
    )
    np.testing.assert_allclose(moved(path), matrix_points(matrix, (7, -8, 9), (4, 5, -6)), atol=1e-9)


@pytest.mark.parametrize("zyx", [False, True])
def test_euler_is_read(zyx, tmp_path):
    """Three angles and a shift: Z X Y, or Z Y X where the file says so."""
    angles = (0.2, -0.3, 0.4)
    x, y, z = (about(axis, angle) for axis, angle in enumerate(angles))
    matrix = z @ y @ x if zyx else z @ x @ y
    path = parameter_file(
        tmp_path / "p.txt", "EulerTransform", [*angles, 1.0, 2.0, 3.0], "CenterOfRotationPoint 7 -8 9",
        f'ComputeZYX "{str(zyx).lower()}"',
    )  # fmt: skip
    np.testing.assert_allclose(moved(path), matrix_points(matrix, (7, -8, 9), (1, 2, 3)), atol=1e-9)


def test_a_chain_of_files_is_read(tmp_path):
    """A file that starts from another is applied after it, wherever elastix wrote the path of that other file."""
    parameter_file(tmp_path / "T.0.txt", "TranslationTransform", [5.0, 6.0, 7.0])
    matrix = rotation(3, 40.0)
    path = parameter_file(
        tmp_path / "T.1.txt", "AffineTransform", [*matrix.ravel().tolist(), 0.0, 0.0, 0.0],
        "CenterOfRotationPoint 0 0 0", 'InitialTransformParametersFileName "/somewhere/else/T.0.txt"',
        'HowToCombineTransforms "Compose"',
    )  # fmt: skip
    points = points_of(GRID).flatten(1).numpy()
    np.testing.assert_allclose(moved(path), matrix @ (points + np.array([[5.0], [6.0], [7.0]])), atol=1e-9)


def test_a_bspline_is_read(tmp_path):
    """Coefficients on a grid whose direction is stored by columns, as the B-spline that ITK makes of them."""
    rows = rotation(3, 17.0)
    values = np.random.default_rng(0).normal(size=3 * 6 * 7 * 8).tolist()
    spline = sitk.BSplineTransform(3, 3)
    spline.SetFixedParameters([6, 7, 8, -40.0, 5.0, 60.0, 5.0, 6.0, 7.0, *rows.ravel().tolist()])
    spline.SetParameters(values)
    path = parameter_file(
        tmp_path / "p.txt", "BSplineTransform", values, "GridSize 6 7 8", "GridIndex 0 0 0", "GridOrigin -40 5 60",
        "GridSpacing 5 6 7", f"GridDirection {' '.join(map(repr, rows.T.ravel().tolist()))}",
        "BSplineTransformSplineOrder 3", 'UseCyclicTransform "false"',
    )  # fmt: skip
    expected = np.array([spline.TransformPoint(p) for p in points_of(GRID).flatten(1).T.tolist()]).T
    assert np.abs(expected - points_of(GRID).flatten(1).numpy()).max() > 0.3
    np.testing.assert_allclose(moved(path), expected, atol=1e-9)


def test_a_field_is_read_beside_its_file(tmp_path):
    """The image of a DeformationFieldTransform is found in the folder of the file."""
    field = smooth_field(GRID)
    write_field(field, tmp_path / "field.nii.gz")
    path = tmp_path / "p.txt"
    name = '(DeformationFieldFileName "old/field.nii.gz")'
    path.write_text(f'(Transform "DeformationFieldTransform")\n{name}\n(FixedImageDimension 3)\n')
    expected = Chain.of(field).map(points_of(GRID).flatten(1).numpy())
    inner = np.zeros(GRID.shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    np.testing.assert_allclose(moved(path)[:, inner.ravel()], expected[:, inner.ravel()], atol=1e-3)


@pytest.mark.parametrize("dimension", [2, 3])
def test_what_is_written_says_all_that_transformix_needs(dimension, tmp_path):
    """The grid of the result is in the file, its direction by columns, and each parameter in one pair of brackets."""
    grid = oblique_grid(dimension)
    write_chain(Chain.of(smooth_field(grid)), tmp_path / "TransformParameters.0.txt")
    text = (tmp_path / "TransformParameters.0.txt").read_text(encoding="utf-8")
    assert all(re.fullmatch(r"\(\w+ [^()]+\)", line) for line in text.splitlines())
    said = {line[1:-1].partition(" ")[0]: line[1:-1].partition(" ")[2] for line in text.splitlines()}
    assert said["Size"] == " ".join(map(str, grid.size_xyz))
    columns = np.asarray(grid.direction).T.ravel()
    np.testing.assert_allclose([float(v) for v in said["Direction"].split()], columns)
    assert said["DeformationFieldInterpolationOrder"] == "1"
    assert (tmp_path / said["DeformationFieldFileName"].strip('"')).is_file()


def test_transformix_moves_the_points(tmp_path, monkeypatch):
    """The filter of elastix itself moves points with the written files as the chain does, within 1e-3 mm."""
    itk = pytest.importorskip("itk")
    if not hasattr(itk, "TransformixFilter"):
        pytest.skip("needs the package itk-elastix")
    monkeypatch.chdir(tmp_path)
    chain = Chain.of(smooth_field(GRID), sitk.Euler3DTransform((1, 2, 3), 0.1, 0.2, 0.3, (4, 5, 6)))
    write_chain(chain, tmp_path / "TransformParameters.0.txt")
    points = points_of(GRID)[:, 1:-1, 1:-1, 1:-1].flatten(1).numpy()
    rows = "".join(" ".join(map(repr, point)) + "\n" for point in points.T.tolist())
    (tmp_path / "points.txt").write_text(f"point\n{points.shape[1]}\n{rows}")
    parameters = itk.ParameterObject.New()
    parameters.ReadParameterFile("TransformParameters.0.txt")
    transformix = itk.TransformixFilter.New(itk.image_from_array(np.zeros(GRID.shape, np.float32)))
    transformix.SetTransformParameterObject(parameters)
    transformix.SetFixedPointSetFileName("points.txt")
    transformix.SetOutputDirectory(str(tmp_path))
    transformix.Update()
    found = re.findall(r"OutputPoint = \[ ([^\]]*) \]", (tmp_path / "outputpoints.txt").read_text(encoding="utf-8"))
    np.testing.assert_allclose([[float(v) for v in line.split()] for line in found], chain.map(points).T, atol=1e-3)


AFFINE = [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0, 0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "values", "lines", "said"),
    [
        ("SplineKernelTransform", [1.0], (), "SplineKernelTransform"),
        ("AffineTransform", AFFINE, (), "CenterOfRotationPoint"),
        ("AffineTransform", AFFINE[:-1], ("CenterOfRotationPoint 0 0 0",), "expected 12 parameters"),
        ("TranslationTransform", [1.0, float("nan"), 2.0], (), "finite"),
        ("TranslationTransform", [1.0, 2.0, 3.0], ('InitialTransformParameterFileName "gone.txt"',), "gone.txt"),
        (
            "TranslationTransform", [1.0, 2.0, 3.0],
            ('InitialTransformParameterFileName "p.txt"', 'HowToCombineTransforms "Add"'), "Compose",
        ),
        ("TranslationTransform", [1.0, 2.0, 3.0], ('InitialTransformParameterFileName "p.txt"',), "leads back"),
        ("DeformationFieldTransform", [], ('DeformationFieldFileName "gone.mha"',), "gone.mha"),
    ],
)  # fmt: skip
def test_what_itk_cannot_say_is_refused(kind, values, lines, said, tmp_path):
    """Unknown kinds, missing, too few or senseless values, missing files and endless chains end in one sentence."""
    with pytest.raises(GeometryError, match=said):
        read_chain([parameter_file(tmp_path / "p.txt", kind, values, *lines)])


SPLINE = """(Transform "BSplineTransform")
(FixedImageDimension 2)
(GridDirection 1 0 0 1)
(GridSize 4 4)
(GridOrigin 0 0)
(GridSpacing 1 1)
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('(Transform "EulerTransform")\n(FixedImageDimension 4)\n', "in 2-D or 3-D, got 4-D in"),
        (f'{SPLINE}(UseCyclicTransform "true")\n', "without a cycle, got a cyclic one in"),
        (f"{SPLINE}(BSplineTransformSplineOrder 4)\n", "of order 1, 2 or 3 in .*, got 4: write its field"),
        (SPLINE.replace("GridSize 4 4", 'GridSize "a" "b"'), r"expected 2 finite numbers as \(GridSize ...\) in"),
        (f"{SPLINE}(TransformParameters 1 2 3)\n", "expected 32 parameters of the BSplineTransform, got 3"),
    ],
)
def test_parameter_files_that_are_beyond_itk_are_refused(text: str, said: str, tmp_path: Path) -> None:
    """What elastix has and ITK lacks, and damaged numbers, are refused with the file and a way out."""
    path = tmp_path / "TransformParameters.0.txt"
    path.write_text(text)
    with pytest.raises(GeometryError, match=said) as refused:
        read_transform(path)
    assert str(path) in str(refused.value)


def test_a_parameter_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    """A parameter file that is no UTF-8 says so."""
    path = tmp_path / "TransformParameters.0.txt"
    path.write_bytes(SPLINE.encode() + b"\n(Comment \xff\xfe)\n")
    with pytest.raises(GeometryError, match=r"expected a parameter file of elastix, got .*: it is no text in UTF-8"):
        read_transform(path)
