"""Promises of DICOM objects: which way registrations lead, by the standard, and what derived series name."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from pydicom.dataset import Dataset

from conftest import rotation
from dicom_pair import CT, header, save, write_series
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.errors import ConfigError, GeometryError
from semreg.io.atomic_output import OutputFolder
from semreg.io.dicom_objects.headers import DicomImage, check_can_be_derived, headers_of
from semreg.io.dicom_objects.registrations import LINEAR, Sides, deformable_object, kind_of_matrix, linear_object
from semreg.io.dicom_objects.results import FoundMap, write_result
from semreg.io.dicom_objects.series import encoding_for
from semreg.io.dicom_objects.series import write_series as write_derived
from semreg.io.dicom_objects.writing import save as save_object
from semreg.io.patients import Patient
from semreg.transforms import read_transform

GRID = Grid((6, 5, 4), (2.0, 3.0, 4.0), (-5.0, 7.0, 11.0), tuple(map(tuple, rotation(3))))
POINTS = np.array([[-1.0, 9.0, 14.0], [1.0, 12.0, 15.0], [0.0, 8.0, 19.0]])


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Two series of three slices."""
    folder = tmp_path_factory.mktemp("sides")
    for name in ("fixed", "moving"):
        write_series(folder / name, np.zeros(GRID.shape), GRID, header(CT, "CT"))
    fixed, moving = headers_of(folder / "fixed"), headers_of(folder / "moving")
    assert moving is not None
    return Sides.of(fixed, moving)


def affine(degrees, shift, scale=1.0):
    """A homogeneous matrix."""
    matrix = np.eye(4)
    matrix[:3, :3] = scale * rotation(3, degrees)
    matrix[:3, 3] = shift
    return matrix


def moved(path, points=POINTS):
    """The points through what is read of a file."""
    transform = read_transform(path)
    return np.array([transform.TransformPoint(point.tolist()) for point in points])


def by(matrix, points):
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def matrix_item(matrix, kind="RIGID"):
    item = Dataset()
    item.FrameOfReferenceTransformationMatrix = [f"{value:.10g}" for value in matrix.ravel()]
    item.FrameOfReferenceTransformationMatrixType = kind
    return item


def test_matrices_of_several_items_are_applied_from_the_first_on(sides, tmp_path):
    """PS3.3 C.20.2.1.1: registered = M3 M2 M1 source; what is read leads the other way."""
    data = linear_object(np.eye(4), sides)
    parts = [affine(20, (1, 2, 3)), affine(-35, (9, -4, 2)), affine(10, (0, 5, 0), 1.2)]
    item = data.RegistrationSequence[1].MatrixRegistrationSequence[0]
    item.MatrixSequence = [matrix_item(part) for part in parts]
    save_object(data, tmp_path / "reg.dcm")
    whole = parts[2] @ parts[1] @ parts[0]
    np.testing.assert_allclose(by(whole, moved(tmp_path / "reg.dcm")), POINTS, atol=1e-6)


def test_a_matrix_before_and_one_after_the_grid(sides, tmp_path, caplog):
    """PS3.3 C.20.3.1.1: source = M_post (M_pre p + Δ(p)); a vector that is not defined is taken from its neighbour."""
    field = Field(torch.zeros(3, *GRID.shape), GRID)
    data = deformable_object(field, np.eye(4), sides)
    item = data.DeformableRegistrationSequence[1]
    before, after = affine(15, (4, 0, -2), 1.1), affine(-25, (-3, 6, 1))
    item.PreDeformationMatrixRegistrationSequence = [matrix_item(before)]
    item.PostDeformationMatrixRegistrationSequence = [matrix_item(after)]
    (grid,) = item.DeformableRegistrationGridSequence
    vectors = np.tile(np.array([2.0, -1.0, 0.5], "<f4"), (*GRID.shape, 1))
    vectors[1, 2, 3] = np.nan
    grid.VectorGridData = vectors.tobytes()
    save_object(data, tmp_path / "reg.dcm")
    expected = by(after, by(before, POINTS) + np.array([2.0, -1.0, 0.5]))
    np.testing.assert_allclose(moved(tmp_path / "reg.dcm"), expected, atol=1e-5)
    assert "1 of 120 displacements are not defined" in caplog.text


