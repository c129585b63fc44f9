"""Promises of DICOM that is more than slices of numbers: doses, segmentations, rare encodings, mosaics, tiles."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless, generate_uid

from conftest import rotation
from semreg.cli import main
from semreg.errors import GeometryError, ImageError
from semreg.io.files import read_grid, read_image, read_labels, read_mask
from semreg.transforms import read_any_image

DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.3.1"
MR = "1.2.840.10008.5.1.4.1.1.4"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
AXES = rotation(3, 17.0)
START = np.array([-20.0, 30.0, 7.0])
SIZE_YX = (6, 8)


def make(sop_class, pixels, syntax=ExplicitVRLittleEndian, **tags):
    """A data set with ``pixels`` (frame, y, x), (y, x) or with a last axis of colours, and ``tags``."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = generate_uid(), generate_uid(), "OT"
    colours = pixels.shape[-1] == 3
    frames = pixels.ndim - colours == 3
    data.Rows, data.Columns = pixels.shape[1:3] if frames else pixels.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if colours else (1, "MONOCHROME2")
    if colours:
        data.PlanarConfiguration = 0
    if frames:
        data.NumberOfFrames = len(pixels)
    bits = 8 * pixels.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    data["PixelData"].VR = "OW" if bits > 8 else "OB"
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def save(data, path):
    """Write it; the path."""
    data.save_as(path, enforce_file_format=True)
    return path


def numbers(*shape, dtype, seed=0):
    """Numbers over the whole range of a type."""
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def item(**tags):
    """An item of a sequence."""
    data = Dataset()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
@pytest.mark.parametrize("frames", [(), (3,)])
def test_big_endian_pixels_of_32_bits(frames, dtype, tmp_path):
    """32-bit pixels in big-endian order, which GDCM garbles, are the numbers that were stored."""
    pixels = numbers(*frames, *SIZE_YX, dtype=dtype)
    path = save(make(CAPTURE, pixels, ExplicitVRBigEndian), tmp_path / "a.dcm")
    np.testing.assert_array_equal(np.squeeze(read_image(path).volume.data.numpy()), pixels.astype(np.float32))


@pytest.mark.parametrize("frames", [(), (3,)])
def test_run_lengths_of_16_bit_colours(frames, tmp_path):
    """Run-length coded colours of 16 bits, which GDCM garbles, have the luminance of what was stored."""
    pixels = numbers(*frames, *SIZE_YX, 3, dtype=np.uint16)
    data = make(CAPTURE, pixels)
    data.compress(RLELossless, encoding_plugin="pydicom")
    values = np.squeeze(read_image(save(data, tmp_path / "a.dcm")).volume.data.numpy())
    np.testing.assert_allclose(values, pixels @ np.array([0.299, 0.587, 0.114]), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_run_lengths_are_scaled(dtype, tmp_path):
    """Run-length coded slices have slope and intercept applied."""
    pixels = numbers(*SIZE_YX, dtype=dtype)
    data = make(CAPTURE, pixels, RescaleSlope=0.5, RescaleIntercept=-3)
    data.compress(RLELossless, encoding_plugin="pydicom")
    values = np.squeeze(read_image(save(data, tmp_path / "a.dcm")).volume.data.numpy())
    np.testing.assert_allclose(values, pixels * 0.5 - 3, rtol=1e-6)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_frames_are_scaled_however_they_are_stored(syntax, tmp_path):
    """Slope and intercept of each frame are applied once, be it decoded by GDCM or by pydicom."""
    data = segmentation([(1, 2 * number, LIVER) for number in range(3)])
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    stored = numbers(3, *SIZE_YX, dtype=np.uint16)
    data.PixelData, data.BitsAllocated, data.BitsStored, data.HighBit = stored.tobytes(), 16, 16, 15
    for number, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        scale = item(RescaleSlope=0.5 + number, RescaleIntercept=number - 4, RescaleType="US")
        frame.PixelValueTransformationSequence = [scale]
    if syntax == RLELossless:
        data["PixelData"].VR = "OW"
        data.compress(RLELossless, encoding_plugin="pydicom")
    expected = stored * np.array([0.5, 1.5, 2.5])[:, None, None] + np.array([-4, -3, -2])[:, None, None]
    values = read_image(save(data, tmp_path / "a.dcm")).volume.data[0]
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=0.01)  # float32 of up to 65535 × 2.5


