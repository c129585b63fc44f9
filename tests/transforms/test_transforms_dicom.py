"""Promises of structures and doses through a transform: their volumes and sums stay, and they lie on the new image."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch

from conftest import rotation
from dicom_pair import CT, header, save, write_series
from dicom_plans import dose, on_slice, segmentation, structures
from semreg.core.fields import Field
from semreg.core.geometry import Grid
from semreg.io.files import write_transform
from semreg.transforms.contours import Planes, Region, enclosed

FIXED = Grid((60, 56, 26), (1.9, 1.7, 3.0), (-50.0, -45.0, -40.0), tuple(map(tuple, rotation(3))))
MOVING = Grid((58, 60, 24), (1.8, 1.9, 4.0), (-48.0, -52.0, -44.0), tuple(map(tuple, rotation(3, -21.0))))
CENTRE = np.array([4.0, 3.0, -2.0])
"""Of the structures in the moving image."""


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Two oblique series of one patient, a rigid transform between them, structures and a dose on the moving one."""
    folder = tmp_path_factory.mktemp("plan")
    write_series(folder / "fixed", np.zeros(FIXED.shape), FIXED, header(CT, "CT"))
    moving = write_series(folder / "moving", np.zeros(MOVING.shape), MOVING, header(CT, "CT"))
    rigid = sitk.Euler3DTransform(CENTRE.tolist(), 0.21, -0.13, 0.17, (3.0, -4.0, 2.5))
    sitk.WriteTransform(rigid, str(folder / "rigid.tfm"))
    planes = range(MOVING.size_xyz[2])

    def cut(radii, kind="CLOSED_PLANAR"):
        lines = [on_slice(MOVING, plane, CENTRE, radii) for plane in planes]
        return [(kind, line) for line in lines if line is not None]

    regions = {
        "ball": cut((12.0, 12.0, 12.0)),
        "cigar": cut((9.0, 25.0, 17.0)),
        "shell": [*cut((20.0, 20.0, 24.0)), *cut((12.0, 12.0, 15.0))],
        "Prostata µ": [("POINT", CENTRE[:, None])],
    }
    save(structures(moving, regions), folder / "structures.dcm")
    grid = Grid((40, 42, 30), (2.5, 2.5, 3.0), (-48.0, -50.0, -44.0), tuple(map(tuple, rotation(3, -21.0))))
    index = np.indices(grid.shape).reshape(3, -1)
    away = grid.index_to_point()[:3, :3] @ index + grid.index_to_point()[:3, 3:] - CENTRE[:, None]
    values = 60 * np.exp(-((away / np.array([[9.0], [12.0], [8.0]])) ** 2).sum(0) / 2).reshape(grid.shape)
    save(dose(moving[0], values, grid), folder / "dose.dcm")
    return folder


def volumes_in(path, step):
    """Of each region the volume in mm³ by the areas of its contours in the text of the file: area vectors, keyholes
    and all, times the distance of the slices.
    """
    data = pydicom.dcmread(path)
    names = {each.ROINumber: each.ROIName for each in data.StructureSetROISequence}
    found = {}
    for each in data.ROIContourSequence:
        total = 0.0
        for contour in each.get("ContourSequence", []):
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            points = points - points.mean(0)
            total += np.linalg.norm(np.cross(points, np.roll(points, -1, 0)).sum(0)) / 2
        found[names[each.ReferencedROINumber]] = step * total
    return found


