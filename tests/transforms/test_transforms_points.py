"""Promises of points in files: the right ones, in the right handedness, move; all else in a file stays as it was."""

from __future__ import annotations

import base64
import json
import logging
import lzma
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from conftest import make_grid, rotation, smooth_field
from semreg.errors import ConfigError, GeometryError, ImageError, OutputError
from semreg.transforms import Chain, is_point_file, move_points, read_points
from semreg.transforms.chain import map_points

GRID = make_grid((12, 11, 10), (1.1, 1.4, 1.9), (-31.0, 12.5, 77.0), rotation(3))
INSIDE = np.array([[3.0, 4.0, 5.0, 1.0], [6.0, 5.0, 4.0, 1.0], [5.0, 7.0, 6.0, 1.0]])
LPS = np.round((INSIDE @ GRID.index_to_point().T)[:, :3], 3)
"""Three points inside the grid, one a row."""
RAS = LPS * [-1, -1, 1]


@pytest.fixture
def chain():
    """A field and then a rotation about a far centre."""
    return Chain.of(smooth_field(GRID), sitk.Euler3DTransform((11.0, -7.0, 60.0), 0.1, -0.2, 0.3, (4.0, -5.0, 6.0)))


def expected(chain):
    """Where SimpleITK brings the points, one a row, LPS."""
    return np.array([chain.sitk().TransformPoint(point) for point in LPS.tolist()])


def test_csv(chain, tmp_path):
    """The columns x, y, z move wherever they are; other columns, quotes and their order stay."""
    rows = [f'"a, {n}",{z},{x},7.50,{y}' for n, (x, y, z) in enumerate(LPS.tolist())]
    (tmp_path / "a.csv").write_text("label,Z,X,weight,Y\n" + "\n".join(rows) + "\n")
    assert move_points(tmp_path / "a.csv", tmp_path / "b.csv", chain).points.shape == (3, 3)
    lines = (tmp_path / "b.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "label,Z,X,weight,Y"
    for n, (line, (x, y, z)) in enumerate(zip(lines[1:], expected(chain), strict=True)):
        *_, got_z, got_x, weight, got_y = line.split(",")
        assert line.startswith(f'"a, {n}",')
        assert weight == "7.50"
        assert [float(v) for v in (got_x, got_y, got_z)] == pytest.approx([x, y, z], abs=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv"]


def test_csv_in_ras_and_with_semicolons(chain, tmp_path):
    """With ``ras`` x and y change their sign on the way in and out; semicolons and a byte order mark are understood."""
    rows = "".join(";".join(map(str, point)) + "\n" for point in RAS.tolist())
    (tmp_path / "a.csv").write_text("\ufeffx;y;z\n" + rows, encoding="utf-8")
    move_points(tmp_path / "a.csv", tmp_path / "b.csv", chain, ras=True)
    got = np.loadtxt(tmp_path / "b.csv", delimiter=";", skiprows=1, encoding="utf-8-sig")
    np.testing.assert_allclose(got * [-1, -1, 1], expected(chain), atol=1e-5)


def test_there_and_back_in_a_csv(chain, tmp_path):
    """Points that went to the moving image come back with the inverse within 1e-3 mm."""
    np.savetxt(tmp_path / "a.csv", LPS, delimiter=",", header="x,y,z", comments="")
    move_points(tmp_path / "a.csv", tmp_path / "b.csv", chain)
    moved = move_points(tmp_path / "b.csv", tmp_path / "c.csv", chain.inverse())
    count, residual = moved.points.shape[1], moved.residual
    assert (count, residual.max() < 1e-4) == (3, True)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "c.csv", delimiter=",", skiprows=1), LPS, atol=1e-3)