@pytest.mark.parametrize("offsets", [[0, 3, 6, 9], [0, -3, -6, -9], [0, 3, 6, 12]], ids=str)
def test_a_dose_is_scaled_and_lies_where_it_says(offsets, tmp_path):
    """A dose is in its unit, and its planes lie at their offsets, downwards or with a gap too."""
    stored = np.broadcast_to(np.array(offsets)[:, None, None] * 1000 + 20000, (4, *SIZE_YX)).astype(np.uint32)
    tags = {
        "DoseGridScaling": "0.001", "GridFrameOffsetVector": offsets, "ImagePositionPatient": list(START),
        "ImageOrientationPatient": [float(f"{v:.9g}") for v in AXES[:, :2].T.ravel()], "PixelSpacing": [2, 1.5],
        "FrameIncrementPointer": 0x3004000C,
    }  # fmt: skip
    path = save(make(DOSE, stored, **tags), tmp_path / "dose.dcm")
    image = read_image(path)
    grid = image.volume.grid
    assert image.pixel_type == "float32"
    assert grid.spacing_xyz == pytest.approx((1.5, 2.0, 3.0), abs=1e-5)
    for plane, row in enumerate(image.volume.data[0].numpy()):
        height = (grid.index_to_point() @ [plane, 0, 0, 1])[:3] @ AXES[:, 2] - START @ AXES[:, 2]
        np.testing.assert_allclose(row, height + 20, atol=1e-4)  # in Gy: the height in mm plus 20
    assert read_grid(path) == grid


def segmentation(frames, kind="BINARY"):
    """A segmentation of (segment, height, mask) with planes 2 mm apart; segments 1 and 2 have names."""
    masks = np.stack([mask for _, _, mask in frames]).astype(np.uint8)
    data = make(SEGMENTATION, masks, SegmentationType=kind)
    if kind == "BINARY":
        data.BitsAllocated, data.BitsStored, data.HighBit = 1, 1, 0
        bits = np.packbits(masks.ravel(), bitorder="little").tobytes()
        data.PixelData = bits + b"\0" * (len(bits) % 2)
    else:
        data.MaximumFractionalValue, data.PixelData = 200, (masks * 100).tobytes()
    data.SegmentSequence = [item(SegmentNumber=n, SegmentLabel=name) for n, name in ((1, "liver"), (2, "kidney"))]
    measures = item(PixelSpacing=[2, 1.5], SliceThickness=2, SpacingBetweenSlices=2)
    cosines = item(ImageOrientationPatient=[float(f"{v:.9g}") for v in AXES[:, :2].T.ravel()])
    data.SharedFunctionalGroupsSequence = [item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[cosines])]
    data.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[float(f"{v:.9g}") for v in START + AXES[:, 2] * height])],
            SegmentIdentificationSequence=[item(ReferencedSegmentNumber=number)],
        )
        for number, height, _ in frames
    ]
    return data


LIVER, KIDNEY = np.zeros(SIZE_YX), np.zeros(SIZE_YX)
LIVER[1:3, 2:5] = KIDNEY[4:, 5:] = 1


def test_segments_are_labels(tmp_path):
    """Segments are labels with names, at their place; planes that a file leaves out are empty, and nothing is 255."""
    frames = [(1, 4, LIVER), (1, 10, LIVER), (2, 2, KIDNEY), (2, 4, KIDNEY)]
    path = save(segmentation(frames), tmp_path / "seg.dcm")
    image, labels = read_image(path), read_labels(path)
    expected = np.zeros((5, *SIZE_YX))
    for number, height, mask in frames:
        expected[height // 2 - 1] += number * mask
    np.testing.assert_array_equal(image.volume.data[0], expected)
    grid = image.volume.grid
    assert grid.spacing_xyz == pytest.approx((1.5, 2.0, 2.0))
    np.testing.assert_allclose(grid.origin_xyz, START + AXES[:, 2] * 2, atol=1e-5)
    assert read_grid(path) == grid
    assert (labels.labels, labels.names) == ((0, 1, 2), {1: "liver", 2: "kidney"})
    np.testing.assert_array_equal(read_mask(path).data[0], expected > 0)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_any_image(path)), expected)


def test_segments_that_are_no_label_map(tmp_path):
    """Segments that overlap or lie between the planes are refused; a fraction is one."""
    with pytest.raises(ImageError, match=r"segments that do not overlap in .*several at one voxel"):
        read_image(save(segmentation([(1, 4, LIVER), (2, 4, LIVER)]), tmp_path / "a.dcm"))
    with pytest.raises(GeometryError, match="frames that are planes of one grid"):
        read_image(save(segmentation([(1, 0, LIVER), (1, 2, LIVER), (1, 5, LIVER)]), tmp_path / "b.dcm"))
    image = read_image(save(segmentation([(1, 4, LIVER), (1, 6, LIVER)], "FRACTIONAL"), tmp_path / "c.dcm"))
    np.testing.assert_allclose(image.volume.data[0, 1], LIVER / 2)


