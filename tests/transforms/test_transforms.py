"""Promises of transforms that travel: one direction everywhere, exact ways back, and files that other tools read.

The oracles are SimpleITK's and itk's own transforms, ANTs where it is installed, and arithmetic written out.
"""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import make_grid, oblique_grid, points_of, rotation, sitk_transform, smooth_field
from semreg.core.fields import Field
from semreg.errors import ConfigError, GeometryError, OutputError
from semreg.io.bridge import matrix_of
from semreg.io.files import write_field, write_transform
from semreg.transforms import Chain, invert, jacobian_map, kind_of, logarithm, read_chain, write_chain
from semreg.transforms import read_transform as read_any
from semreg.transforms.pointwise import invert_points

FIXED = make_grid((16, 15, 14), (1.1, 1.4, 1.9), (-31.0, 12.5, 77.0), rotation(3))


def followed(chain, points):
    """Where a chain leads, and how far off an inverse on the way is."""
    found = chain.follow(points)
    return found.points, found.residual


def rigid(dimension=3):
    """A rotation about a centre far from the origin."""
    if dimension == 2:
        return sitk.Euler2DTransform((11.0, -7.0), 0.31, (4.0, -5.0))
    return sitk.Euler3DTransform((11.0, -7.0, 60.0), 0.1, -0.2, 0.3, (4.0, -5.0, 6.0))


def affine(dimension=3):
    """A rotation with unequal scales and a shear."""
    matrix = rotation(dimension, 31.0) @ np.diag([1.2, 0.9, 1.1][:dimension]) + 0.05
    centre = [3.0, -4.0, 5.0][:dimension]
    return sitk.AffineTransform(matrix.ravel().tolist(), [7.0, 2.0, -9.0][:dimension], centre)


def bspline(dimension=3):
    """A B-spline on a coarse oblique grid that covers the test grid."""
    grid = oblique_grid(dimension)
    image = sitk.Image(grid.size_xyz, sitk.sitkUInt8)
    image.SetOrigin(grid.origin_xyz)
    image.SetSpacing(grid.spacing_xyz)
    image.SetDirection([v for row in grid.direction for v in row])
    transform = sitk.BSplineTransformInitializer(image, [3, 4, 2][:dimension])
    generator = np.random.default_rng(0)
    transform.SetParameters((0.4 * generator.normal(size=len(transform.GetParameters()))).tolist())
    return transform


def inner_points(grid):
    """Voxel centres away from the border, (D, N)."""
    inner = tuple(slice(1, -1) for _ in range(grid.dimension))
    return points_of(grid)[(slice(None), *inner)].flatten(1).numpy()


def each(transform, points):
    """The oracle: SimpleITK's TransformPoint, one point after the other."""
    return np.array([transform.TransformPoint(point) for point in points.T.tolist()]).T


@pytest.mark.parametrize("dimension", [2, 3])
def test_points_move_as_in_sitk(dimension):
    """All points at once go where SimpleITK brings each of them, through any transform and outside of fields too."""
    grid = oblique_grid(dimension)
    points = np.concatenate([inner_points(grid), inner_points(grid) + 500.0], axis=1)
    for transform in (rigid(dimension), affine(dimension), bspline(dimension), sitk_transform(smooth_field(grid))):
        moved, residual = followed(Chain.of(transform), points)
        np.testing.assert_allclose(moved, each(transform, points), atol=1e-9)
        assert not residual.any()


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_first_is_applied_first(dimension):
    """Of several transforms the first one moves the points first, and the chain is ITK's composite of the reverse."""
    grid = oblique_grid(dimension)
    first, then = sitk_transform(smooth_field(grid)), affine(dimension)
    chain = Chain.of(first).then(Chain.of(then))
    points = inner_points(grid)
    expected = each(then, each(first, points))
    np.testing.assert_allclose(chain.map(points), expected, atol=1e-9)
    np.testing.assert_allclose(each(chain.sitk(), points), expected, atol=1e-9)
    assert np.abs(each(first, each(then, points)) - expected).max() > 0.1  # the order matters here