def test_points_in_2d(tmp_path):
    """A table of x and y goes through a transform in 2-D; one with z that is not 0 does not."""
    turn = sitk.Euler2DTransform((1.0, 2.0), 0.5, (3.0, 4.0))
    (tmp_path / "a.csv").write_text("x,y,name\n5,-6,p\n")
    move_points(tmp_path / "a.csv", tmp_path / "b.csv", Chain.of(turn))
    x, y, name = (tmp_path / "b.csv").read_text(encoding="utf-8").splitlines()[1].split(",")
    assert name == "p"
    assert (float(x), float(y)) == pytest.approx(turn.TransformPoint((5.0, -6.0)), abs=1e-5)
    (tmp_path / "a.csv").write_text("x,y,z\n5,-6,7\n")
    with pytest.raises(GeometryError, match="2-D"):
        move_points(tmp_path / "a.csv", tmp_path / "b.csv", Chain.of(turn))


FCSV = "# Markups fiducial file version = {version}\n# CoordinateSystem = {system}\n# columns = {columns}\n"
COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"


@pytest.mark.parametrize(
    ("version", "system", "lps"),
    [("4.11", "LPS", True), ("4.11", "RAS", False), ("4.10", "0", False), ("4.6", "1", True)],
)
def test_fcsv(version, system, lps, chain, tmp_path):
    """The file says whether it is LPS or RAS, by word or by number; labels, quotes and flags stay."""
    stored = LPS if lps else RAS
    body = "".join(f'v{n},{x},{y},{z},0,0,0,1,1,1,0,"F, {n}",,\n' for n, (x, y, z) in enumerate(stored.tolist()))
    (tmp_path / "a.fcsv").write_text(FCSV.format(version=version, system=system, columns=COLUMNS) + body)
    move_points(tmp_path / "a.fcsv", tmp_path / "b.fcsv", chain)
    before, after = ((tmp_path / name).read_text(encoding="utf-8").splitlines() for name in ("a.fcsv", "b.fcsv"))
    assert after[:3] == before[:3]
    got = np.array([[float(v) for v in line.split(",")[1:4]] for line in after[3:]])
    np.testing.assert_allclose(got * ([1, 1, 1] if lps else [-1, -1, 1]), expected(chain), atol=1e-5)
    assert [line.split(",", 4)[4] for line in after[3:]] == [line.split(",", 4)[4] for line in before[3:]]


def test_fcsv_of_slicer_3(chain, tmp_path):
    """The oldest files name their columns label first and mean RAS without saying so."""
    body = "".join(f"L{n},{x},{y},{z},1,1\n" for n, (x, y, z) in enumerate(RAS.tolist()))
    (tmp_path / "a.fcsv").write_text(f"# Fiducial List file a.fcsv\n# columns = label,x,y,z,sel,vis\n{body}")
    move_points(tmp_path / "a.fcsv", tmp_path / "b.fcsv", chain)
    lines = (tmp_path / "b.fcsv").read_text(encoding="utf-8").splitlines()[2:]
    got = np.array([[float(v) for v in line.split(",")[1:4]] for line in lines]) * [-1, -1, 1]
    np.testing.assert_allclose(got, expected(chain), atol=1e-5)


@pytest.mark.parametrize("system", ["LPS", "RAS"])
def test_markups(system, chain, tmp_path):
    """Positions move; labels, orientations, display, points without a position and unknown entries stay."""
    stored = LPS if system == "LPS" else RAS
    turned = [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0]
    points = [
        {"id": str(n), "label": f"Ä-{n}", "position": p, "orientation": turned} for n, p in enumerate(stored.tolist())
    ]
    points.insert(1, {"id": "9", "label": "later", "position": None, "positionStatus": "undefined"})
    markup = {"type": "Fiducial", "coordinateSystem": system, "coordinateUnits": "mm", "controlPoints": points}
    document = {"@schema": "markups", "markups": [markup | {"display": {"opacity": 0.5}}]}
    (tmp_path / "a.mrk.json").write_text(json.dumps(document), encoding="utf-8")
    assert move_points(tmp_path / "a.mrk.json", tmp_path / "b.mrk.json", chain).points.shape == (3, 3)
    after = json.loads((tmp_path / "b.mrk.json").read_text(encoding="utf-8"))
    placed = [point for point in after["markups"][0]["controlPoints"] if point["position"]]
    got = np.array([point.pop("position") for point in placed]) * ([1, 1, 1] if system == "LPS" else [-1, -1, 1])
    np.testing.assert_allclose(got, expected(chain), atol=1e-5)
    for point in points:
        if point["position"]:
            point.pop("position")
    assert after == document