@pytest.mark.parametrize(
    ("sop_class", "shape", "tags", "said"),
    [
        (MR, (12, 12), {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "a mosaic of Siemens"),
        (SLIDE, (4, 6, 8), {"TotalPixelMatrixColumns": 16, "TotalPixelMatrixRows": 12}, "4 tiles of a whole slide"),
        (ULTRASOUND, (4, 6, 8), {"FrameIncrementPointer": 0x00181063, "FrameTime": 30}, "4 frames over time"),
    ],
)
def test_pixels_that_are_no_slices_are_refused(sop_class, shape, tags, said, tmp_path):
    """Mosaics, tiles and moments are no slices 1 mm apart: refused for images, grids and what is applied."""
    path = save(make(sop_class, numbers(*shape, dtype=np.uint8), **tags), tmp_path / "a.dcm")
    for read in (read_image, read_grid, read_any_image):
        with pytest.raises(ImageError, match=said):
            read(path)


def series(folder, count=4):
    """A series of slices 3 mm apart; their paths."""
    uid, paths = generate_uid(), []
    for number in range(count):
        data = make(
            MR, numbers(*SIZE_YX, dtype=np.int16, seed=number), SeriesInstanceUID=uid, PixelSpacing=[2, 1.5],
            ImagePositionPatient=[1, 2, 3 * number], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )  # fmt: skip
        paths.append(save(data, folder / f"IM{number:04d}"))
    return paths


@pytest.mark.parametrize("damage", ["no pixels", "half a header", "20 bytes", "empty", "zeros", "no preamble"])
def test_a_damaged_slice_is_refused(damage, tmp_path):
    """However a slice in the middle is damaged, the series is refused by its name and nothing is made up."""
    path = series(tmp_path)[2]
    data = path.read_bytes()
    cut = {"no pixels": data[:-40], "half a header": data[:300], "20 bytes": data[:20], "empty": b""}
    cut |= {"zeros": bytes(len(data)), "no preamble": data[200:]}
    path.write_bytes(cut[damage])
    for read in (read_image, read_grid, read_any_image):
        with pytest.raises(ImageError, match="IM0002"):
            read(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["register", str(tmp_path), str(tmp_path), "-o", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_damage_of_one_series_leaves_the_other(tmp_path):
    """A damaged file that says of which series it is spoils that series alone."""
    whole = series(tmp_path)
    (tmp_path / "other").mkdir()
    for path in series(tmp_path / "other"):
        path.rename(tmp_path / f"other{path.name}")
    path = tmp_path / "otherIM0001"
    path.write_bytes(path.read_bytes()[:-40])
    uid = pydicom.dcmread(whole[0]).SeriesInstanceUID
    assert read_image(tmp_path, series=uid).volume.grid.shape == (4, *SIZE_YX)
    with pytest.raises(ImageError, match="otherIM0001"):
        read_image(tmp_path, series=pydicom.dcmread(tmp_path / "otherIM0000").SeriesInstanceUID)


def test_what_is_no_slice_may_lie_beside(tmp_path):
    """Structures, a directory and notes in the folder of a series are no damage."""
    series(tmp_path)
    (tmp_path / "README.txt").write_text("notes")
    directory = make("1.2.840.10008.1.3.10", np.zeros(SIZE_YX, np.uint8))
    for name in ("PixelData", "Rows", "SeriesInstanceUID"):
        delattr(directory, name)
    save(directory, tmp_path / "DICOMDIR")
    assert read_image(tmp_path).volume.grid.shape == (4, *SIZE_YX)


def test_frames_are_applied_in_their_order(tmp_path):
    """An object whose frames run downwards is brought through ``apply`` as it is registered: by their positions."""
    frames = [(1, height, mask) for height, mask in ((6, LIVER), (4, KIDNEY), (2, KIDNEY))]
    data = segmentation(frames)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    stored = numbers(3, *SIZE_YX, dtype=np.int16)
    data.PixelData, data.BitsAllocated, data.BitsStored, data.HighBit = stored.tobytes(), 16, 16, 15
    data.PixelRepresentation = 1
    path = save(data, tmp_path / "frames.dcm")
    sitk.WriteTransform(sitk.TranslationTransform(3), str(tmp_path / "t.tfm"))
    command = ["apply", str(tmp_path / "t.tfm"), "-i", str(path), "-r", str(path), "-o", str(tmp_path / "out.nrrd")]
    with pytest.raises(SystemExit, match="0"):
        main(command)
    result = sitk.ReadImage(str(tmp_path / "out.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result), stored[::-1])
    np.testing.assert_allclose(result.GetOrigin(), START + AXES[:, 2] * 2, atol=1e-5)
