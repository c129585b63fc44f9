"""Promises of ITK images as tensors: no sample and no position changes, nothing is copied, nothing dies too early."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import semreg
from conftest import make_grid, noise, oblique_grid, points_of
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.itk.tensor import image_to_tensor, tensor_to_image
from semreg.runtime.memory import held_bytes

itk = pytest.importorskip("itk")

SCALARS = (
    torch.uint8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.uint32,
    torch.uint64,
    torch.float32,
    torch.float64,
)
VECTORS = (torch.uint8, torch.int16, torch.uint16, torch.float32, torch.float64)
SITK_ONLY = (torch.int8, torch.int64)


def samples(channels, grid, dtype=torch.float32, seed=0):
    """Numbers that use the whole range of small types, channel first."""
    return (noise(channels, *grid.shape, seed=seed) * 50 + 100).to(dtype)


def allocated(image_type, size=(7, 6, 5)):
    """An ITK image of ``image_type`` with room for its samples."""
    image = image_type.New()
    region = itk.ImageRegion[image.GetImageDimension()]()
    region.SetSize(size[: image.GetImageDimension()])
    image.SetRegions(region)
    image.Allocate()
    return image


def one_place_is_itks(tensor, grid, image):
    """Whether an index off all diagonals lies, and holds, what the ITK or SimpleITK image itself says."""
    xyz = (3, 1, 2)[: grid.dimension]
    there = points_of(grid)[(slice(None), *xyz[::-1])].tolist()
    assert there == pytest.approx(list(image.TransformIndexToPhysicalPoint(xyz)), abs=1e-9)
    pixel = image.GetPixel(xyz)
    values = [float(v) for v in pixel] if len(tensor) > 1 else [float(pixel)]
    assert tensor[(slice(None), *xyz[::-1])].to(torch.float64).tolist() == values


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize(
    ("kind", "channels", "dtype"),
    [("itk", 1, dtype) for dtype in SCALARS]
    + [("itk", 4, dtype) for dtype in VECTORS]
    + [("sitk", channels, dtype) for dtype in SCALARS + SITK_ONLY for channels in (1, 4)],
    ids=str,
)
def test_round_trip_is_exact(kind, channels, dtype, dimension):
    """Tensor → image → tensor changes no bit, no type and no position, for all pixel types, scalar and vector."""
    grid = oblique_grid(dimension)
    tensor = samples(channels, grid, dtype)
    image = tensor_to_image(tensor, grid, kind=kind)
    back, same = image_to_tensor(image)
    assert back.dtype == dtype
    assert torch.equal(back.to(torch.float64), tensor.to(torch.float64))
    assert same.size_xyz == grid.size_xyz
    np.testing.assert_allclose(same.index_to_point(), grid.index_to_point(), atol=1e-9)
    one_place_is_itks(back, same, image)


def test_kinds_of_itk_images():
    """One channel is an image of scalars, several are a VectorImage; ``vector`` says otherwise where it can."""
    grid = oblique_grid(3)
    one, three = samples(1, grid), samples(3, grid, torch.uint8)
    assert isinstance(tensor_to_image(one, grid), itk.Image[itk.F, 3])
    assert isinstance(tensor_to_image(one[0], grid), itk.Image[itk.F, 3])
    assert isinstance(tensor_to_image(three, grid), itk.VectorImage[itk.UC, 3])
    vectors = tensor_to_image(one, grid, vector=True)
    assert isinstance(vectors, itk.VectorImage[itk.F, 3])
    assert torch.equal(image_to_tensor(vectors)[0], one)
    assert tensor_to_image(one, grid, kind="sitk", vector=True).GetPixelID() == sitk.sitkVectorFloat32
    with pytest.raises(ImageError, match="expected one channel for an image of scalars, got 3"):
        tensor_to_image(three, grid, vector=False)


@pytest.mark.parametrize(
    ("image_type", "components"),
    [
        (itk.Image[itk.Vector[itk.F, 3], 3], 3),
        (itk.Image[itk.Vector[itk.D, 2], 2], 2),
        (itk.Image[itk.CovariantVector[itk.F, 3], 3], 3),
        (itk.Image[itk.RGBPixel[itk.UC], 2], 3),
        (itk.Image[itk.SymmetricSecondRankTensor[itk.D, 3], 3], 6),
    ],
    ids=str,
)
def test_components_are_channels(image_type, components):
    """Fields of vectors, colours and tensors become channels: components of one voxel keep their order."""
    image = allocated(image_type)
    array = itk.array_view_from_image(image)
    array[...] = np.arange(array.size).reshape(array.shape) % 251
    tensor, grid = image_to_tensor(image)
    assert tensor.shape == (components, *grid.shape)
    assert tensor[:, 1, 2].reshape(components, -1)[:, 0].tolist() == array[1, 2].reshape(-1, components)[0].tolist()


@pytest.mark.parametrize("channels", [1, 3])
def test_itk_image_and_tensor_share_memory(channels):
    """What is written into an ITK image is seen in its tensor and the other way round, until a copy is asked for."""
    grid = oblique_grid(3)
    image = itk.image_from_array(
        np.moveaxis(samples(channels, grid).numpy(), 0, -1).copy().squeeze(), is_vector=channels > 1
    )
    tensor, _ = image_to_tensor(image)
    alone, _ = image_to_tensor(image, copy=True)
    before = float(alone[-1, 2, 1, 3])
    itk.array_view_from_image(image)[2, 1, 3, ...] = 1234.0
    tensor[:, 4, 5, 6] = -77.0
    pixel = image.GetPixel([6, 5, 4])
    assert float(tensor[-1, 2, 1, 3]) == 1234.0
    assert (pixel[channels - 1] if channels > 1 else pixel) == -77.0
    assert float(alone[-1, 2, 1, 3]) == before
    assert alone.is_contiguous()


def test_tensor_of_one_channel_shares_its_memory():
    """An image made from a tensor of one channel, or from a tensor that came from an image, is not a copy."""
    grid = oblique_grid(3)
    tensor = samples(1, grid)
    image = tensor_to_image(tensor, grid)
    tensor[0, 4, 5, 6] = 31.0
    assert image.GetPixel([6, 5, 4]) == 31.0
    vectors, _ = image_to_tensor(tensor_to_image(samples(5, grid), grid))
    shared = tensor_to_image(vectors, grid)
    vectors[3, 4, 5, 6] = 32.0
    assert shared.GetPixel([6, 5, 4])[3] == 32.0


def test_channels_apart_in_memory_are_copied():
    """An image of vectors from a contiguous tensor stands alone: its tensor may be reused."""
    grid = oblique_grid(3)
    tensor = samples(5, grid)
    expected = tensor.clone()
    image = tensor_to_image(tensor, grid)
    tensor.zero_()
    assert torch.equal(image_to_tensor(image)[0], expected)


def fill_memory():
    """Write over what was freed: whoever still reads there sees sevens."""
    gc.collect()
    return [np.full(7 * 6 * 5 * n, 7.0, np.float32) for n in (1, 5) for _ in range(300)]


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("kind", ["itk", "sitk"])
def test_tensor_outlives_its_image(kind, channels):
    """A tensor holds its samples after the image is gone."""
    grid = oblique_grid(3)
    expected = samples(channels, grid)
    image = tensor_to_image(expected.clone(), grid, kind=kind)
    tensor, _ = image_to_tensor(image)
    del image
    rubbish = fill_memory()
    assert torch.equal(tensor, expected)
    del rubbish


def test_image_outlives_its_tensor():
    """An ITK image holds its samples after the tensor is gone, and where only a filter still knows the image."""
    grid = oblique_grid(3)
    tensor = samples(1, grid)
    expected = tensor.clone()
    image = tensor_to_image(tensor, grid)
    del tensor
    rubbish = fill_memory()
    assert torch.equal(image_to_tensor(image, copy=True)[0], expected)
    extract = itk.ExtractImageFilter[itk.Image[itk.F, 3], itk.Image[itk.F, 3]].New()
    extract.SetInput(image)
    extract.SetExtractionRegion(image.GetLargestPossibleRegion())
    del image
    rubbish += fill_memory()
    assert torch.equal(image_to_tensor(extract.GetOutput(), copy=True)[0], expected)
    del rubbish


def test_memory_is_given_back():
    """When image and tensor are gone, so is the memory: 30 images of 8 MB leave nothing behind."""
    grid = make_grid((200, 100, 100), (1, 1, 1), (0, 0, 0), np.eye(3))
    before = held_bytes()
    for number in range(30):
        tensor, _ = image_to_tensor(tensor_to_image(torch.full((1, *grid.shape), float(number)), grid))
        assert float(tensor[0, -1, -1, -1]) == number
        tensor, _ = image_to_tensor(tensor_to_image(tensor, grid, kind="sitk"))
        assert float(tensor[0, -1, -1, -1]) == number
    del tensor
    gc.collect()
    assert held_bytes() - before < 100e6


def test_simpleitk_image_is_shared_until_it_is_written():
    """A tensor of a SimpleITK image is the same memory; writing into the image leaves the tensor as it was."""
    grid = oblique_grid(3)
    image = tensor_to_image(samples(1, grid), grid, kind="sitk")
    tensor, _ = image_to_tensor(image)
    tensor[0, 4, 5, 6] = 55.0
    assert image.GetPixel(6, 5, 4) == 55.0
    image[6, 5, 4] = 1.0
    image *= 3.0
    rubbish = fill_memory()
    assert float(tensor[0, 4, 5, 6]) == 55.0
    del rubbish


@pytest.mark.parametrize("dimension", [2, 3])
def test_region_that_starts_elsewhere(dimension):
    """An ITK image whose region does not start at index 0 keeps its place in space, and its samples."""
    whole = tensor_to_image(samples(1, oblique_grid(dimension)), oblique_grid(dimension))
    region = itk.ImageRegion[dimension]()
    region.SetIndex((2, 1, 3)[:dimension])
    region.SetSize((4, 3, 2)[:dimension])
    part = itk.extract_image_filter(whole, extraction_region=region)
    tensor, grid = image_to_tensor(part)
    assert grid.size_xyz == (4, 3, 2)[:dimension]
    np.testing.assert_allclose(grid.origin_xyz, tuple(whole.TransformIndexToPhysicalPoint((2, 1, 3)[:dimension])))
    index = (slice(None), slice(3, 5), slice(1, 4), slice(2, 6))
    expected = image_to_tensor(whole)[0][index if dimension == 3 else (index[0], *index[2:])]
    assert torch.equal(tensor, expected)


def test_output_of_a_filter_is_brought_up_to_date():
    """The output of a filter is what it gives now; what was taken earlier stays, although the filter moves it."""
    tensor = samples(1, oblique_grid(3))
    image = tensor_to_image(tensor, oblique_grid(3))
    extract = itk.ExtractImageFilter[itk.Image[itk.F, 3], itk.Image[itk.F, 3]].New()
    extract.SetInput(image)
    region = image.GetLargestPossibleRegion()
    region.SetSize((7, 6, 2))
    extract.SetExtractionRegion(region)
    first, _ = image_to_tensor(extract.GetOutput())
    assert torch.equal(first, tensor[:, :2])
    region.SetSize((7, 6, 5))
    extract.SetExtractionRegion(region)
    second, _ = image_to_tensor(extract.GetOutput())
    rubbish = fill_memory()
    assert torch.equal(second, tensor)
    assert torch.equal(first, tensor[:, :2])
    del rubbish


def test_tensor_outlives_what_an_image_releases():
    """An image that is told to release its samples, as pipelines do, leaves them to the tensor."""
    expected = samples(1, oblique_grid(3))
    image = itk.image_from_array(expected[0].numpy())
    tensor, _ = image_to_tensor(image)
    image.Initialize()
    rubbish = fill_memory()
    assert torch.equal(tensor, expected)
    del rubbish


def test_types_that_images_lack():
    """Bool becomes uint8, half precision float32, a gradient stays behind; what itk lacks is named."""
    grid = oblique_grid(2)
    yes = samples(1, grid) > 100
    assert image_to_tensor(tensor_to_image(yes, grid))[0].dtype == torch.uint8
    for half in (torch.float16, torch.bfloat16):
        back = image_to_tensor(tensor_to_image(samples(2, grid, half), grid, kind="sitk"))[0]
        assert torch.equal(back, samples(2, grid, half).float())
    learned = samples(1, grid).requires_grad_()
    assert not image_to_tensor(tensor_to_image(learned, grid))[0].requires_grad
    with pytest.raises(ImageError, match=r"scalars has, .*uint64, got torch.int64: convert the"):
        tensor_to_image(samples(1, grid, torch.int64), grid)
    with pytest.raises(ImageError, match=r"vectors has, .*float64, got torch.int32"):
        tensor_to_image(samples(2, grid, torch.int32), grid)
    with pytest.raises(ImageError, match="magnitude"):
        tensor_to_image(samples(1, grid, torch.complex64), grid)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((3, 4)), "got numpy.ndarray"),
        (sitk.Image([3, 4], sitk.sitkComplexFloat32), "complex"),
        (sitk.Image([3, 4, 5, 2], sitk.sitkUInt8), "pick one frame"),
        (itk.Image[itk.F, 4].New(), "got 4"),
        (itk.Image[itk.F, 3].New(), "update the filter"),
        (allocated(itk.Image[itk.complex[itk.F], 3]), "cast the image"),
    ],
    ids=["array", "complex", "frames", "itk 4-D", "not allocated", "itk complex"],
)
def test_what_is_no_image_is_refused(image, words):
    """Anything that is not an image of real numbers in 2-D or 3-D is refused in one sentence."""
    with pytest.raises(ImageError, match=words):
        image_to_tensor(image)


def test_images_of_four_axes_have_no_tensor() -> None:
    """A sequence of frames, even of one, is no image: one frame has to be taken out."""
    with pytest.raises(ImageError, match="expected an image of 2 or 3 axes, got 4: extract one frame first"):
        image_to_tensor(sitk.Image([3, 4, 5, 1], sitk.sitkFloat32))


def test_tensors_that_do_not_fit_are_refused():
    """A tensor of another size than its grid, without channels, or for an unknown kind of image is refused."""
    grid = oblique_grid(3)
    with pytest.raises(GeometryError, match=r"\(C, 5, 6, 7\) as its grid has, got \(1, 5, 7, 6\)"):
        tensor_to_image(torch.zeros(1, 5, 7, 6), grid)
    with pytest.raises(GeometryError, match=r"got \(0, 5, 6, 7\)"):
        tensor_to_image(torch.zeros(0, 5, 6, 7), grid)
    with pytest.raises(GeometryError, match="expected a tensor"):
        tensor_to_image(torch.zeros(1, 1, 5, 6, 7), grid)
    with pytest.raises(ConfigError, match="got 'vtk'"):
        tensor_to_image(torch.zeros(1, 5, 6, 7), grid, kind="vtk")
    with pytest.raises(ImageError, match=r"expected a torch tensor, got NoneType: torch.as_tensor makes"):
        tensor_to_image(None, grid)
    with pytest.raises(GeometryError, match=r"expected a semreg.Grid for the samples, got tuple: image_to_tensor"):
        tensor_to_image(torch.zeros(1, 5, 6, 7), (5, 6, 7))


def test_the_pair_is_an_image_elsewhere():
    """What comes out, tensor and grid, is accepted where an image is, and is the same image."""
    grid = make_grid((7, 6, 5), (0.8, 1.3, 2.1), (-31.0, 12.5, 77.0), np.diag([-1.0, 1.0, -1.0]))
    image = tensor_to_image(samples(1, grid, torch.int16), grid)
    ours, theirs = semreg.to_volume(semreg.image_to_tensor(image)), semreg.to_volume(image)
    assert torch.equal(ours.data, theirs.data)
    assert ours.grid == theirs.grid


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_on_a_gpu_are_brought_back():
    """An image made from a tensor on a GPU is the one made from it on the CPU."""
    grid = oblique_grid(3)
    tensor = samples(3, grid)
    assert torch.equal(image_to_tensor(tensor_to_image(tensor.cuda(), grid))[0], tensor)


def textured(kind, components):
    """An oblique, anisotropic image of ``kind`` with smooth samples of one or two components."""
    grid = make_grid(
        (12, 14, 10), (1.0, 1.5, 2.0), (-31, 12, 77), np.linalg.qr(np.arange(9).reshape(3, 3) + np.eye(3))[0]
    )
    points = points_of(grid)
    tensor = torch.stack(
        [torch.sin(points[0] / 5 + c) + torch.cos(points[1] / 7) + points[2] / 9 for c in range(components)]
    )
    return tensor_to_image((20 * tensor).float(), grid, kind=kind), grid


@pytest.mark.parametrize("components", [1, 2])
@pytest.mark.parametrize("kind", ["itk", "sitk"])
def test_resampled_as_itk_does(kind, components):
    """With a spacing, an interpolator and a transform the samples are those of ITK's resampler on the returned grid."""
    image, grid = textured(kind, components)
    if kind == "itk":
        cubic = itk.BSplineInterpolateImageFunction[itk.Image[itk.F, 3], itk.D, itk.F].New()
        moved = itk.AffineTransform[itk.D, 3].New()
        moved.Translate((2.5, -1.0, 0.5))
    else:
        cubic, moved = sitk.sitkBSpline, sitk.TranslationTransform(3, (2.5, -1.0, 0.5))
    tensor, target = image_to_tensor(image, spacing=(0.8, 2.0, 2.0), interpolator=cubic, transform=moved)
    assert target.size_xyz == (15, 11, 10)  # 12, 21 and 20 mm in voxels of about 0.8, 2 and 2 mm
    np.testing.assert_allclose(target.spacing_xyz, (0.8, 21 / 11, 2.0))
    np.testing.assert_allclose(target.corners_xyz(), grid.corners_xyz(), atol=1e-9)
    reference, _ = textured("sitk", components)
    shift = sitk.TranslationTransform(3, (2.5, -1.0, 0.5))
    for number in range(components):
        one = sitk.VectorIndexSelectionCast(reference, number) if components > 1 else reference
        lowest = float(sitk.GetArrayViewFromImage(one).min())
        expected = sitk.Resample(
            one, target.size_xyz, shift, sitk.sitkBSpline, target.origin_xyz, target.spacing_xyz,
            np.asarray(target.direction).ravel().tolist(), lowest,
        )  # fmt: skip
        np.testing.assert_allclose(tensor[number].numpy(), sitk.GetArrayFromImage(expected), atol=2e-3)