def test_the_grid_of_a_left_handed_image_is_turned_round(sides, tmp_path):
    """The third axis of a grid in DICOM is the cross product of the others: each vector stays at its place."""
    mirrored = np.array(GRID.direction) * [1, 1, -1]
    left = Grid(GRID.size_xyz, GRID.spacing_xyz, GRID.origin_xyz, tuple(map(tuple, mirrored)))
    mm = torch.from_numpy(np.random.default_rng(5).normal(size=(3, *left.shape)))
    field = Field.from_mm(mm, left)
    save_object(deformable_object(field, np.eye(4), sides), tmp_path / "reg.dcm")
    index = np.array([[0.0, 0, 0], [3, 2, 1], [1, 4, 5], [2, 1, 3]])
    points = by(left.index_to_point(), index)
    vectors = np.array([mm[:, int(z), int(y), int(x)].numpy() for z, y, x in index])
    np.testing.assert_allclose(moved(tmp_path / "reg.dcm", points) - points, vectors, atol=1e-3)


@pytest.mark.parametrize(
    ("matrix", "kind"),
    [
        (affine(20, (1, 2, 3)), "RIGID"),
        (affine(20, (1, 2, 3)) @ np.diag([1.1, 0.9, 1.2, 1]), "RIGID_SCALE"),
        (np.diag([1.1, 0.9, 1.2, 1]) @ affine(20, (1, 2, 3)), "AFFINE"),
        (np.diag([1.0, 1.0, -1.0, 1]), "AFFINE"),
    ],
)
def test_kinds_of_matrices(matrix, kind):
    """PS3.3 C.20.2.1.2: a rotation, one after scales of axes, anything else."""
    assert kind_of_matrix(matrix) == kind


def test_several_sources_are_refused_with_their_frames(sides, tmp_path):
    """Which of them is meant nobody says; so is a matrix that is none."""
    data = linear_object(affine(5, (1, 0, 0)), sides)
    data.RegistrationSequence.append(linear_object(affine(9, (2, 0, 0)), sides).RegistrationSequence[1])
    save_object(data, tmp_path / "two.dcm")
    with pytest.raises(GeometryError, match=r"one image that is registered .* got 2 \("):
        read_transform(tmp_path / "two.dcm")
    data = linear_object(affine(5, (1, 0, 0)), sides)
    matrix = data.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0]
    matrix.FrameOfReferenceTransformationMatrix = ["0"] * 15 + ["1"]
    save_object(data, tmp_path / "flat.dcm")
    with pytest.raises(GeometryError, match="singular"):
        read_transform(tmp_path / "flat.dcm")


def test_a_slice_names_the_sources_it_comes_from_and_has_the_header_of_the_nearest(tmp_path):
    """Shifted by two slices along the normal, each output slice names those around the one two further."""
    write_series(tmp_path / "source", np.zeros((9, 5, 6)), Grid((6, 5, 9), *_place(GRID)), header(CT, "CT"))
    source = headers_of(tmp_path / "source")
    shift = 8.0 * np.asarray(GRID.direction)[:, 2:]
    names = write_derived(
        Volume(torch.zeros(1, *GRID.shape), GRID), source, "1.2.3", lambda p: p + shift, tmp_path / "out"
    )
    numbers = {data.SOPInstanceUID: data.InstanceNumber for data in source.headers}
    for plane, name in enumerate(names):
        data = pydicom.dcmread(tmp_path / "out" / name)
        named = [numbers[each.ReferencedSOPInstanceUID] for each in data.SourceImageSequence]
        assert plane + 3 in named
        assert set(named) <= {plane + 2, plane + 3, plane + 4}
        assert data[0x0029, 0x1001].value == f"private {plane + 2}"
        assert (data.FrameOfReferenceUID, data.InstanceNumber) == ("1.2.3", plane + 1)