def test_nested_composites_are_taken_apart_in_order():
    """A composite of composites does what ITK does with it."""
    inner = sitk.CompositeTransform([rigid(), sitk.TranslationTransform(3, (1.0, 2.0, 3.0))])
    nested = sitk.CompositeTransform([affine(), sitk_transform(smooth_field(FIXED)), inner])
    chain = Chain.of(nested)
    assert len(chain.links) == 3
    points = inner_points(FIXED)
    np.testing.assert_allclose(chain.map(points), each(nested, points), atol=1e-9)


@pytest.mark.parametrize("dimension", [2, 3])
def test_there_and_back_again(dimension):
    """Fixed → moving → fixed brings every point back within 1e-6 mm through a field, a B-spline and a matrix."""
    grid = oblique_grid(dimension)
    points = inner_points(grid)
    for transforms in ((smooth_field(grid), affine(dimension)), (bspline(dimension),), (rigid(dimension),)):
        chain = Chain.of(*transforms)
        there = chain.map(points)
        back, residual = followed(chain.inverse(), there)
        kept = np.isfinite(residual)
        assert kept.mean() > 0.95
        assert residual[kept].max() < 1e-4
        off = np.abs(chain.map(back) - there)[:, kept]
        assert off.max() < 1e-4
        assert np.median(np.abs(back - points)) < 1e-4


def test_a_strong_field_is_inverted():
    """Where a field squeezes space to a tenth the way back is still found within 1e-6 mm."""
    field = smooth_field(FIXED, amplitude_mm=6.0)
    assert float(jacobian_map(Chain.of(field))[0].data.min()) < 0.2
    points = inner_points(FIXED)
    back, residual = followed(Chain.of(field).inverse(), Chain.of(field).map(points))
    assert np.isfinite(residual).all()
    assert np.abs(back - points).max() < 1e-4


def test_points_that_nothing_reaches_are_said():
    """Inside the box but moved to by no point of it: the residual is NaN; outside the box points stay, as in ITK."""
    mm = torch.zeros(3, *FIXED.shape, dtype=torch.float64)
    mm[:] = torch.tensor(FIXED.direction, dtype=torch.float64)[:, 0].reshape(3, 1, 1, 1) * 5.0
    chain = Chain.of(Field.from_mm(mm, FIXED)).inverse()
    first, outside = np.array(FIXED.origin_xyz), np.array(FIXED.origin_xyz) - 300.0
    moved, residual = followed(chain, np.stack([first, outside], axis=1))
    assert np.isnan(residual[0])
    assert residual[1] == 0
    np.testing.assert_array_equal(moved[:, 1], outside)


def test_newton_finds_the_way_back_of_a_known_map():
    """The inverse of x + 3.9 sin(x/4) in each axis, whose slope comes to 0.025, where bare Newton steps lead away."""
    points = np.random.default_rng(0).uniform(-30, 30, (2, 400))

    def move(x):
        return x + 3.9 * np.sin(x / 4.0)

    found, residual = invert_points(move, move(points), scale_mm=1.0)
    assert residual.max() < 1e-5
    np.testing.assert_allclose(found, points, atol=0.01)  # residual / slope and a little more where it is flat


@pytest.mark.parametrize("size", [1.0, 1e6, 1e12])
def test_a_map_that_flattens_space_has_no_inverse_and_says_so(size):
    """Its derivative has one direction alone, however steep it is: the nearest point is found, what is left is told."""
    points = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    _, residual = invert_points(lambda p: size * np.broadcast_to(p.sum(0), p.shape), points, scale_mm=1.0)
    middle = points - points.mean(0)
    np.testing.assert_allclose(residual, np.sqrt((middle**2).sum(0)), rtol=1e-6)


def test_a_map_without_inverse_says_so():
    """Where nothing leads to a point the residual is what is missing, and no step makes it worse than none."""
    points = np.array([[-2.0, 0.5], [0.0, 1.0]])
    found, residual = invert_points(np.abs, points, scale_mm=1.0)
    assert residual[0] >= 2.0
    assert residual[0] <= np.hypot(4.0, 0.0)
    assert residual[1] < 1e-5
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("points", "said"),
    [(np.zeros((2, 4)), "in 3-D"), (np.zeros(3), "shape"), (np.full((3, 2), np.nan), "finite")],
)
def test_points_that_do_not_fit_are_refused(points, said):
    """Points of another dimension and NaN are refused in one sentence."""
    with pytest.raises(GeometryError, match=said):
        Chain.of(rigid()).map(points)