def legacy(points, dtype, *, binary, title="semreg"):
    """A legacy VTK file of one triangle with a value a point."""
    kind = {"f4": "float", "f8": "double"}[dtype]
    numbers = points.astype(f">{dtype}").tobytes() if binary else " ".join(map(repr, points.ravel().tolist())).encode()
    cells = struct.pack(">4i", 3, 0, 1, 2) if binary else b"3 0 1 2"
    values = np.arange(3, dtype=">f4").tobytes() if binary else b"0 1 2"
    head = f"# vtk DataFile Version 3.0\n{title}\n{'BINARY' if binary else 'ASCII'}\nDATASET POLYDATA\n"
    parts = [head.encode(), f"POINTS 3 {kind}\n".encode(), numbers, b"\nPOLYGONS 1 4\n", cells]
    return b"".join([*parts, b"\nPOINT_DATA 3\nSCALARS v float 1\nLOOKUP_TABLE default\n", values, b"\n"])


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_legacy_meshes(dtype, binary, chain, tmp_path):
    """ASCII and binary points move in their type; cells and data stay byte for byte."""
    (tmp_path / "a.vtk").write_bytes(legacy(LPS, dtype, binary=binary))
    assert is_point_file(tmp_path / "a.vtk")
    move_points(tmp_path / "a.vtk", tmp_path / "b.vtk", chain)
    after = (tmp_path / "b.vtk").read_bytes()
    got = read_points(tmp_path / "b.vtk").points.T
    np.testing.assert_allclose(got, expected(chain), atol=1e-4)
    before = (tmp_path / "a.vtk").read_bytes()
    assert after[: after.index(b"POINTS")] == before[: before.index(b"POINTS")]
    assert after[after.index(b"\nPOLYGONS") :] == before[before.index(b"\nPOLYGONS") :]


@pytest.mark.parametrize(("title", "ras"), [("3D Slicer output. SPACE=RAS", False), ("mesh", True)])
def test_meshes_in_ras(title, ras, chain, tmp_path):
    """A mesh is RAS where its title says so as 3D Slicer writes it, or where the caller does."""
    (tmp_path / "a.vtk").write_bytes(legacy(RAS, "f8", binary=False, title=title))
    move_points(tmp_path / "a.vtk", tmp_path / "b.vtk", chain, ras=ras)
    np.testing.assert_allclose(read_points(tmp_path / "b.vtk", ras=ras).points.T, expected(chain), atol=1e-5)
    (tmp_path / "a.vtk").write_bytes(legacy(LPS, "f8", binary=False, title="3D Slicer output. SPACE=LPS"))
    np.testing.assert_allclose(read_points(tmp_path / "a.vtk", ras=True).points.T, LPS)  # what the file says wins


