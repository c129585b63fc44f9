"""Promises of ``--dicom``: clinics get DICOM back, which other readers read as the standard says."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from blobs import blobs
from conftest import grid_at, rotation
from dicom_pair import CT, MR, header, write_series
from semreg.core.geometry import Grid

FIXED = grid_at((3.0, -7.0, 11.0), (19, 17, 12), (2.1, 1.9, 4.0), rotation(3))
MOVING = grid_at((4.0, -6.0, 12.0), (20, 18, 13), (1.8, 2.3, 4.0), rotation(3, -21.0))
QUICK = ("--set", "refine.iterations=3", "--set", "refine.symmetric=false", "--no-report", "-q")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A CT and a CT of another study of the same patient, oblique, with slices 4 mm apart."""
    folder = tmp_path_factory.mktemp("scans")
    fixed, moving = header(CT, "CT"), header(CT, "CT", WindowCenterWidthExplanation=["A", "B"])
    write_series(folder / "fixed", blobs(FIXED).data[0].numpy(), FIXED, fixed)
    write_series(folder / "moving", blobs(MOVING, (2.0, -1.5, 1.0)).data[0].numpy(), MOVING, moving)
    return folder


@pytest.fixture(scope="module")
def warped(scans):
    """A result with a rigid alignment and a deformation."""
    from semreg.cli import main

    out = scans / "out"
    start = sitk.Euler3DTransform((3.0, -7.0, 11.0), 0.05, -0.03, 0.08, (1.5, -1.0, 0.5))
    sitk.WriteTransform(start, str(scans / "start.tfm"))
    command = ["register", scans / "fixed", scans / "moving", "-o", out, "--initial", scans / "start.tfm", "--dicom"]
    logger = logging.getLogger("semreg")
    before = logger.handlers[:], logger.propagate, logger.level
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in (*command, *QUICK)])
    logger.handlers, logger.propagate = before[0], before[1]
    logger.setLevel(before[2])
    assert not end.value.code
    return out


def sample_points() -> np.ndarray:
    """Points (N, 3) inside the fixed image, off the voxel centres."""
    index = np.random.default_rng(3).uniform(0.5, np.array(FIXED.shape) - 1.5, (200, 3))
    return index @ FIXED.index_to_point()[:3, :3].T + FIXED.index_to_point()[:3, 3]


def by_itk(path: Path, points: np.ndarray) -> np.ndarray:
    """The points through a transform file, by ITK."""
    transform = sitk.ReadTransform(str(path))
    return np.array([transform.TransformPoint(point.tolist()) for point in points])


def matrix_in(item: pydicom.Dataset) -> np.ndarray:
    """A Frame of Reference Transformation Matrix, row by row."""
    return np.array(item.FrameOfReferenceTransformationMatrix, dtype=float).reshape(4, 4)


def by_the_standard(path: Path, points: np.ndarray) -> np.ndarray:
    """Where in the source points of the registered frame are sampled, by the text of PS3.3 alone.

    C.20.2.1.1: a matrix brings points of the source to the registered frame; the first item is applied first.
    C.20.3.1.1: first the matrix before, then the offsets of the grid at that place, then the matrix after.
    """
    data = pydicom.dcmread(path)
    ones = np.ones((len(points), 1))
    if data.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.1":
        (item,) = [each for each in data.RegistrationSequence if each.FrameOfReferenceUID != data.FrameOfReferenceUID]
        whole = np.eye(4)
        for each in item.MatrixRegistrationSequence[0].MatrixSequence:
            whole = matrix_in(each) @ whole
        return np.linalg.solve(whole, np.hstack([points, ones]).T)[:3].T
    items = data.DeformableRegistrationSequence
    (item,) = [each for each in items if each.SourceFrameOfReferenceUID != data.FrameOfReferenceUID]
    (grid,) = item.DeformableRegistrationGridSequence
    size, step = np.array(grid.GridDimensions), np.array(grid.GridResolution)
    row, column = np.array(grid.ImageOrientationPatient, dtype=float).reshape(2, 3)
    axes = np.stack([row, column, np.cross(row, column)])
    start = np.array(grid.ImagePositionPatient, dtype=float)
    numbers = np.frombuffer(grid.VectorGridData, dtype="<f4")
    offsets = np.zeros_like(points)
    for number, point in enumerate(points):
        ijk = axes @ (point - start) / step
        low = np.floor(ijk).astype(int)
        for corner in np.ndindex(2, 2, 2):
            i, j, k = low + corner
            weight = np.prod(np.where(corner, ijk - low, 1 - (ijk - low)))
            place = 3 * ((k * size[1] + j) * size[0] + i)
            offsets[number] += weight * numbers[place : place + 3]
    before = matrix_in(item.PreDeformationMatrixRegistrationSequence[0])
    after = matrix_in(item.PostDeformationMatrixRegistrationSequence[0])
    moved = (before @ np.hstack([points, ones]).T)[:3].T + offsets
    return (after @ np.hstack([moved, ones]).T)[:3].T