def test_mixed_and_empty_chains_are_refused():
    """Transforms of different dimension, none at all, and what is no transform are refused."""
    with pytest.raises(GeometryError, match="2-D and 3-D"):
        Chain.of(rigid(2), rigid(3))
    with pytest.raises(GeometryError, match="none"):
        Chain(())
    with pytest.raises(GeometryError, match="got str"):
        Chain.of("transform.h5")
    with pytest.raises(ConfigError, match="at least one"):
        read_chain([])
    with pytest.raises(GeometryError, match="singular"):
        Chain.of(sitk.AffineTransform([1, 0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0], [0, 0, 0])).inverse()


NAMES = ["t.h5", "t.tfm", "t.txt", "t.nii.gz", "t.nii", "t.nrrd", "t.mha", "t1Warp.nii.gz", "TransformParameters.0.txt"]


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_the_same_points(name, dimension, tmp_path):
    """A field followed by a matrix, written in any format and read again, moves points as before within 1e-3 mm."""
    grid = oblique_grid(dimension)
    chain = Chain.of(smooth_field(grid), affine(dimension))
    points = inner_points(grid)
    files = write_chain(chain, tmp_path / name)
    assert sorted(files) == sorted(tmp_path.iterdir())
    np.testing.assert_allclose(each(read_any(tmp_path / name), points), chain.map(points), atol=1e-3)
    if "Parameters" not in name:  # what SimpleITK itself reads
        plain = read_sitk(tmp_path / name)
        np.testing.assert_allclose(each(plain, points), chain.map(points), atol=1e-3)


def read_sitk(path):
    """A transform or an image of displacements, by SimpleITK alone."""
    if path.name.endswith((".h5", ".tfm", ".txt", ".mat")):
        return sitk.ReadTransform(str(path))
    return sitk.DisplacementFieldTransform(sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkVectorFloat64))


@pytest.mark.parametrize("name", ["t.h5", "t.nii.gz", "t1Warp.nii.gz", "t.mha"])
def test_itk_reads_what_is_written(name, tmp_path):
    """The package itk moves points with each file as the chain does within 1e-3 mm."""
    itk = pytest.importorskip("itk")
    field = smooth_field(FIXED)
    write_chain(Chain.of(field), tmp_path / name)
    index = [(4, 2, 3), (9, 11, 7), (1, 12, 10)]  # x, y, z
    points = points_of(FIXED).numpy()[:, [i[2] for i in index], [i[1] for i in index], [i[0] for i in index]]
    if name.endswith(".h5"):
        transform = itk.transformread(str(tmp_path / name))[0]
        got = [list(transform.TransformPoint(point)) for point in points.T.tolist()]
    else:
        image = itk.imread(str(tmp_path / name))
        np.testing.assert_allclose([image.TransformIndexToPhysicalPoint(i) for i in index], points.T, atol=1e-4)
        got = [np.add(points[:, n], image.GetPixel(i)) for n, i in enumerate(index)]
    np.testing.assert_allclose(got, Chain.of(field).map(points).T, atol=1e-3)


@pytest.mark.parametrize("name", ["out", "oneWarp.nii.gz"])
def test_ants_reads_what_is_written(name, tmp_path):
    """ANTs, given the files in the order they are named in, moves points as the chain does within 1e-3 mm."""
    ants = pytest.importorskip("ants", reason="needs the package antspyx", exc_type=ImportError)
    pandas = pytest.importorskip("pandas")
    chain = Chain.of(smooth_field(FIXED), affine())
    files = write_chain(chain, tmp_path / name, kind="ants" if name == "out" else None)
    points = inner_points(FIXED)
    table = pandas.DataFrame(points.T, columns=["x", "y", "z"])
    names = [str(path) for path in files]
    moved = ants.apply_transforms_to_points(3, table, names, whichtoinvert=[False] * len(names))
    np.testing.assert_allclose(moved.to_numpy().T, chain.map(points), atol=1e-3)


