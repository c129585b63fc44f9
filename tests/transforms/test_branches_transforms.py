"""Transforms and points that cannot be used: one sentence each, with what was expected and what came."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from conftest import oblique_grid, smooth_field
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.io.bridge import matrix_of
from semreg.transforms import Chain, invert, move_points, read_points, read_transform
from semreg.transforms.chain import map_points

BOX = [1.5, -2.0, 3.25]


def vtp(values: str, kind: str = "Float32", form: str = "ascii", before: str = "") -> bytes:
    """A mesh in XML with one array of points."""
    return (
        f'<VTKFile type="PolyData" byte_order="LittleEndian"><PolyData><Piece NumberOfPoints="1"><Points>'
        f'<DataArray type="{kind}" NumberOfComponents="3" format="{form}" offset="0">{values}</DataArray>'
        f"</Points></Piece></PolyData>{before}</VTKFile>"
    ).encode()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.vtp", vtp("1 2 3", kind="Int32"), "points of Float32 or Float64, got Int32: convert the mesh"),
        ("a.vtp", vtp("1 2 3 4"), "points of three coordinates, got another number of values: check the file"),
        ("a.vtp", vtp("1 two 3"), "cut short"),
        ("a.vtp", vtp("", form="appended", before='<AppendedData encoding="raw">_ab</AppendedData>'), "cut short"),
        ("a.vtp", vtp("1 nan 3"), "finite coordinates, got NaN or infinity in .*a.vtp: remove those"),
        (
            "a.vtk",
            b"# vtk DataFile Version 3.0\nt\nASCII\nDATASET POLYDATA\nPOINTS 2 float\n1 2 3\n",
            "cut short",
        ),
        (
            "a.mrk.json",
            b'{"markups": [{"coordinateSystem": "IJK", "controlPoints": []}]}',
            "coordinateSystem LPS or RAS, got 'IJK'",
        ),
    ],
)
def test_points_that_mean_nothing_are_refused(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    """Numbers of another kind, too few of them, and unknown frames end in one sentence that names the file."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError, match=said) as refused:
        read_points(tmp_path / name)
    assert name in str(refused.value)


def test_a_plane_keeps_its_axes_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The control points of a plane of 3D Slicer are moved, and a warning says what is not."""
    points = [{"position": [1.0, 2.0, 3.0]}]
    markups = {"markups": [{"type": "Plane", "coordinateSystem": "LPS", "controlPoints": points}]}
    (tmp_path / "a.mrk.json").write_text(json.dumps(markups))
    with caplog.at_level(logging.WARNING, logger="semreg"):
        moved = move_points(
            tmp_path / "a.mrk.json", tmp_path / "b.mrk.json", Chain.of(sitk.TranslationTransform(3, BOX))
        )
    assert moved.points.shape == (3, 1)
    assert "of a Plane only the control points are moved" in caplog.text
    np.testing.assert_allclose(read_points(tmp_path / "b.mrk.json").points[:, 0], np.array([1.0, 2.0, 3.0]) + BOX)


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
        (f"{SPLINE}(TransformParameters 1 2 3)\n", r"expected 32 finite numbers as \(TransformParameters ...\) in"),
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
    with pytest.raises(GeometryError, match=r"expected a parameter file of elastix, got .*: it cannot be read"):
        read_transform(path)


def test_a_chain_gives_only_what_it_has() -> None:
    """A way that bends has no matrix, an inverse that is not solved yet no SimpleITK transform, NaN no matrix."""
    bending = Chain.of(smooth_field(oblique_grid(3)))
    with pytest.raises(GeometryError, match="expected a linear transform, got one that deforms"):
        bending.affine()
    with pytest.raises(GeometryError, match="got an inverse: put it on a grid first"):
        bending.inverse().sitk()
    broken = sitk.AffineTransform(2)
    broken.SetTranslation((np.nan, 0.0))
    with pytest.raises(GeometryError, match="finite parameters, got NaN or infinity: check its file"):
        matrix_of(broken)


def test_no_points_are_moved_to_no_points() -> None:
    """An empty set of points stays empty."""
    assert map_points(sitk.TranslationTransform(3, BOX), np.zeros((3, 0))).shape == (3, 0)


def test_an_inverse_needs_a_reference_of_its_dimension() -> None:
    """A 2-D reference for a 3-D transform is refused."""
    with pytest.raises(GeometryError, match="expected a reference in 3-D as the transform, got 2-D"):
        invert(Chain.of(smooth_field(oblique_grid(3))), oblique_grid(2))


def test_a_transform_without_a_grid_asks_for_one() -> None:
    """The inverse of a deformation without a grid of its own needs a reference."""
    spline = sitk.BSplineTransform(2, 3)
    spline.SetTransformDomainMeshSize((3, 3))
    spline.SetParameters([0.1] * len(spline.GetParameters()))
    with pytest.raises(ConfigError, match="give --reference, the moving image"):
        invert(Chain.of(spline))