def vtp(encoding, *, compressed=False):
    """An XML file of three points, in the encodings that VTK's writer has."""
    raw, word = LPS.astype("<f8").tobytes(), "<I"
    if compressed:
        blocks = [zlib.compress(raw[:40]), zlib.compress(raw[40:])]
        header = struct.pack("<5I", 2, 40, len(raw) - 40, *map(len, blocks))
        streams = [header, b"".join(blocks)]
    else:
        streams = [struct.pack(word, len(raw)) + raw]
    data = b"".join(streams) if encoding == "raw" else b"".join(map(base64.b64encode, streams))
    compressor = ' compressor="vtkZLibDataCompressor"' if compressed else ""
    form = 'format="appended" offset="4"' if encoding in ("raw", "appended") else f'format="{encoding}"'
    inline = {"ascii": " ".join(map(repr, LPS.ravel().tolist())).encode(), "binary": data}.get(encoding, b"")
    kind = "raw" if encoding == "raw" else "base64"
    tail = b'<AppendedData encoding="%s">\n_\1\2\3\4%s\n</AppendedData>' % (kind.encode(), data) if not inline else b""
    return b"".join(
        (
            f'<?xml version="1.0"?>\n<VTKFile type="PolyData" byte_order="LittleEndian"{compressor}>\n'.encode(),
            b'<PolyData><Piece NumberOfPoints="3"><PointData></PointData>\n<Points>\n<DataArray type="Float64" ',
            f'Name="Points" NumberOfComponents="3" {form}>'.encode(), inline,
            b"</DataArray></Points></Piece></PolyData>\n", tail, b"</VTKFile>\n",
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("encoding", "compressed"),
    [("ascii", False), ("binary", False), ("binary", True), ("appended", False), ("appended", True), ("raw", True)],
)
def test_xml_meshes(encoding, compressed, chain, tmp_path):
    """Points of a .vtp file in each encoding move; what else the file holds stays."""
    (tmp_path / "a.vtp").write_bytes(vtp(encoding, compressed=compressed))
    np.testing.assert_array_equal(read_points(tmp_path / "a.vtp").points.T, LPS)
    move_points(tmp_path / "a.vtp", tmp_path / "b.vtp", chain)
    np.testing.assert_allclose(read_points(tmp_path / "b.vtp").points.T, expected(chain), atol=1e-9)
    before, after = ((tmp_path / name).read_bytes() for name in ("a.vtp", "b.vtp"))
    assert after.split(b"</Points>")[1] == before.split(b"</Points>")[1]


def vtp_of_slicer(encoding, space, points):
    """An XML file as VTK writes it for 3D Slicer: the space as field data, and notes on the values in the array."""
    notes = (
        b'<InformationKey name="L2_NORM_RANGE" location="vtkDataArray"><Value index="0">7.5</Value></InformationKey>'
    )
    text, raw = space.encode() + b"\0", points.astype("<f4").tobytes()
    parts = []
    for data in (text, raw):
        packed = {"zlib": zlib.compress, "lzma": lzma.compress}.get(encoding, bytes)(data)
        head = struct.pack("<4I", 1, 1 << 15, len(data), len(packed))
        parts.append(base64.b64encode(head) + base64.b64encode(packed))
    compressor = {"zlib": ' compressor="vtkZLibDataCompressor"', "lzma": ' compressor="vtkLZMADataCompressor"'}
    if encoding == "ascii":
        codes, numbers = " ".join(map(str, text)).encode(), " ".join(map(repr, points.ravel().tolist())).encode()
        where, tail = (b'format="ascii">', b'format="ascii">'), b""
    else:
        codes = numbers = b""
        where = tuple(b'format="appended" offset="%d">' % offset for offset in (0, len(parts[0])))
        tail = b'<AppendedData encoding="base64">\n   _%s\n</AppendedData>' % b"".join(parts)
    return b"".join((
        b'<VTKFile type="PolyData" byte_order="LittleEndian" header_type="UInt32"',
        compressor.get(encoding, "").encode(), b">\n<PolyData>\n<FieldData>\n",
        b'<Array type="String" Name="SPACE" NumberOfTuples="1" ', where[0], codes, b"</Array>\n</FieldData>\n",
        b'<Piece NumberOfPoints="3"><PointData></PointData><Points>\n',
        b'<DataArray type="Float32" Name="Points" NumberOfComponents="3" ', where[1], numbers, b"\n", notes,
        b"</DataArray></Points></Piece></PolyData>\n", tail, b"</VTKFile>\n",
    ))  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "zlib", "lzma"])