def test_ants_gets_a_warp_and_a_matrix(tmp_path):
    """The two files of ANTs: vectors under the intent 1007 in five axes, LPS, and ITK's matrix of the linear rest."""
    nibabel = pytest.importorskip("nibabel")
    field = smooth_field(FIXED)
    warp, matrix = write_chain(Chain.of(field, rigid(), affine()), tmp_path / "out_", kind="ants")
    assert (warp.name, matrix.name) == ("out_1Warp.nii.gz", "out_0GenericAffine.mat")
    image = nibabel.load(warp)
    assert int(image.header["intent_code"]) == 1007
    assert image.shape == (*FIXED.size_xyz, 1, 3)
    np.testing.assert_allclose(np.asarray(image.dataobj)[..., 0, :].T, field.mm(), atol=1e-3)
    rest = sitk.ReadTransform(str(matrix))
    assert type(rest) is sitk.AffineTransform
    points = inner_points(FIXED)
    np.testing.assert_allclose(each(rest, points), each(affine(), each(rigid(), points)), atol=1e-9)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("make", [rigid, affine, lambda n: sitk.TranslationTransform(n, [4.0, -5.0, 6.0][:n])])
@pytest.mark.parametrize("name", ["t.mat", "t.h5", "TransformParameters.txt"])
def test_linear_transforms_survive(name, make, dimension, tmp_path):
    """A linear transform is the same in each file that holds one, for ITK, ANTs and elastix."""
    grid = oblique_grid(dimension)
    write_chain(Chain.of(make(dimension)), tmp_path / name, grid)
    points = inner_points(grid)
    back = read_any(tmp_path / name)
    assert back.IsLinear()
    np.testing.assert_allclose(each(back, points), each(make(dimension), points), atol=1e-9)