def test_a_deformable_object_maps_points_as_the_transform(warped):
    """A reader written from the text of the standard finds what transform.h5 does, to a thousandth of a mm."""
    points = sample_points()
    expected = by_itk(warped / "transform.h5", points)
    assert np.linalg.norm(expected - points, axis=1).max() > 1.0
    assert len(sitk.ReadTransform(str(warped / "transform.h5")).GetParameters()) > 12
    np.testing.assert_allclose(by_the_standard(warped / "registration.dcm", points), expected, atol=1e-3)


def test_a_linear_object_maps_points_as_the_transform(run, scans):
    """``align`` writes a Spatial Registration, whose matrix is RIGID and leads from the moving to the fixed image."""
    out = scans / "aligned"
    code, _, err = run("align", scans / "fixed", scans / "moving", "-o", out, "--align", "rigid", "--dicom", "-q")
    assert code == 0, err
    data = pydicom.dcmread(out / "registration.dcm")
    fixed, moving = pydicom.dcmread(scans / "fixed" / "slice000.dcm"), pydicom.dcmread(scans / "moving/slice000.dcm")
    assert data.FrameOfReferenceUID == fixed.FrameOfReferenceUID
    assert [each.FrameOfReferenceUID for each in data.RegistrationSequence] == [
        fixed.FrameOfReferenceUID, moving.FrameOfReferenceUID,
    ]  # fmt: skip
    matrix = data.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0]
    assert matrix.FrameOfReferenceTransformationMatrixType == "RIGID"
    points, expected = sample_points(), by_itk(out / "transform.h5", sample_points())
    assert np.linalg.norm(expected - points, axis=1).max() > 0.5
    np.testing.assert_allclose(by_the_standard(out / "registration.dcm", points), expected, atol=1e-6)
    assert json.loads((out / "record.json").read_text(encoding="utf-8"))["outputs"].count("registration.dcm") == 1


@pytest.mark.parametrize("name", ["out", "aligned"])
def test_an_object_is_read_back_as_the_transform(run, scans, warped, name):
    """apply, convert and --initial take both objects, and do the same with them as with transform.h5."""
    folder = scans / name
    if name == "aligned" and not folder.exists():
        assert run("align", scans / "fixed", scans / "moving", "-o", folder, "--dicom", "-q")[0] == 0
    assert run("convert", folder / "registration.dcm", scans / "back.h5", "-q")[0] == 0
    points = sample_points()
    np.testing.assert_allclose(by_itk(scans / "back.h5", points), by_itk(folder / "transform.h5", points), atol=1e-4)
    given = ("-i", scans / "moving", "-r", scans / "fixed", "-q")
    images = []
    for transform in ("registration.dcm", "transform.h5"):
        path = scans / f"{transform}.nrrd"
        assert run("apply", folder / transform, *given, "-o", path)[0] == 0
        images.append(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(int))
    assert np.abs(images[0] - images[1]).max() <= 1
    out = scans / f"from_{name}"
    start = ("--initial", folder / "registration.dcm", "--align", "none")
    code, _, err = run("register", scans / "fixed", scans / "moving", "-o", out, *start, *QUICK)
    assert code == 0, err


