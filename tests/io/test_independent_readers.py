"""Promises of every reader beside another one: the same values, and each voxel and point at the same place in mm, LPS.

What stands on the other side shares no code with the reader: pydicom, nibabel, pynrrd, pillow, h5py, meshio, or the
bytes of the file by the format's own document.
"""

from __future__ import annotations

import csv
import gzip
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

from conftest import make_grid, rotation
from dicom_files import pixel_tags, slice_tags, write_dicom
from semreg.io.bridge import PIXEL_TYPES
from semreg.io.images import read_grid, read_image
from semreg.transforms import read_points

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # nibabel leaves files open
GRID = make_grid((7, 6, 5), (1.5, 1.2, 2.5), (-10.0, 20.0, 5.0), rotation(3, 25.0))
VALUES = np.random.default_rng(0).integers(-100, 1000, (5, 6, 7)).astype(np.int16)
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Seen(NamedTuple):
    """What another reader finds."""

    values: np.ndarray
    """(z, y, x)."""
    matrix: np.ndarray
    """(3, 4) or (2, 3): from indices x, y(, z) to mm, LPS."""


def written(path: Path, values: np.ndarray = VALUES, **more: Any) -> Path:
    """The image as SimpleITK writes it."""
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(GRID.spacing_xyz)
    image.SetOrigin(GRID.origin_xyz)
    image.SetDirection(np.ravel(GRID.direction).tolist())
    sitk.WriteImage(image, str(path), **more)
    return path


def by_nibabel(path: Path) -> Seen:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.load(written(path))
    return Seen(np.asarray(image.dataobj).T, (RAS @ image.affine)[:3])


def by_pynrrd(path: Path) -> Seen:
    nrrd = pytest.importorskip("nrrd", reason="pynrrd is not installed")
    if not path.exists():
        written(path, useCompression="packed" in path.name)
    values, header = nrrd.read(str(path), index_order="F")
    signs = {"left-posterior-superior": (1, 1, 1), "right-anterior-superior": (-1, -1, 1)}[header["space"]]
    columns = np.diag(signs) @ np.column_stack([header["space directions"].T, header["space origin"]])
    return Seen(values.T, columns)


def ras_nrrd(path: Path) -> Seen:
    """A header in RAS, written by hand, with its voxels in ASCII."""
    steps = (np.asarray(GRID.direction) * GRID.spacing_xyz).T * (-1, -1, 1)
    vectors = " ".join(f"({','.join(map(repr, map(float, step)))})" for step in steps)
    origin = ",".join(map(repr, (-GRID.origin_xyz[0], -GRID.origin_xyz[1], GRID.origin_xyz[2])))
    head = (
        f"NRRD0004\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 7 6 5\nencoding: ascii\n"
        f"space directions: {vectors}\nspace origin: ({origin})\n\n"
    )
    path.write_text(head + " ".join(map(str, VALUES.ravel())) + "\n", encoding="ascii")
    return by_pynrrd(path)


def by_the_bytes_of_meta(path: Path) -> Seen:
    """MetaImage: lines of ``key = value``, then the voxels, x fastest; TransformMatrix has an axis a line."""
    data = written(path).read_bytes()
    fields = dict(re.findall(r"^(\w+) = (.*)$", data[:2000].decode("latin-1"), re.MULTILINE))
    size = tuple(map(int, fields["DimSize"].split()))
    own = fields["ElementDataFile"].strip()
    raw = data[-VALUES.nbytes :] if own == "LOCAL" else (path.parent / own).read_bytes()
    axes = np.reshape([float(word) for word in fields["TransformMatrix"].split()], (3, 3)).T
    numbers = {key: np.array([float(word) for word in fields[key].split()]) for key in ("ElementSpacing", "Offset")}
    matrix = np.column_stack([axes * numbers["ElementSpacing"], numbers["Offset"]])
    return Seen(np.frombuffer(raw, "<i2").reshape(size[::-1]), matrix)