def test_structures_keep_their_volumes_and_lie_where_the_transform_brings_them(run, plan):
    """Within 1 % of the exact volumes; closed contours in the planes of slices that they name; points are points."""
    out = plan / "moved.dcm"
    code, said, err = run(
        "apply", plan / "rigid.tfm", "-i", plan / "structures.dcm", "-r", plan / "fixed", "-o", out, "--json"
    )
    assert code == 0, err
    assert "shell" in said
    exact = {"ball": 12.0**3, "cigar": 9.0 * 25.0 * 17.0, "shell": 20.0 * 20.0 * 24.0 - 12.0 * 12.0 * 15.0}
    found = volumes_in(out, 3.0)
    for name, radii in exact.items():
        assert found[name] == pytest.approx(4 / 3 * np.pi * radii, rel=0.01), name
    rigid = sitk.ReadTransform(str(plan / "rigid.tfm"))
    middle = np.array(rigid.GetInverse().TransformPoint(CENTRE.tolist()))
    data = pydicom.dcmread(out)
    fixed = {each.SOPInstanceUID: each for each in map(pydicom.dcmread, (plan / "fixed").iterdir())}
    balls, _, shells, point = data.ROIContourSequence
    np.testing.assert_allclose(np.array(point.ContourSequence[0].ContourData, dtype=float), middle, atol=1e-3)
    assert point.ContourSequence[0].ContourGeometricType == "POINT"
    away = []
    for contour in balls.ContourSequence:
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        away.append(np.linalg.norm(points - middle, axis=1) - 12.0)
        slice_ = fixed[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        row, column = np.array(slice_.ImageOrientationPatient, dtype=float).reshape(2, 3)
        off = (points - np.array(slice_.ImagePositionPatient, dtype=float)) @ np.cross(row, column)
        np.testing.assert_allclose(off, 0, atol=1e-3)
        assert contour.NumberOfContourPoints == len(points)
    assert np.abs(np.concatenate(away)).max() < 2.0  # the ends are flat, half a slice beyond the last contour
    assert abs(np.median(np.concatenate(away))) < 0.1
    assert all(len(each.ContourSequence) > 6 for each in (balls, shells))


def test_structures_belong_to_the_reference(run, plan):
    """Frame, study and references are those of the fixed series; what was approved is not any more."""
    out = plan / "of_fixed.dcm"
    given = ("-i", plan / "structures.dcm", "-r", plan / "fixed", "-o", out, "-q")
    assert run("apply", plan / "rigid.tfm", *given)[0] == 0
    data, before = pydicom.dcmread(out), pydicom.dcmread(plan / "structures.dcm")
    fixed = next(map(pydicom.dcmread, (plan / "fixed").iterdir()))
    assert data.StudyInstanceUID == fixed.StudyInstanceUID
    (frame,) = data.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == fixed.FrameOfReferenceUID
    (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert series.SeriesInstanceUID == fixed.SeriesInstanceUID
    assert len(series.ContourImageSequence) == FIXED.size_xyz[2]
    assert {each.ReferencedFrameOfReferenceUID for each in data.StructureSetROISequence} == {fixed.FrameOfReferenceUID}
    assert [each.ROIName for each in data.StructureSetROISequence] == ["ball", "cigar", "shell", "Prostata µ"]
    assert str(data.PatientName) == "Müller^Jürgen"
    assert data.ApprovalStatus == "UNAPPROVED"
    assert "ReviewerName" not in data
    assert len({data.SOPInstanceUID, before.SOPInstanceUID}) == 2
    assert len({data.SeriesInstanceUID, before.SeriesInstanceUID}) == 2
    assert data.PredecessorStructureSetSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID


def test_structures_follow_a_deformation(run, plan):
    """A field that stretches by known factors changes the volumes by them."""
    factors = np.array([1.1, 0.92, 1.05])
    index = np.indices(FIXED.shape).reshape(3, -1)
    points = FIXED.index_to_point()[:3, :3] @ index + FIXED.index_to_point()[:3, 3:]
    mm = torch.from_numpy(((factors - 1)[:, None] * (points - CENTRE[:, None])).reshape(3, *FIXED.shape))
    write_transform(Field.from_mm(mm, FIXED), plan / "stretch.h5")
    out = plan / "stretched.dcm"
    given = ("-i", plan / "structures.dcm", "-r", plan / "fixed", "-o", out, "-q")
    assert run("apply", plan / "stretch.h5", *given)[0] == 0
    found = volumes_in(out, 3.0)
    for name, radii in {"ball": 12.0**3, "cigar": 9.0 * 25.0 * 17.0}.items():
        assert found[name] == pytest.approx(4 / 3 * np.pi * radii / factors.prod(), rel=0.01), name


def test_a_dose_keeps_its_sum(run, plan):
    """Within 0.5 % for a rigid map, in the frame and the axes of the reference, with the voxels of its own size."""
    out = plan / "dose_moved.dcm"
    far = sitk.Euler3DTransform(CENTRE.tolist(), 0.21, -0.13, 0.17, (53.0, -34.0, 22.5))
    sitk.WriteTransform(far, str(plan / "far.tfm"))
    code, said, err = run("apply", plan / "far.tfm", "-i", plan / "dose.dcm", "-r", plan / "fixed", "-o", out)
    assert code == 0, err
    assert "% of before" in said + err
    data, before = pydicom.dcmread(out), pydicom.dcmread(plan / "dose.dcm")
    fixed = next(map(pydicom.dcmread, (plan / "fixed").iterdir()))
    assert data.FrameOfReferenceUID == fixed.FrameOfReferenceUID
    np.testing.assert_allclose(data.ImageOrientationPatient, fixed.ImageOrientationPatient, atol=1e-6)
    np.testing.assert_allclose(data.PixelSpacing, before.PixelSpacing)
    assert np.diff(data.GridFrameOffsetVector) == pytest.approx(3.0)
    assert data.SpatialTransformOfDose == "RIGID"
    sums, middles = [], []
    for each in (data, before):
        values = each.pixel_array * float(each.DoseGridScaling)
        row, column = np.array(each.ImageOrientationPatient, dtype=float).reshape(2, 3)
        axes = np.stack([row * each.PixelSpacing[1], column * each.PixelSpacing[0], np.cross(row, column) * 3.0])
        index = np.stack([np.indices(values.shape)[axis] for axis in (2, 1, 0)], -1)
        points = index @ axes + np.array(each.ImagePositionPatient, dtype=float)
        sums.append(values.sum() * 2.5 * 2.5 * 3.0)
        middles.append((values[..., None] * points).sum((0, 1, 2)) / values.sum())
    assert sums[0] == pytest.approx(sums[1], rel=0.005)
    np.testing.assert_allclose(far.TransformPoint(middles[0].tolist()), middles[1], atol=0.05)


def test_segments_become_segments_of_the_reference(run, plan):
    """Each frame lies on a slice of the reference and names it; volumes and centres are those the map gives."""
    index = np.indices(MOVING.shape).reshape(3, -1)
    points = MOVING.index_to_point()[:3, :3] @ index + MOVING.index_to_point()[:3, 3:]
    away = np.linalg.norm(points - CENTRE[:, None], axis=0).reshape(MOVING.shape)
    labels = np.where(away < 10, 2, np.where(away < 18, 5, 0))
    moving = next(map(pydicom.dcmread, (plan / "moving").iterdir()))
    save(segmentation(moving, labels, MOVING, {2: "core", 5: "rim"}), plan / "seg.dcm")
    out = plan / "seg_moved.dcm"
    given = ("-i", plan / "seg.dcm", "-r", plan / "fixed", "-o", out)
    code, said, err = run("apply", plan / "rigid.tfm", *given)
    assert code == 0, err
    assert "core" in said + err
    data = pydicom.dcmread(out)
    fixed = {each.SOPInstanceUID: each for each in map(pydicom.dcmread, (plan / "fixed").iterdir())}
    pixels = data.pixel_array
    assert [each.SegmentLabel for each in data.SegmentSequence] == ["core", "rim"]
    counts, middles = {2: 0, 5: 0}, {2: np.zeros(3), 5: np.zeros(3)}
    for frame, groups in zip(pixels, data.PerFrameFunctionalGroupsSequence, strict=True):
        label = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        place = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        slice_ = fixed[source.ReferencedSOPInstanceUID]
        np.testing.assert_allclose(place, np.array(slice_.ImagePositionPatient, dtype=float), atol=1e-3)
        row, column = np.array(slice_.ImageOrientationPatient, dtype=float).reshape(2, 3)
        y, x = np.nonzero(frame)
        counts[label] += len(x)
        middles[label] += (place + x[:, None] * 1.9 * row + y[:, None] * 1.7 * column).sum(0)
    voxel = 1.9 * 1.7 * 3.0
    for label in (2, 5):
        exact = (labels == label).sum() * 1.8 * 1.9 * 4.0
        assert counts[label] * voxel == pytest.approx(exact, rel=0.03)
    rigid = sitk.ReadTransform(str(plan / "rigid.tfm"))
    np.testing.assert_allclose(rigid.TransformPoint((middles[2] / counts[2]).tolist()), CENTRE, atol=0.4)
    assert run("convert", out, plan / "x.h5", "-q")[0] == 2
    assert data.FrameOfReferenceUID == slice_.FrameOfReferenceUID


def test_what_cannot_be_brought_is_refused(run, plan):
    """Without a reference in DICOM, and as another format; nothing is written."""
    structures_, moved = plan / "structures.dcm", plan / "none.dcm"
    code, _, err = run("apply", plan / "rigid.tfm", "-i", structures_, "-o", moved)
    assert code == 2
    assert "give --reference FOLDER" in err
    code, _, err = run("apply", plan / "rigid.tfm", "-i", structures_, "-r", plan / "fixed", "-o", plan / "n.nrrd")
    assert code == 2
    assert "expected the name of a .dcm file" in err
    assert not moved.exists()


def test_holes_missing_planes_and_ends():
    """A region with a hole and a missing plane: its function is that of the slabs half a step around each plane."""
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    contours = []
    for height in (0.0, 3.0, 6.0, 12.0):
        contours += [np.vstack([radius * circle, np.full((1, 240), height)]) for radius in (20.0, 8.0)]
    planes = Planes.of(contours)
    assert planes.step == 3.0
    assert planes.volume(3.0) == pytest.approx(4 * 3 * np.pi * (400 - 64), rel=1e-3)
    region = Region.of(planes, 3.0)
    heights = np.array([-1.6, -1.4, 1.5, 4.5, 7.4, 7.6, 9.0, 10.4, 10.6, 13.4, 13.6])
    inside = [False, True, True, True, True, False, False, False, True, True, False]
    ring = np.stack([np.full(11, 14.0), np.zeros(11), heights])
    assert (region.at(ring) > 0).tolist() == inside
    assert not (region.at(ring * np.array([[0.2], [1], [1]])) > 0).any()
    np.testing.assert_allclose(region.at(np.array([[19.5, 8.5], [0, 0], [3, 3]])), 0.5, atol=0.02)
    outlines = planes.outlines[0]
    assert enclosed(outlines) == pytest.approx(np.pi * (400 - 64), rel=1e-3)