@pytest.mark.parametrize("space", ["RAS", "LPS"])
def test_meshes_of_slicer(encoding, space, chain, tmp_path):
    """A .vtp file is in the space that its field data says, whatever the caller does, and is written back in it."""
    (tmp_path / "a.vtp").write_bytes(vtp_of_slicer(encoding, space, RAS if space == "RAS" else LPS))
    np.testing.assert_allclose(read_points(tmp_path / "a.vtp", ras=space == "LPS").points.T, LPS, atol=1e-5)
    move_points(tmp_path / "a.vtp", tmp_path / "b.vtp", chain)
    np.testing.assert_allclose(
        read_points(tmp_path / "b.vtp").points.T, expected(chain), atol=1e-4
    )  # float32 at 100 mm
    stored = (tmp_path / "b.vtp").read_bytes()
    signs = np.array([-1, -1, 1]) if space == "RAS" else np.ones(3)
    first = stored.split(b'format="ascii">\n')[-1].split(b"\n")[0]
    np.testing.assert_allclose(np.array(first.split(), float) * signs, expected(chain)[0], atol=1e-4)


def test_a_legacy_mesh_may_say_its_space_in_its_field_data(chain, tmp_path):
    """VTK writes the array SPACE of a mesh into legacy files too, where the title is another."""
    data = legacy(RAS, "f8", binary=False).replace(
        b"DATASET POLYDATA\n", b"DATASET POLYDATA\nFIELD FieldData 1\nSPACE 1 1 string\nRAS\n"
    )
    (tmp_path / "a.vtk").write_bytes(data)
    np.testing.assert_allclose(read_points(tmp_path / "a.vtk").points.T, LPS)


def test_vtk_reads_the_meshes(chain, tmp_path):
    """The package vtk reads the points of both kinds of mesh as they were written."""
    vtk = pytest.importorskip("vtk")
    support = pytest.importorskip("vtk.util.numpy_support")
    for name, data, reader in (
        ("a.vtk", legacy(LPS, "f8", binary=True), vtk.vtkPolyDataReader()),
        ("a.vtp", vtp("appended", compressed=True), vtk.vtkXMLPolyDataReader()),
    ):
        (tmp_path / name).write_bytes(data)
        move_points(tmp_path / name, tmp_path / f"b{name}", chain)
        reader.SetFileName(str(tmp_path / f"b{name}"))
        reader.Update()
        points = support.vtk_to_numpy(reader.GetOutput().GetPoints().GetData())
        np.testing.assert_allclose(points, expected(chain), atol=1e-9)


