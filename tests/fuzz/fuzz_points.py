"""Files of points, nearly right: CSV, FCSV, markups, VTK and VTP."""

from __future__ import annotations

import base64
import json
import struct

from fuzz_harness import Case
from fuzz_kinds import Kind, Seed
from fuzz_transforms import AFFINE

CSV = b"name,x,y,z\na,1.5,2.5,3.5\nb,2,3,4\nc,-1,0,5\n"
FCSV = (
    b"# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
    b"# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    b"1,1.5,2.5,3.5,0,0,0,1,1,1,0,F-1,,\n2,2,3,4,0,0,0,1,1,1,0,F-2,,\n3,0,0,1,0,0,0,1,1,1,0,F-3,,\n"
)
MARKUPS = {
    "markups": [
        {
            "type": "Fiducial",
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "controlPoints": [{"id": "1", "label": "F-1", "position": [1.5, 2.5, 3.5]}, {"position": [2, 3, 4]}],
        }
    ]
}
LIST = b"point\n3\n1.5 2.5 3.5\n2 3 4\n0 0 1\n"
OUTPUT = b"".join(
    b"Point\t%d\t; InputPoint = [ 9 9 9 ]\t; OutputPoint = [ %s ]\t; Deformation = [ 7 7 7 ]\n" % each
    for each in enumerate((b"1.5 2.5 3.5", b"2 3 4", b"0 0 1"))
)
GEOJSON = {
    "type": "FeatureCollection",
    "features": [
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1.5, 2.5]}, "properties": {"name": "a"}},
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [0, 0]]]}},
    ],
}
VTK = b"# vtk DataFile Version 3.0\nmesh\n%s\nDATASET POLYDATA\nPOINTS 3 double\n%s\nVERTICES 1 4\n3 0 1 2\n"
NUMBERS = (1.5, 2.5, 3.5, 2.0, 3.0, 4.0, 0.0, 0.0, 1.0)
PACKED = base64.b64encode(struct.pack("<I9d", 72, *NUMBERS))
VTP = (
    b'<?xml version="1.0"?>\n<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt32">\n'
    b'<PolyData><Piece NumberOfPoints="3" NumberOfVerts="0">\n<Points>\n'
    b'<DataArray type="Float64" Name="Points" NumberOfComponents="3" format="%s">\n%s\n</DataArray>\n'
    b"</Points></Piece></PolyData></VTKFile>\n"
)


def shared() -> dict[str, bytes]:
    """A transform to move points by."""
    flat = AFFINE.replace("double_3_3", "double_2_2").replace("1.1 0 0.1 0 0.9 0 0 0.05 1 1 2 3", "1.1 0 0.1 1 2 3")
    flat = flat.replace("4 5 6", "4 5")
    return {"affine.tfm": AFFINE.encode(), "flat.tfm": flat.encode(), "points.csv": CSV}


def commands(name: str) -> tuple[tuple[str, ...], ...]:
    """What is done with a file of points."""
    out = f"out.{name.partition('.')[2]}"
    if name.endswith(".geojson"):  # of pictures, in pixels: measured beside both images alone
        return (("apply", "../shared/flat.tfm", "-i", name, "-o", out),)
    measured = ("evaluate", "../shared/affine.tfm", "--fixed-landmarks", "../shared/points.csv")
    return (
        ("apply", "../shared/affine.tfm", "-i", name, "-o", out),
        ("apply", "../shared/affine.tfm", "-i", name, "-o", out, "--ras"),
        (*measured, "--moving-landmarks", name, "-o", "measured", "--no-similarity"),
    )