def test_reference_makes_one_field(tmp_path):
    """With a reference an .h5 file holds one field on its grid, exact at the voxel centres."""
    chain, grid = Chain.of(bspline(), affine()), oblique_grid(3)
    write_chain(chain, tmp_path / "t.h5", grid)
    back = read_any(tmp_path / "t.h5")
    assert type(back) is sitk.DisplacementFieldTransform
    assert back.GetDisplacementField().GetSize() == grid.size_xyz
    points = inner_points(grid)
    np.testing.assert_allclose(each(back, points), chain.map(points), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("t.nii.gz", ConfigError, "--reference"),
        ("TransformParameters.txt", ConfigError, "--reference"),
        ("t.zip", OutputError, "ends in"),
        ("missing/t.h5", OutputError, "expected to write"),
    ],
)
def test_what_cannot_be_written_is_refused(name, error, said, tmp_path):
    """A field without a grid, an unknown ending and a missing folder are refused, and nothing is left behind."""
    with pytest.raises(error, match=said):
        write_chain(Chain.of(affine()), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_matrix_cannot_hold_a_field(tmp_path):
    """A .mat file of what deforms is refused, not approximated."""
    with pytest.raises(GeometryError, match="deforms"):
        write_chain(Chain.of(smooth_field(FIXED)), tmp_path / "t.mat")


def test_names_say_the_kind():
    """ANTs' and elastix' own names are told from other images and texts."""
    said = {
        name: kind_of(f"folder/{name}")
        for name in ("a.h5", "a.txt", "a.nii.gz", "x1Warp.nii.gz", "a0GenericAffine.mat")
    }
    assert list(said.values()) == ["itk", "itk", "field", "warp", "linear"]
    assert kind_of("TransformParameters.1.txt") == "elastix"


@pytest.mark.parametrize("kind", ["MatrixOffsetTransformBase_double_3_3", "AffineTransform_float_3_3"])
def test_old_affine_files_are_read(kind, tmp_path):
    """The text files of older ANTs and ITK, whose base class SimpleITK shows as an endless composite, are read."""
    path = tmp_path / "old.txt"
    numbers = "0.9 -0.1 0.2 0.1 1.1 0 0 0.3 1 5 6 7"
    lines = ["#Insight Transform File V1.0", "#Transform 0", f"Transform: {kind}"]
    path.write_text("\n".join([*lines, f"Parameters: {numbers}", "FixedParameters: 1 2 3", ""]))
    values = np.array(numbers.split(), dtype=float)
    centre = np.array([[1.0], [2.0], [3.0]])
    points = inner_points(FIXED)
    expected = values[:9].reshape(3, 3) @ (points - centre) + centre + values[9:, None]
    np.testing.assert_allclose(read_chain([path]).map(points), expected, atol=1e-9)


def test_what_is_no_transform_is_refused(tmp_path):
    """A missing file, a text, a grey image and NaN in a field are refused with the name of the file or the reason."""
    (tmp_path / "no.tfm").write_text("hello")
    (tmp_path / "slicer.tfm").write_text(
        "#Insight Transform File V1.0\nTransform: InverseDisplacementFieldTransform_double_3_3\n"
    )
    with pytest.raises(GeometryError, match="other way round"):
        read_chain([tmp_path / "slicer.tfm"])
    sitk.WriteImage(sitk.Image((4, 5, 6), sitk.sitkFloat32), str(tmp_path / "grey.nii.gz"))
    for name in ("missing.h5", "no.tfm", "grey.nii.gz"):
        with pytest.raises(GeometryError, match=name):
            read_chain([tmp_path / name])
    field = smooth_field(FIXED)
    field.vox[0, 3, 3, 3] = torch.nan
    write_field(field, tmp_path / "nan.mha")
    with pytest.raises(GeometryError, match="NaN"):
        read_chain([tmp_path / "nan.mha"]).map(inner_points(FIXED))


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_hdf5_of_any_layout_is_read(libver, tmp_path):
    """Compressed parts and older layouts, whose structure has no checksums, give the same transform, or a refusal."""
    sitk.WriteTransform(sitk_transform(smooth_field(FIXED)), str(tmp_path / "a.h5"))
    expected = read_any(tmp_path / "a.h5")
    other = tmp_path / "b.h5"
    with h5py.File(tmp_path / "a.h5") as source, h5py.File(other, "w", libver=libver) as target:
        for number, group in source["TransformGroup"].items():
            there = target.create_group(f"TransformGroup/{number}")
            for name, dataset in group.items():
                numeric = dataset.dtype.kind == "f"
                more = {"compression": "gzip", "chunks": True} if numeric else {}
                name = name.replace("Transform", "Tranform", 1) if numeric else name  # noqa: PLW2901 - as ITK 4 has it
                there.create_dataset(name, data=dataset[()], dtype=dataset.dtype, **more)
    points = inner_points(FIXED)
    np.testing.assert_array_equal(each(read_any(other), points), each(expected, points))
    other.write_bytes(other.read_bytes()[:-100])
    with pytest.raises(GeometryError, match=r"expected transforms of ITK in HDF5.*b\.h5"):
        read_any(other)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.mat", "1 0 0 5\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "FSL.*c3d_affine_tool"),
        ("a.txt", "1.0 0 -2e-3 5\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "NiftyReg.*c3d_affine_tool"),
        ("a.lta", "# made\ntype      = 0\nnxforms   = 1\n", "FreeSurfer: lta_convert"),
        ("a.aff12.1D", "# 3dvolreg matrices (DICOM-to-DICOM, row-by-row):\n 1 0 0\n", "AFNI"),
        ("a.1D", "1 0 0 5 0 1 0 0 0 0 1 0\n", "AFNI"),
        ("a.tfm", "#Insight Transform File V1.0\nTransform: ThinPlateSplineKernelTransform_double_3_3\n", "3D Slicer"),
        ("a.tfm", "#Insight Transform File V1.0\nTransform: BSplineDeformableTransform_double_3_3\n", "3D Slicer"),
    ],
)
def test_transforms_of_other_tools_are_refused_by_their_name(name, text, said, tmp_path):
    """Whoever brings one is told whose it is and how to convert it."""
    (tmp_path / name).write_text(text)
    with pytest.raises(GeometryError, match=f"expected a transform that .*{said}"):
        read_any(tmp_path / name)


def test_an_old_rigid_transform_of_itk_is_an_affine_one(tmp_path):
    """SimpleITK lacks the kind; its parameters are those of an affine transform."""
    numbers = "0 -1 0 1 0 0 0 0 1 1 2 3"
    text = "#Insight Transform File V1.0\nTransform: {}_double_3_3\nParameters: {}\nFixedParameters: 4 5 6\n"
    for kind in ("Rigid3DTransform", "AffineTransform"):
        (tmp_path / f"{kind}.tfm").write_text(text.format(kind, numbers))
    one, other = (read_any(tmp_path / f"{kind}.tfm") for kind in ("Rigid3DTransform", "AffineTransform"))
    assert one.TransformPoint((7.0, 8.0, 9.0)) == other.TransformPoint((7.0, 8.0, 9.0))