def test_an_image_in_vtk_is_no_mesh(tmp_path):
    """A .vtk file that SimpleITK wrote is an image, whatever its name says."""
    sitk.WriteImage(sitk.Image((4, 5, 6), sitk.sitkInt16), str(tmp_path / "image.vtk"))
    assert not is_point_file(tmp_path / "image.vtk")
    assert not is_point_file(tmp_path / "missing.vtk")
    assert is_point_file("A.FCSV")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", b"1,2,3\n4,5,6\n", "names the columns"),
        ("a.csv", b"", "names the columns"),
        ("a.csv", b"x,y,z\n", "at least one point"),
        ("a.csv", b"x,y,z\n1,2,3\n1,two,3\n", "line 3"),
        ("a.csv", b"x,y,z\n1,nan,3\n", "line 2"),
        ("a.csv", b"x,y,z\n1,5,2,5,3,5\n", "expected 3 values in line 2 as the first line has, got 6"),
        ("a.csv", b"x,y,z\n1,2\n", "line 2"),
        ("a.csv", b"x,y,z\n\xff\xfe,2,3\n", "a.csv"),
        ("a.fcsv", b"# CoordinateSystem = IJK\nv,1,2,3\n", "RAS or LPS"),
        ("a.fcsv", b"", "at least one point"),
        ("a.mrk.json", b"{", "a.mrk.json"),
        ("a.mrk.json", b'{"points": []}', "markups"),
        ("a.mrk.json", b'{"markups": [{"controlPoints": []}]}', "at least one point"),
        ("a.mrk.json", b'{"markups": [{"controlPoints": [{"position": [1, 2, "x"]}]}]}', "control point 1"),
        ("a.mrk.json", b'{"markups": [{"coordinateUnits": "um"}]}', "in mm"),
        ("a.txt", b'(Transform "EulerTransform")', "points of transformix"),
        ("a.txt", b"2\n1 2 3\n4 5 6\n", "points of transformix"),
        ("a.txt", b"", "points of transformix"),
        ("a.txt", b"point\n3\n1 2 3\n4 5 6\n", "expected 3 lines with a point each, got 2"),
        ("a.txt", b"point\n1\n1 nan 3\n", "point 1"),
        ("a.txt", b"point\n99999999999\n1 2 3\n", "after the word point"),
        ("a.txt", b"Point 0 ; InputPoint = [ 1 2 3 ]\n", "OutputPoint = .* in line 1"),
        ("a.txt", b"Point 0 ; OutputPoint = [ 1 2 3 ]\nPoint 1 ; OutputPoint = [ 1 2 ]\n", "one dimension"),
        ("a.geojson", b"{}", "objects that have a geometry"),
        ("a.geojson", b"[]", "at least one point"),
        ("a.geojson", b"[5]", "objects that have a geometry"),
        ("a.geojson", b'[{"geometry": null}]', "at least one point"),
        ("a.geojson", b'[{"geometry": {"coordinates": 5}}]', "coordinates of a geometry"),
        ("a.geojson", b'[{"geometry": {"coordinates": [[1, 2], 3]}}]', "positions x, y"),
        ("a.geojson", b'[{"geometry": {"coordinates": [1]}}]', "position 1"),
        ("a.geojson", b'[{"geometry": {"coordinates": [1, "b"]}}]', "position 1"),
        ("a.vtk", b"hello", "legacy VTK"),
        ("a.vtk", legacy(LPS, "f8", binary=True)[:120], "cut short"),
        ("a.vtk", legacy(LPS, "f8", binary=False)[:95], "cut short"),
        ("a.vtp", b"<VTKFile></VTKFile>", "one piece"),
        ("a.vtp", vtp("appended", compressed=True).replace(b"vtkZLib", b"vtkLZ4"), "zlib"),
        ("a.vtp", vtp_of_slicer("zlib", "IJK", LPS), "RAS or LPS, got 'IJK'"),
        ("a.vtp", vtp("raw")[:-120], "cut short"),
    ],
)
def test_what_holds_no_points_is_refused(name, data, said, chain, tmp_path):
    """Damaged, empty and senseless files end in one sentence that names the file, and nothing is written."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError, match=said) as refused:
        move_points(tmp_path / name, tmp_path / f"out_{name}", chain)
    assert name in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_other_kinds_and_places_are_refused(chain, tmp_path):
    """No conversion between kinds of files, no unknown kind, no missing file, no missing folder."""
    (tmp_path / "a.csv").write_text("x,y,z\n-20,21,90\n")
    with pytest.raises(ConfigError, match="as they are stored"):
        move_points(tmp_path / "a.csv", tmp_path / "b.fcsv", chain)
    with pytest.raises(ConfigError, match=r"\.mp4"):
        read_points(tmp_path / "a.mp4")
    with pytest.raises(ImageError, match="no such file"):
        read_points(tmp_path / "b.csv")
    with pytest.raises(OutputError, match="expected to write"):
        move_points(tmp_path / "a.csv", tmp_path / "gone" / "b.csv", chain)


SHIFT = [1.5, -2.0, 3.25]


def mesh_of(values: str, kind: str = "Float32", form: str = "ascii", before: str = "") -> bytes:
    """A mesh in XML with one array of points."""
    return (
        f'<VTKFile type="PolyData" byte_order="LittleEndian"><PolyData><Piece NumberOfPoints="1"><Points>'
        f'<DataArray type="{kind}" NumberOfComponents="3" format="{form}" offset="0">{values}</DataArray>'
        f"</Points></Piece></PolyData>{before}</VTKFile>"
    ).encode()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.vtp", mesh_of("1 2 3", kind="Int32"), "points of Float32 or Float64, got Int32: convert the mesh"),
        ("a.vtp", mesh_of("1 2 3 4"), "points of three coordinates, got another number of values: check the file"),
        ("a.vtp", mesh_of("1 two 3"), "cut short"),
        ("a.vtp", mesh_of("", form="appended", before='<AppendedData encoding="raw">_ab</AppendedData>'), "cut short"),
        ("a.vtp", mesh_of("1 nan 3"), "finite coordinates, got NaN or infinity in .*a.vtp: remove those"),
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
            tmp_path / "a.mrk.json", tmp_path / "b.mrk.json", Chain.of(sitk.TranslationTransform(3, SHIFT))
        )
    assert moved.points.shape == (3, 1)
    assert "of a Plane only the control points are moved" in caplog.text
    np.testing.assert_allclose(read_points(tmp_path / "b.mrk.json").points[:, 0], np.array([1.0, 2.0, 3.0]) + SHIFT)


def test_no_points_are_moved_to_no_points() -> None:
    """An empty set of points stays empty."""
    assert map_points(sitk.TranslationTransform(3, SHIFT), np.zeros((3, 0))).shape == (3, 0)


AWAY = Chain.of(sitk.TranslationTransform(3, (1.0, -2.0, 0.5)))
LIST = "point\n2\n1.5 2.5 -3.5\n-10 20 30\n"
OUTPUTPOINTS = (
    "Point\t0\t; InputIndex = [ 1 2 3 ]\t; InputPoint = [ 9 9 9 ]\t; OutputIndexFixed = [ 8 8 8 ]"
    "\t; OutputPoint = [ 1.500000 2.500000 -3.500000 ]\t; Deformation = [ 7 7 7 ]\t; OutputIndexMoving = [ 6 6 6 ]\n"
    "Point\t1\t; InputIndex = [ 1 2 3 ]\t; InputPoint = [ 9 9 9 ]\t; OutputIndexFixed = [ 8 8 8 ]"
    "\t; OutputPoint = [ -10 20 3e1 ]\t; Deformation = [ 7 7 7 ]\t; OutputIndexMoving = [ 6 6 6 ]\n"
)


@pytest.mark.parametrize("text", [LIST, LIST.replace("\n", "\r\n"), LIST.replace("30\n", "30"), OUTPUTPOINTS])
def test_lists_of_transformix(text, tmp_path):
    """A list in mm, LPS, and what transformix made of one; both become a list that transformix takes."""
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert is_point_file(tmp_path / "a.txt")
    assert read_points(tmp_path / "a.txt", ras=True).points.T.tolist() == [[1.5, 2.5, -3.5], [-10, 20, 30]]
    move_points(tmp_path / "a.txt", tmp_path / "b.txt", AWAY)
    words = (tmp_path / "b.txt").read_text(encoding="utf-8").split()
    assert words[:2] == ["point", "2"]
    assert list(map(float, words[2:])) == [2.5, 0.5, -3.0, -9.0, 18.0, 30.5]


def test_indices_of_transformix_have_no_mm(tmp_path):
    """Indices are voxels; a transform in mm does not move them, one that counts in pixels does."""
    (tmp_path / "a.txt").write_text("index\n1\n1 2 3\n", encoding="utf-8")
    file = read_points(tmp_path / "a.txt")
    assert (file.in_voxels, file.points.T.tolist()) == (True, [[1.0, 2.0, 3.0]])
    with pytest.raises(GeometryError, match="expected points in mm"):
        move_points(tmp_path / "a.txt", tmp_path / "b.txt", Chain.of(smooth_field(GRID)))
    move_points(tmp_path / "a.txt", tmp_path / "b.txt", AWAY)
    assert (tmp_path / "b.txt").read_text(encoding="utf-8") == "index\n1\n2.000000 0.000000 3.500000\n"
    (tmp_path / "c.txt").write_text('(Transform "EulerTransform")\n', encoding="utf-8")
    assert not is_point_file(tmp_path / "c.txt")


def test_points_of_ants(tmp_path):
    """Columns x, y, z in LPS move; t and the columns after it stay, and label is the name of a point."""
    rows = "x,y,z,t,label,comment\n1.5,2.5,-3.5,0,7,left\n-10,20,30,0,8,right\n"
    (tmp_path / "a.csv").write_text(rows, encoding="utf-8")
    assert read_points(tmp_path / "a.csv").names == ("7", "8")
    move_points(tmp_path / "a.csv", tmp_path / "b.csv", AWAY)
    assert (tmp_path / "b.csv").read_text(encoding="utf-8").splitlines() == [
        "x,y,z,t,label,comment",
        "2.500000,0.500000,-3.000000,0,7,left",
        "-9.000000,18.000000,30.500000,0,8,right",
    ]


def test_annotations_of_qupath(tmp_path):
    """All positions move, in pixels from the corner of the picture; names, classes, colours and the rest stay."""
    tumour = {"objectType": "annotation", "classification": {"name": "Tumour", "color": [200, 0, 0]}}
    square = [[[0, 0], [4, 0], [4, 4], [0, 0]]]
    features = [
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [10.5, 20.5]}, "properties": tumour},
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": square, "plane": {"c": -1, "z": 0, "t": 0}},
            "nucleusGeometry": {"type": "MultiPoint", "coordinates": [[1.0, 2.0]]},
            "properties": {"name": "cell 1", "classification": {"name": "Other"}},
        },
        {"type": "Feature", "geometry": {"type": "LineString", "coordinates": [[5, 6], [7, 8.5]]}},
    ]
    turn = Chain.of(sitk.Euler2DTransform((0.0, 0.0), np.pi / 2, (3.0, -1.0)))  # (x, y) → (3 − y, x − 1)
    for document in (features, {"type": "FeatureCollection", "features": features}):
        (tmp_path / "a.geojson").write_text(json.dumps(document), encoding="utf-8")
        file = read_points(tmp_path / "a.geojson")
        assert file.in_voxels
        assert file.points.T[:2].tolist() == [[10.0, 20.0], [-0.5, -0.5]]
        assert file.names == ("Tumour", *["cell 1"] * 5, "", "")
        move_points(tmp_path / "a.geojson", tmp_path / "b.geojson", turn)
        found = json.loads((tmp_path / "b.geojson").read_text(encoding="utf-8"))
        found = found if isinstance(document, list) else found["features"]
        assert found[0]["geometry"]["coordinates"] == [-16.5, 9.5]  # (10, 20) → (−17, 9), and half a pixel
        assert found[0]["properties"] == tumour
        assert found[1]["geometry"]["coordinates"] == [[[4, -1], [4, 3], [0, 3], [4, -1]]]
        assert found[1]["geometry"]["plane"] == {"c": -1, "z": 0, "t": 0}
        assert found[1]["nucleusGeometry"]["coordinates"] == [[2.0, 0.0]]
        assert found[2]["geometry"]["coordinates"] == [[-2.0, 4.0], [-4.5, 6.0]]
    with pytest.raises(GeometryError, match="points in 2-D"):
        move_points(tmp_path / "a.geojson", tmp_path / "b.geojson", AWAY)