def by_the_bytes_of_freesurfer(path: Path) -> Seen:
    """MGH: big-endian; the centre of the volume is at (c_r, c_a, c_s), voxel n / 2 of each axis."""
    axes = RAS[:3, :3] @ np.asarray(GRID.direction)
    size, centre = np.array(GRID.size_xyz), np.array((3.0, -4.0, 12.0))
    head = struct.pack(">7ih15f", 1, *size, 1, 4, 0, 1, *GRID.spacing_xyz, *axes.T.ravel(), *centre)
    data = head.ljust(284, b"\0") + VALUES.astype(">i2").tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".mgz" else data)
    linear = axes * GRID.spacing_xyz
    return Seen(VALUES, RAS[:3, :3] @ np.column_stack([linear, centre - linear @ (size / 2)]))


def by_h5py(path: Path) -> Seen:
    """MINC 2: HDF5; a dimension has a start and a step along its cosines; voxels are scaled slice by slice."""
    written(path)
    with h5py.File(path) as file:
        image = file["minc-2.0/image/0"]
        stored = image["image"]
        low, high = (np.asarray(image[f"image-{end}"]).reshape(-1, 1, 1) for end in ("min", "max"))
        bottom, top = (float(v) for v in stored.attrs["valid_range"])
        values = (stored[()] - bottom) / (top - bottom) * (high - low) + low
        names = np.asarray(stored.attrs["dimorder"]).item().decode().rstrip("\0").split(",")
        axes, origin = [], np.zeros(3)
        for name in names[::-1]:
            about = file["minc-2.0/dimensions"][name].attrs
            along = np.asarray(about.get("direction_cosines", np.eye(3)["xyz".index(name[0])]))
            axes.append(along * about["step"])
            origin += along * about["start"]
    return Seen(values, RAS[:3, :3] @ np.column_stack([*axes, origin]))


def by_the_text_of_afni(path: Path) -> Seen:
    """AFNI: attributes as text; IJK_TO_DICOM_REAL leads to mm in LPS; the voxels stand in the .BRIK, x fastest."""
    matrix = np.column_stack([np.asarray(GRID.direction) * GRID.spacing_xyz, GRID.origin_xyz])
    about = {
        "DATASET_RANK": [3, 1], "DATASET_DIMENSIONS": [7, 6, 5], "TYPESTRING": "3DIM_HEAD_ANAT",
        "SCENE_DATA": [0, 2, 0],
        "ORIENT_SPECIFIC": [0, 3, 4], "ORIGIN": list(GRID.origin_xyz), "DELTA": list(GRID.spacing_xyz),
        "BRICK_TYPES": [1], "BRICK_FLOAT_FACS": [0.0], "BYTEORDER_STRING": "LSB_FIRST",
        "IJK_TO_DICOM_REAL": matrix.ravel().tolist(),
    }  # fmt: skip
    with path.open("w", encoding="ascii") as file:
        for name, value in about.items():
            kind = "string" if isinstance(value, str) else "integer" if isinstance(value[0], int) else "float"
            text = f"'{value}~" if isinstance(value, str) else " ".join(map(repr, value))
            count = len(value) + 1 if isinstance(value, str) else len(value)
            file.write(f"\ntype = {kind}-attribute\nname = {name}\ncount = {count}\n{text}\n")
    path.with_suffix(".BRIK").write_bytes(VALUES.astype("<i2").tobytes())
    return Seen(VALUES, matrix)


def by_pydicom(path: Path) -> Seen:
    """A series: each slice at its ImagePositionPatient, in LPS, with its own slope and intercept."""
    path.mkdir()
    across, down, step = np.asarray(GRID.direction).T
    for number, pixels in enumerate(VALUES):
        position = np.asarray(GRID.origin_xyz) + number * GRID.spacing_xyz[2] * step
        tags = slice_tags("1.2.3", number + 1, position, [*across, *down], GRID.spacing_xyz[:2])
        scale = {0x00281052: ("DS", -1024), 0x00281053: ("DS", 1 + number)}
        write_dicom(path / f"{9 - number}.dcm", {**tags, **pixel_tags(pixels), **scale})
    slices = sorted((pydicom.dcmread(each) for each in path.iterdir()), key=lambda each: int(each.InstanceNumber))
    values = [each.pixel_array * float(each.RescaleSlope) + float(each.RescaleIntercept) for each in slices]
    first, last = (np.array(each.ImagePositionPatient, float) for each in (slices[0], slices[-1]))
    rows, columns = np.reshape(np.array(slices[0].ImageOrientationPatient, float), (2, 3))
    down_mm, across_mm = map(float, slices[0].PixelSpacing)
    steps = (rows * across_mm, columns * down_mm, (last - first) / (len(slices) - 1))
    return Seen(np.stack(values), np.column_stack([*steps, first]))