def test_resampled_by_default_linearly():
    """A spacing alone: bytes become float32, the lattice fills the box, and the spacing that the image has is exact."""
    grid = make_grid((6, 8, 5), (2.0, 1.0, 3.0), (4, 5, 6), np.eye(3))
    data = (torch.arange(6, dtype=torch.uint8) * 10).expand(5, 8, 6)[None].contiguous()
    image = tensor_to_image(data, grid)
    same, there = image_to_tensor(image, spacing=grid.spacing_xyz)
    assert same.dtype == torch.float32
    assert there == grid
    torch.testing.assert_close(same, data.float())
    finer, there = image_to_tensor(image, spacing=1.0)
    assert there.size_xyz == (12, 8, 15)
    expected = torch.tensor([0, 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 32.5, 37.5, 42.5, 47.5, 50])  # constant past the ends
    torch.testing.assert_close(finer[0, 7, 3], expected)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("itk", {"spacing": 0.0}, "expected a spacing of one or 3 numbers above 0, in mm and x first, got 0.0"),
        ("itk", {"spacing": (1.0, 2.0)}, "expected a spacing of one or 3 numbers"),
        ("itk", {"spacing": 1.0, "interpolator": "linear"}, "expected an interpolator of itk, got str"),
        ("itk", {"transform": sitk.Transform()}, "expected a transform of itk for an image of itk, got Transform"),
        ("sitk", {"transform": 3}, "expected a SimpleITK.Transform for an image of SimpleITK, got int"),
        ("sitk", {"spacing": 1.0, "interpolator": "linear"}, "expected an interpolator such as SimpleITK.sitkBSpline"),
    ],
)
def test_what_cannot_be_resampled(kind, settings, message):
    """A spacing that is none, and interpolators and transforms of another package, are refused in one sentence."""
    image, _ = textured(kind, 1)
    with pytest.raises(ConfigError, match=message):
        image_to_tensor(image, **settings)