def test_a_grid_of_another_dimension_is_refused():
    """A 3-D transform on a 2-D reference is refused."""
    with pytest.raises(GeometryError, match="2-D"):
        Chain.of(rigid()).field_on(oblique_grid(2))


@pytest.mark.parametrize(
    "reference", [None, FIXED, make_grid((30, 28, 26), (0.9, 1.1, 1.3), (-40, 2, 70), rotation(3))]
)
def test_the_inverse_that_is_written_brings_points_back(reference, tmp_path):
    """Points go fixed → moving by the transform and back by its written inverse within 0.1 mm."""
    field = smooth_field(FIXED, amplitude_mm=1.0)
    chain = Chain.of(field) if reference is FIXED else Chain.of(field, rigid())
    inverted = invert(chain, reference)
    assert inverted.quality.residual_mm < 1e-3
    assert 0 < inverted.quality.round_trip_mean_mm < inverted.quality.round_trip_max_mm < 0.1
    write_chain(inverted.chain, tmp_path / "inverse.h5")
    points = points_of(FIXED)[:, 2:-2, 2:-2, 2:-2].flatten(1).numpy() + 0.3
    there = each(chain.sitk(), points)
    box = inverted.chain.links[-1].field().grid
    index = box.point_to_index() @ np.vstack([there, np.ones(there.shape[1])])
    if reference is not None:  # what comes to lie outside of the reference is not brought back by it
        kept = ((index[:3] > 0) & (index[:3] < np.array(box.shape)[:, None] - 1)).all(0)
        points, there = points[:, kept], there[:, kept]
    assert points.shape[1] > 300
    back = each(sitk.ReadTransform(str(tmp_path / "inverse.h5")), there)
    assert np.abs(back - points).max() < 0.1
    assert np.abs(there - points).max() > 0.5


def test_linear_inverses_are_exact():
    """The inverse of matrices is a matrix, without residual; a composite of them too."""
    chain = Chain.of(rigid(), affine())
    inverted = invert(chain)
    assert inverted.chain.is_linear
    assert inverted.quality.round_trip_max_mm == 0
    points = inner_points(FIXED)
    np.testing.assert_allclose(inverted.chain.map(chain.map(points)), points, atol=1e-9)


def test_what_has_no_grid_needs_a_reference():
    """A B-spline has no grid of its own for its inverse or its Jacobian: a reference is asked for, and enough."""
    for action in (invert, jacobian_map):
        with pytest.raises(ConfigError, match="--reference"):
            action(Chain.of(bspline()))
    inverted = invert(Chain.of(bspline()), oblique_grid(3))
    assert inverted.quality.residual_mm < 1e-4
    assert inverted.chain.grid == oblique_grid(3)


def test_quality_measures_what_an_oracle_measures():
    """The round trip is the one that SimpleITK's points make, there and back, to all middles between voxels."""
    field = smooth_field(FIXED, amplitude_mm=3.0)
    inverted = invert(Chain.of(field))
    corners = points_of(FIXED).numpy()
    middles = ((corners[:, :-1, :-1, :-1] + corners[:, 1:, 1:, 1:]) / 2).reshape(3, -1)
    fixed, residual = followed(Chain.of(field).inverse(), middles)
    fixed = fixed[:, residual < 1e-6]
    moving = each(sitk_transform(field), fixed)
    reached = np.abs(moving - middles[:, residual < 1e-6]).max(0) < 1e-3  # fields are stored to 2⁻¹² of a voxel
    back = each(inverted.chain.sitk(), moving[:, reached])
    off = np.sqrt(((back - fixed[:, reached]) ** 2).sum(0))
    assert reached.mean() > 0.99
    assert off.mean() == pytest.approx(inverted.quality.round_trip_mean_mm, rel=0.02)
    assert np.quantile(off, 0.999) == pytest.approx(inverted.quality.round_trip_999_mm, rel=0.1)