def seeds() -> list[Seed]:
    """One of each format."""
    text = " ".join(map(str, NUMBERS)).encode()
    files = {
        "p.csv": CSV,
        "p.fcsv": FCSV,
        "p.mrk.json": json.dumps(MARKUPS, indent=1).encode(),
        "p.txt": LIST,
        "q.txt": OUTPUT,
        "p.geojson": json.dumps(GEOJSON, indent=1).encode(),
        "p.vtk": VTK % (b"ASCII", text),
        "q.vtk": VTK % (b"BINARY", struct.pack(">9d", *NUMBERS)),
        "p.vtp": VTP % (b"ascii", text),
        "q.vtp": VTP % (b"binary", PACKED),
    }
    return [
        Seed(name=name, data=data, arguments=commands(name), outputs=("out.csv", "out.mrk.json"))
        for name, data in files.items()
    ]


def known() -> list[Case]:
    """Wrong in ways that were thought of."""
    points = {"position": [1, 2, 3]}
    documents = {
        "number": 5, "text": "a", "list": [1], "nothing": {}, "markups": {"markups": 5}, "empty": {"markups": []},
        "control": {"markups": [{"controlPoints": 5}]}, "control texts": {"markups": [{"controlPoints": ["a"]}]},
        "place": {"markups": [{"controlPoints": [{"position": 5}]}]},
        "two": {"markups": [{"controlPoints": [points, {"position": [1, 2]}]}]},
        "words": {"markups": [{"controlPoints": [{"position": ["a", None, {}]}]}]},
        "unit": {"markups": [{"coordinateUnits": {"a": 1}, "controlPoints": [points]}]},
        "system": {"markups": [{"coordinateSystem": [1], "controlPoints": [points]}]},
    }  # fmt: skip
    files = {f"json {what}": ("p.mrk.json", json.dumps(value).encode()) for what, value in documents.items()}
    whole = json.dumps(MARKUPS).encode()
    deep = b'{"markups": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    files |= {
        "json digits": ("p.mrk.json", whole.replace(b"3.5", b"9" * 5000)),
        "json large": ("p.mrk.json", whole.replace(b"3.5", b"9" * 400)),
        "json infinity": ("p.mrk.json", whole.replace(b"3.5", b"1e999")),
        "json surrogate": ("p.mrk.json", whole.replace(b"F-1", b"\\ud800")),
        "json deep": ("p.mrk.json", deep),
        "json utf-16": ("p.mrk.json", whole.decode().encode("utf-16")),
        "csv long": ("p.csv", CSV.replace(b"b,", b"b" * 140_000 + b",")),
        "csv digits": ("p.csv", CSV.replace(b"2.5", b"9" * 5000)),
        "csv empty": ("p.csv", b""),
        "csv zero": ("p.csv", CSV.replace(b"2.5", b"\0")),
        "geojson deep": ("p.geojson", b'[{"geometry": {"coordinates": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}]"),
        "geojson large": ("p.geojson", json.dumps(GEOJSON).encode().replace(b"2.5", b"9" * 400)),
        "list many": ("p.txt", LIST.replace(b"3\n", b"9" * 5000 + b"\n", 1)),
        "list large": ("p.txt", LIST.replace(b"3.5", b"1e999")),
        "vtk count": ("p.vtk", (VTK % (b"ASCII", b"1 2 3")).replace(b"POINTS 3", b"POINTS " + b"9" * 5000)),
        "vtk many": ("p.vtk", (VTK % (b"BINARY", b"123")).replace(b"POINTS 3", b"POINTS 99999999999")),
        "vtp offset": ("p.vtp", (VTP % (b"appended", b"")).replace(b'format="', b'offset="x" format="')),
        "vtp size": ("p.vtp", VTP % (b"binary", base64.b64encode(struct.pack("<I", 1 << 31)))),
        "vtp word": ("p.vtp", (VTP % (b"ascii", b"1 2 3")).replace(b"Float64", b"a" * 140_000)),
        "vtp letters": ("p.vtp", VTP % (b"binary", b"!!!")),
    }
    return [
        Case(name=f"points/known/{what}", arguments=commands(name)[0], files={name: data}, refused=True)
        for what, (name, data) in files.items()
    ]


KIND = Kind(name="points", shared=shared, seeds=seeds, known=known, modules=("semreg.transforms.points.meshes",))