def test_the_series_is_a_derived_one_on_the_slices_of_the_fixed_image(scans, warped):
    """Geometry and frame of the fixed image; patient, study, window, rescale and private data of the moving one."""
    fixed = [pydicom.dcmread(path) for path in (scans / "fixed").iterdir()]
    moving = {data.SOPInstanceUID: data for data in map(pydicom.dcmread, (scans / "moving").iterdir())}
    first = next(iter(moving.values()))
    found = [pydicom.dcmread(path) for path in sorted((warped / "dicom").iterdir())]
    assert len(found) == len(fixed)
    uids = {data.SOPInstanceUID for data in found}
    assert len(uids) == len(found)
    assert not uids & {data.SOPInstanceUID for data in (*fixed, *moving.values())}
    (series,) = {data.SeriesInstanceUID for data in found}
    assert series not in (fixed[0].SeriesInstanceUID, first.SeriesInstanceUID)
    for data, place in zip(found, sorted(fixed, key=lambda each: each.InstanceNumber), strict=True):
        assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
        assert list(data.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert data.FrameOfReferenceUID == place.FrameOfReferenceUID
        np.testing.assert_allclose(data.ImagePositionPatient, place.ImagePositionPatient, atol=1e-4)
        np.testing.assert_allclose(data.ImageOrientationPatient, place.ImageOrientationPatient, atol=1e-6)
        np.testing.assert_allclose(data.PixelSpacing, place.PixelSpacing, atol=1e-6)
        assert (data.Rows, data.Columns) == (place.Rows, place.Columns)
        for keyword in ("StudyInstanceUID", "Modality", "RescaleIntercept", "BitsStored", "KVP", "RescaleType"):
            assert data[keyword].value == first[keyword].value
        assert str(data.PatientName) == "Müller^Jürgen"
        sources = [moving[each.ReferencedSOPInstanceUID] for each in data.SourceImageSequence]
        window = {(tuple(each.WindowCenter), each[0x0029, 0x1001].value) for each in sources}
        assert (tuple(data.WindowCenter), data[0x0029, 0x1001].value) in window
        assert data[0x0029, 0x1002].value == bytes(range(8))
        assert "SliceLocation" not in data


def test_each_slice_names_the_slices_it_is_made_of(scans, warped):
    """Those within a slice of where its points come from, by the transform that ITK reads."""
    transform = sitk.ReadTransform(str(warped / "transform.h5"))
    moving = {data.SOPInstanceUID: data for data in map(pydicom.dcmread, (scans / "moving").iterdir())}
    axes = np.asarray(MOVING.direction)
    for path in sorted((warped / "dicom").iterdir()):
        data = pydicom.dcmread(path)
        corners = np.array([[x, y] for x in (0, 9, 18) for y in (0, 8, 16)])
        row, column = np.array(data.ImageOrientationPatient, dtype=float).reshape(2, 3)
        points = np.array(data.ImagePositionPatient, dtype=float) + corners @ np.stack([2.1 * row, 1.9 * column])
        plane = [(axes.T @ (np.array(transform.TransformPoint(p.tolist())) - MOVING.origin_xyz))[2] / 4 for p in points]
        named = {moving[each.ReferencedSOPInstanceUID].InstanceNumber - 1 for each in data.SourceImageSequence}
        inside = {n for p in plane for n in (int(np.floor(p)), int(np.ceil(p))) if 0 <= n < 13}
        assert inside <= named
        assert all(min(plane) - 2 < n < max(plane) + 2 for n in named) or not inside


def test_others_open_the_series_as_the_warped_image(warped):
    """SimpleITK's reader of series finds the grid and the values of warped.nii.gz."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(warped / "dicom")))
    image, expected = reader.Execute(), sitk.ReadImage(str(warped / "warped.nii.gz"))
    np.testing.assert_allclose(image.GetOrigin(), expected.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(image.GetSpacing(), expected.GetSpacing(), atol=1e-3)
    np.testing.assert_allclose(image.GetDirection(), expected.GetDirection(), atol=1e-5)
    assert np.array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(expected))
    assert sitk.GetArrayFromImage(image).max() > 300


def test_a_series_is_never_written_over_and_never_mixed(run, scans, warped):
    """Slices of an earlier run go; a folder that holds an input is refused, and stays when it is only read."""
    series = scans / "again" / "dicom"
    series.mkdir(parents=True)
    for path in (warped / "dicom").iterdir():
        (series / path.name).write_bytes(path.read_bytes())
    before = {path.name: path.read_bytes() for path in series.iterdir()}
    code, _, err = run("align", scans / "fixed", series, "-o", scans / "again", "--dicom", "-q")
    assert code == 2
    assert "another output folder" in err
    (scans / "again" / "record.json").write_text(json.dumps({"outputs": [f"dicom/{n}" for n in before]}), "utf-8")
    assert run("align", scans / "fixed", series, "-o", scans / "again", "-q")[0] == 0
    assert {path.name: path.read_bytes() for path in series.iterdir()} == before
    code, _, err = run("align", scans / "fixed", scans / "moving", "-o", scans / "again", "--dicom", "-q")
    assert code == 2
    assert "got 12 such as 0001.dcm" in err
    small = Grid((*FIXED.size_xyz[:2], 5), FIXED.spacing_xyz, FIXED.origin_xyz, FIXED.direction)
    write_series(scans / "small", blobs(small).data[0].numpy(), small, header(CT, "CT"))
    for fixed, count in (("fixed", 12), ("small", 5)):
        assert run("align", scans / fixed, scans / "moving", "-o", scans / "twice", "--dicom", "-q")[0] == 0
        assert len(list((scans / "twice" / "dicom").iterdir())) == count


def test_what_cannot_become_dicom_is_refused_first(run, scans, warped):
    """A moving image of another format, and one whose voxels are no slices; nothing is written."""
    code, _, err = run("align", scans / "fixed", warped / "warped.nii.gz", "-o", scans / "none", "--dicom", "-q")
    assert code == 2
    assert "expected a DICOM file or folder as the moving image with --dicom" in err
    assert not (scans / "none").exists()
    code, _, err = run("convert", warped / "transform.h5", scans / "x.dcm", "--format", "dicom", "-q")
    assert code == 2
    assert "--dicom" in err


def test_a_fixed_image_of_another_format_gets_a_frame_of_its_own(run, scans, warped):
    """The series lies where NIfTI says; its frame of reference is new, the log says so, and the object has it too."""
    out = scans / "nifti"
    code, _, err = run("align", warped / "warped.nii.gz", scans / "moving", "-o", out, "--dicom", "--align", "rigid")
    assert code == 0, err
    assert "no frame of reference" in err
    data, slice_ = pydicom.dcmread(out / "registration.dcm"), pydicom.dcmread(out / "dicom" / "0001.dcm")
    assert data.FrameOfReferenceUID == slice_.FrameOfReferenceUID
    assert data.StudyInstanceUID == slice_.StudyInstanceUID
    points = sample_points()
    np.testing.assert_allclose(
        by_the_standard(out / "registration.dcm", points), by_itk(out / "transform.h5", points), atol=1e-6
    )


def test_slices_with_scales_of_their_own_get_one(run, scans):
    """Of a moving series whose slopes differ, as those of PET do, the values stay, and the log says the new scale."""
    scaled = scans / "scaled"
    values = blobs(MOVING, (2.0, -1.5, 1.0)).data[0].numpy()
    write_series(scaled, values, MOVING, header(MR, "MR"))
    for number, path in enumerate(sorted(scaled.iterdir())):
        data = pydicom.dcmread(path)
        data.RescaleSlope = str(1 + number / 8)
        data.RescaleIntercept = str(-1024 * (1 + number / 8))
        pixels = np.rint((values[data.InstanceNumber - 1] + 1024 * (1 + number / 8)) / (1 + number / 8))
        data.PixelData = pixels.astype("<u2").tobytes()
        data.save_as(path)
    code, _, err = run("align", scans / "fixed", scaled, "-o", scans / "one", "--dicom", "--dtype", "float32")
    assert code == 0, err
    assert "slope" in err
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(scans / "one" / "dicom")))
    found = sitk.GetArrayFromImage(reader.Execute())
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(scans / "one" / "warped.nii.gz")))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_registration_that_leads_the_other_way_is_refused(run, scans, warped):
    """By its frames of reference, in --initial and in apply; with --inverse it is taken."""
    reg = warped / "registration.dcm"
    code, _, err = run("register", scans / "moving", scans / "fixed", "-o", scans / "no", "--initial", reg, *QUICK)
    assert code == 2
    assert "the other way round" in err
    given = ("-i", scans / "fixed", "-r", scans / "moving", "-o", scans / "there.nrrd", "-q")
    assert run("apply", reg, *given)[0] == 2
    assert run("apply", reg, *given, "--inverse")[0] == 0
    write_series(scans / "strange", blobs(FIXED).data[0].numpy(), FIXED, header(CT, "CT", PatientID="Z-9"))
    strange = ("-i", scans / "moving", "-r", scans / "strange", "-o", scans / "strange.nrrd")
    code, _, err = run("apply", reg, *strange)
    assert code == 0
    assert "a registration of other images" in err
    assert "Z-9" in err


def test_two_patients_are_said_before_they_are_mixed(run, scans):
    """With what tells them apart; with --private only in what they differ."""
    other = scans / "other"
    common = header(CT, "CT", PatientID="Q-4", PatientName="Meier^Anna")
    write_series(other, blobs(MOVING, (2.0, -1.5, 1.0)).data[0].numpy(), MOVING, common)
    given = ("align", scans / "fixed", other, "-o", scans / "two", "--align", "none")
    code, _, err = run(*given)
    assert code == 0
    assert "two patients" in err
    assert "P-17" in err
    assert "Q-4" in err
    assert "Meier" not in err
    code, _, err = run(*given, "--private")
    assert code == 0
    assert "they differ in PatientID, PatientName" in err
    assert not {"P-17", "Q-4", "Meier"} & set(err.replace("'", " ").split())
    assert "two patients" not in run("align", scans / "fixed", scans / "moving", "-o", scans / "two")[2]