def by_pillow(path: Path) -> Seen:
    """A picture has no place: its pixels count as mm from the centre of the first one."""
    Image.fromarray((VALUES[2] % 251).astype(np.uint8)).save(path, **({"quality": 100} if "jp" in path.suffix else {}))
    with Image.open(path) as picture:
        return Seen(np.asarray(picture, float), np.column_stack([np.eye(2), np.zeros(2)]))


def by_the_bytes_of_vtk(path: Path) -> Seen:
    """Structured points: origin and spacing, no direction; big-endian, x fastest."""
    head = "# vtk DataFile Version 3.0\nt\nBINARY\nDATASET STRUCTURED_POINTS\nDIMENSIONS 7 6 5\n"
    head += "SPACING 1.5 1.2 2.5\nORIGIN -10 20 5\nPOINT_DATA 210\nSCALARS s short 1\nLOOKUP_TABLE default\n"
    path.write_bytes(head.encode() + VALUES.astype(">i2").tobytes() + b"\n")
    return Seen(VALUES, np.column_stack([np.diag([1.5, 1.2, 2.5]), [-10, 20, 5]]))


READERS: dict[str, Callable[[Path], Seen]] = {
    "a.nii": by_nibabel, "a.nii.gz": by_nibabel, "a.hdr": by_nibabel, "a.nrrd": by_pynrrd, "packed.nrrd": by_pynrrd,
    "a.nhdr": by_pynrrd, "ras.nrrd": ras_nrrd, "a.mha": by_the_bytes_of_meta, "a.mhd": by_the_bytes_of_meta,
    "a.mgh": by_the_bytes_of_freesurfer, "a.mgz": by_the_bytes_of_freesurfer, "a.mnc": by_h5py,
    "a+orig.HEAD": by_the_text_of_afni, "series": by_pydicom, "a.png": by_pillow, "a.tif": by_pillow,
    "a.bmp": by_pillow, "a.vtk": by_the_bytes_of_vtk,
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_an_image_is_what_another_reader_sees(name, tmp_path):
    """The same values, and corners and a voxel within at the same place in mm, LPS; the grid alone is the same."""
    seen = READERS[name](tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.pixel_type in PIXEL_TYPES
    np.testing.assert_allclose(image.volume.data[0].numpy(), seen.values, rtol=1e-6, atol=2e-3 * (name == "a.mnc"))
    dimension = len(seen.matrix)
    ends = [(0, n - 1) for n in seen.values.shape[::-1]]
    for index in (*np.stack(np.meshgrid(*ends), -1).reshape(-1, dimension), (3, 1, 2)[:dimension]):
        place = (image.volume.grid.index_to_point() @ [*index[::-1], 1])[:dimension]
        np.testing.assert_allclose(place, seen.matrix @ [*index, 1], atol=1e-4)
    assert read_grid(tmp_path / name) == image.volume.grid


POINTS = np.array([[1.5, 2.5, -3.5], [-10.0, 20.0, 30.25], [0.125, 0.0, 7.0]])


def by_meshio(path: Path) -> np.ndarray:
    meshio = pytest.importorskip("meshio", reason="meshio is not installed")
    binary = "binary" in path.name
    meshio.write(path, meshio.Mesh(POINTS, [("triangle", [[0, 1, 2]])]), "vtk", binary=binary)
    return np.asarray(meshio.read(path).points)


def by_csv(path: Path) -> np.ndarray:
    path.write_text("name,z,x,y\n" + "".join(f"p,{z},{x},{y}\n" for x, y, z in POINTS.tolist()), encoding="utf-8")
    with path.open(encoding="utf-8", newline="") as file:
        return np.array([[float(row[axis]) for axis in "xyz"] for row in csv.DictReader(file)])


@pytest.mark.parametrize(("name", "other"), [("ascii.vtk", by_meshio), ("binary.vtk", by_meshio), ("a.csv", by_csv)])
def test_points_are_where_another_reader_sees_them(name, other, tmp_path):
    """Meshes and tables: the same points in mm."""
    seen = other(tmp_path / name)
    np.testing.assert_allclose(read_points(tmp_path / name).points.T, seen, rtol=0, atol=1e-6)