@pytest.mark.parametrize("dimension", [2, 3])
def test_jacobian_is_that_of_itk(dimension):
    """The map is what ITK's filter computes from the field in mm, and the numbers are those of the map."""
    grid = oblique_grid(dimension)
    field = smooth_field(grid, amplitude_mm=3.0)
    volume, summary = jacobian_map(Chain.of(field))
    mm = np.einsum("ij,i...->j...", np.asarray(grid.direction), field.mm().numpy())  # ITK's filter ignores the axes
    image = sitk.GetImageFromArray(np.moveaxis(mm, 0, -1), isVector=True)
    image.SetSpacing(grid.spacing_xyz)
    expected = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image))
    np.testing.assert_allclose(volume.data[0], expected, atol=5e-4)  # fields are stored to 2⁻¹² of a voxel
    assert summary.minimum == pytest.approx(float(expected.min()), abs=5e-4)
    assert summary.percentiles[1] == pytest.approx(float(np.median(expected)), abs=0.02)
    assert summary.folded_share == pytest.approx(float((expected <= 0).mean()))
    logs = logarithm(volume).data[0]
    np.testing.assert_allclose(logs[expected > 0.01], np.log(expected[expected > 0.01]), atol=1e-3)
    assert bool(torch.isfinite(logs).all())


def test_jacobian_of_a_matrix_is_its_determinant():
    """A linear transform has the same determinant everywhere, on any reference."""
    volume, summary = jacobian_map(Chain.of(affine()), oblique_grid(3))
    expected = np.linalg.det(np.reshape(affine().GetMatrix(), (3, 3)))
    np.testing.assert_allclose(volume.data, expected, rtol=1e-4)
    assert (summary.minimum, summary.folded_share) == (pytest.approx(expected, rel=1e-4), 0.0)
    field = smooth_field(oblique_grid(3))
    bent, both = (jacobian_map(Chain.of(field, *more))[0].data for more in ((), (rigid(), affine())))
    np.testing.assert_allclose(both, bent * expected, rtol=1e-6)


def test_folding_is_counted():
    """A field that turns a slab of space inside out has a share of folded voxels above 0 and a minimum below."""
    field = smooth_field(FIXED)
    field.vox[2, :, :, 7] += 4.0
    summary = jacobian_map(Chain.of(field))[1]
    assert summary.minimum < 0
    assert 0.02 < summary.folded_share < 0.5
    assert json.dumps(summary.__dict__)


def test_composite_of_a_run_is_read_as_it_was_meant(tmp_path):
    """What a run with a linear start writes, field first and matrix then, is a chain in that order."""
    field = smooth_field(FIXED)
    write_transform(field, tmp_path / "transform.h5", affine())
    chain = read_chain([tmp_path / "transform.h5"])
    assert [link.is_field for link in chain.links] == [True, False]
    assert chain.grid == FIXED
    points = inner_points(FIXED)
    np.testing.assert_allclose(chain.map(points), each(affine(), each(sitk_transform(field), points)), atol=1e-3)


@pytest.mark.parametrize("missing", [8, 16, 25, 100])
def test_a_matlab_transform_that_is_cut_short_is_refused(missing, tmp_path):
    """ITK takes the numbers that are missing from a .mat file out of its memory; here it is refused by name."""
    whole = sitk.AffineTransform(3)
    whole.SetCenter((10.0, 20.0, 30.0))
    sitk.WriteTransform(whole, str(tmp_path / "a.mat"))
    assert read_any(tmp_path / "a.mat").IsLinear()
    (tmp_path / "b.mat").write_bytes((tmp_path / "a.mat").read_bytes()[:-missing])
    with pytest.raises(GeometryError, match=r"expected .*it is cut short or damaged; copy it again \(.*b\.mat"):
        read_any(tmp_path / "b.mat")


def test_a_text_transform_without_its_end_is_refused(tmp_path):
    """ITK takes a text file without the fixed parameters for the identity; here it is refused."""
    sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), str(tmp_path / "a.tfm"))
    text = (tmp_path / "a.tfm").read_text(encoding="utf-8")
    (tmp_path / "b.tfm").write_text(text[: text.index("FixedParameters")])
    with pytest.raises(GeometryError, match=r"expected parameters and fixed parameters of the Trans.*b\.tfm"):
        read_any(tmp_path / "b.tfm")


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