def _place(grid):
    return grid.spacing_xyz, grid.origin_xyz, grid.direction


def test_values_that_do_not_fit_get_another_scale(sides, caplog):
    """Twelve bits from -1024 on hold no 5000 HU; what fits keeps its encoding."""
    assert encoding_for(-1024.0, 3071.0, sides.moving.headers).as_before
    assert not caplog.text
    wide = encoding_for(-1024.0, 5000.0, sides.moving.headers)
    assert not wide.as_before
    assert "slope" in caplog.text
    values = np.array([-1024.0, 0.3, 5000.0], np.float32)
    stored = np.frombuffer(wide.of(values)[:6], "<u2")
    np.testing.assert_allclose(stored * wide.slope + wide.intercept, values, atol=0.05)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"NumberOfFrames": 7}, "several frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "RGB"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"BitsAllocated": 32}, "32 bits"),
    ],
)
def test_no_series_is_derived_of_frames_colours_and_floats(sides, changes, reason):
    """Each is refused by what it is."""
    changed = Dataset()
    changed.update(sides.moving.first)
    for keyword, value in changes.items():
        changed.pop(keyword, None)
        setattr(changed, keyword, value)
    check_can_be_derived(sides.moving)
    with pytest.raises(ConfigError, match=reason):
        check_can_be_derived(DicomImage("scan", (changed,), (0.0,), (0.0, 0.0, 1.0)))


def test_a_deformation_that_moves_nothing_is_none(sides, tmp_path):
    """Then the object is a linear one, whatever the command; a source that is not known goes by no frame."""
    turn = sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.1, 0.2, 0.3, (4.0, 5.0, 6.0))
    found = FoundMap.of(Field(torch.zeros(3, *GRID.shape), GRID), turn)
    expected = np.array([turn.TransformPoint(point.tolist()) for point in POINTS])
    np.testing.assert_allclose(found.move(POINTS.T).T, expected, atol=1e-9)
    with OutputFolder(tmp_path / "out") as folder:
        names = write_result(found, Volume(torch.zeros(1, *GRID.shape), GRID), sides, folder)
    assert pydicom.dcmread(tmp_path / "out" / "registration.dcm").SOPClassUID == LINEAR
    assert names == ["registration.dcm", *(f"dicom/{number:04d}.dcm" for number in range(1, 5))]
    np.testing.assert_allclose(moved(tmp_path / "out" / "registration.dcm"), expected, atol=1e-6)


def test_names_of_patients_are_compared_as_words():
    """The case and the marks between parts of a name tell nobody apart; an empty value says nothing."""
    one = Patient.of({"PatientID": "A", "PatientName": "DOE^John"})
    assert one.differs_in(Patient.of({"PatientID": "A", "PatientName": "Doe John", "PatientSex": "M"})) == ()
    assert one.differs_in(Patient.of({"PatientID": "B", "PatientName": "Doe^Jane"})) == ("PatientID", "PatientName")


def test_an_object_that_was_cut_short_is_refused(sides, tmp_path):
    """A grid without all its vectors."""
    data = deformable_object(Field(torch.zeros(3, *GRID.shape), GRID), np.eye(4), sides)
    (grid,) = data.DeformableRegistrationSequence[1].DeformableRegistrationGridSequence
    grid.VectorGridData = grid.VectorGridData[:-12]
    save(data, tmp_path / "short.dcm")
    with pytest.raises(GeometryError, match="expected 360 numbers for a grid of 6 × 5 × 4 vectors"):
        read_transform(tmp_path / "short.dcm")
