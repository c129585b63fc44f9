"""Images in the formats that ITK reads, nearly right, and headers that promise what is not there."""

from __future__ import annotations

import gzip
import struct
import tempfile
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
from PIL import Image

from fuzz_harness import Case
from fuzz_kinds import Kind, Seed

STAY = (
    b"#Insight Transform File V1.0\n#Transform 0\nTransform: TranslationTransform_double_3_3\nParameters: 0 0 0\n"
    b"FixedParameters:\n"
)
FLAT_STAY = STAY.replace(b"_3_3", b"_2_2").replace(b"0 0 0\n", b"0 0\n")
SIZE = (6, 5, 4)
VOXELS = np.arange(120, dtype="<i2").tobytes()
PICTURE = np.arange(30, dtype=np.uint8).reshape(5, 6)
FLAT = (".png", ".tif", ".jpg", ".bmp")
TEXTS = ("mha", "mhd", "nrrd", "nhdr", "vtk")


def shared() -> dict[str, bytes]:
    """A transform that moves nothing, in both dimensions, and an image to compare with."""
    return {"stay.tfm": STAY, "flat.tfm": FLAT_STAY, "other.nii": nifti() + VOXELS}


def commands(name: str) -> tuple[tuple[str, ...], ...]:
    """What is done with an image."""
    stay = "../shared/flat.tfm" if name.endswith(FLAT) else "../shared/stay.tfm"
    return (
        ("apply", stay, "-i", name, "-r", name, "-o", "out.nii"),
        ("apply", stay, "-i", name, "-r", name, "-o", "out.nrrd", "--interpolation", "nearest"),
        ("jacobian", stay, "-r", name, "-o", "out.nii"),
    )


def nifti(*edits: tuple[str, int, Any]) -> bytes:
    """A header of NIfTI-1 of 6 × 5 × 4 int16, with other values at some bytes: format, place, value or values."""
    header = bytearray(352)
    first: tuple[tuple[str, int, Any], ...] = (
        ("i", 0, 348), ("8h", 40, (3, *SIZE, 1, 1, 1, 1)), ("2h", 70, (4, 16)), ("8f", 76, (1, 1, 1.5, 2, 0, 0, 0, 0)),
        ("f", 108, 352.0), ("B", 123, 2), ("2h", 252, (0, 1)), ("4f", 280, (-1, 0, 0, 3)), ("4f", 296, (0, -1.5, 0, 4)),
        ("4f", 312, (0, 0, 2, 5)), ("4s", 344, b"n+1\0"),
    )  # fmt: skip
    for kind, place, value in (*first, *edits):
        struct.pack_into(f"<{kind}", header, place, *(value if isinstance(value, tuple) else (value,)))
    return bytes(header)


def meta(voxels: bytes = VOXELS, **fields: str) -> bytes:
    """A MetaImage with other values of some fields; an empty one is left out."""
    told = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "3 4 5",
        "ElementSpacing": "1 1.5 2", "DimSize": "6 5 4", "ElementType": "MET_SHORT",
    } | fields  # fmt: skip
    where = told.pop("ElementDataFile", "LOCAL")
    lines = [f"{key} = {value}" for key, value in told.items()]
    return "\n".join([*lines, f"ElementDataFile = {where}"]).encode() + b"\n" + voxels


def nrrd(voxels: bytes = VOXELS, more: str = "", **fields: str) -> bytes:
    """A NRRD file with other values of some fields."""
    told = {
        "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "6 5 4",
        "space_directions": "(1,0,0) (0,1.5,0) (0,0,2)", "endian": "little", "encoding": "raw",
        "space_origin": "(3,4,5)",
    } | fields  # fmt: skip
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in told.items()]
    return "\n".join(["NRRD0005", *lines]).encode() + b"\n" + more.encode() + b"\n" + voxels


def png(size: tuple[int, int], rows: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG file whose header promises a size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(pages_end: int = 0, **tags: int) -> bytes:
    """A TIFF file of 6 × 5 bytes with other values of some tags; ``pages_end``: where the next page would be."""
    told = {"256": 6, "257": 5, "258": 8, "259": 1, "262": 1, "273": 8, "277": 1, "278": 5, "279": 30} | {
        key.lstrip("t"): value for key, value in tags.items()
    }
    entries = b"".join(struct.pack("<HHII", int(tag), 4, 1, value) for tag, value in sorted(told.items()))
    start = 8 + 30
    directory = struct.pack("<H", len(told)) + entries + struct.pack("<I", pages_end)
    return b"II*\0" + struct.pack("<I", start) + PICTURE.tobytes() + directory


@cache
def files_of(ending: str) -> dict[str, bytes]:
    """The files that SimpleITK, or pillow for pictures, writes of one image."""
    with tempfile.TemporaryDirectory() as folder:
        name = Path(folder) / f"a.{ending}"
        if f".{ending}" in FLAT:
            Image.fromarray(PICTURE).save(name)
        else:
            image = sitk.GetImageFromArray(np.frombuffer(VOXELS, "<i2").reshape(SIZE[::-1]))
            image.SetSpacing((1, 1.5, 2))
            sitk.WriteImage(image, str(name))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def seeds() -> list[Seed]:
    """One of each format."""
    packed, outputs = zlib.compress(VOXELS), ("out.nii", "out.nrrd")
    whole = {
        "a.nii": nifti() + VOXELS, "b.nii": nifti(("2h", 70, (16, 32))) + np.arange(120, dtype="<f4").tobytes(),
        "a.nii.gz": gzip.compress(nifti() + VOXELS, mtime=0), "a.mha": meta(), "a.nrrd": nrrd(),
        "b.mha": meta(packed, CompressedData="True", CompressedDataSize=str(len(packed))),
        "b.nrrd": nrrd(gzip.compress(VOXELS, mtime=0), encoding="gzip"), "a.tif": tiff(),
    }  # fmt: skip
    found = [
        Seed(name=name, data=data, arguments=commands(name), outputs=outputs, text=name.rpartition(".")[2] in TEXTS)
        for name, data in whole.items()
    ]
    for ending in ("mhd", "nhdr", "hdr", "vtk", "gipl", "png", "jpg", "bmp"):
        beside = dict(files_of(ending))
        data = beside.pop(f"a.{ending}")
        name, text = f"a.{ending}", ending in TEXTS
        found.append(Seed(name=name, data=data, arguments=commands(name), outputs=outputs, beside=beside, text=text))
    for name, (data, beside) in of_nibabel().items():
        text = name.endswith((".HEAD", ".PAR"))
        found.append(Seed(name=name, data=data, arguments=commands(name), outputs=outputs, beside=beside, text=text))
    return found


@cache
def of_nibabel() -> dict[str, tuple[bytes, dict[str, bytes]]]:
    """Files that nibabel writes or comes with, small ones, and what lies beside them."""
    array = np.frombuffer(VOXELS, "<i2").reshape(SIZE)
    found = {
        name: (kind(array, np.diag([1, 1.5, 2, 1])).to_bytes(), {})
        for name, kind in (("n.nii", nibabel.Nifti2Image), ("a.mgh", nibabel.MGHImage))
    }
    found["a.mgz"] = (gzip.compress(found["a.mgh"][0], mtime=0), {})
    samples = Path(nibabel.__file__).parent / "tests" / "data"
    for name in ("tiny.mnc", "minc2_1_scale.mnc"):
        found[name] = ((samples / name).read_bytes(), {})
    for header, voxels in (("scaled+tlrc.HEAD", "scaled+tlrc.BRIK"),):
        found[header] = ((samples / header).read_bytes(), {voxels: (samples / voxels).read_bytes()})
    return found


def refused() -> dict[str, bytes]:
    """Files that nothing but a sentence is right for, by names whose last word is that of the file."""
    huge, bomb = ("8h", 40, (3, 30000, 30000, 30000, 1, 1, 1, 1)), "100000 100000 1000"
    rows = b"".join(b"\0" + row.tobytes() for row in PICTURE)
    packed = gzip.compress(nifti() + bytes(200_000), mtime=0)
    nan, jpeg, bmp = float("nan"), files_of("jpg")["a.jpg"], files_of("bmp")["a.bmp"]
    at = jpeg.find(b"\xff\xc0") + 5
    niftis = {
        "bomb": (huge,), "axes 0": (("h", 40, 0),), "axes 9": (("h", 40, 9),), "axes -3": (("h", 40, -3),),
        "size 0": (("h", 42, 0),), "size -6": (("h", 42, -6),), "start nan": (("f", 108, nan),),
        "start 1e30": (("f", 108, 1e30),), "start -400": (("f", 108, -400.0),), "start 0": (("f", 108, 0.0),),
        "start 10": (("f", 108, 10.0),), "start inf": (("f", 108, np.inf),), "place nan": (("f", 280, nan),),
        "place 0": (("12f", 280, (0.0,) * 12),), "place 1e30": (("f", 280, 1e30),),
        "place 1e38": (("12f", 280, (1e38,) * 12),),
        "spacing 0": (("f", 80, 0.0),), "spacing nan": (("f", 80, nan),), "type 0": (("h", 70, 0),),
        "type 77": (("h", 70, 77),), "float 128": (("2h", 70, (1536, 128)),),
    }  # fmt: skip
    metas = {
        **{f"axes {n}": {"NDims": n} for n in ("-1", "0", "1", "11", "100000", "abc", "")}, "bomb": {"DimSize": bomb},
        "overflow": {"DimSize": "4294967296 4294967296 4"}, "negative": {"DimSize": "-6 5 4"},
        "zero": {"DimSize": "0 5 4"},
        "few": {"DimSize": "6 5"}, "parts": {"DimSize": "6.5 5 4"}, "spacing 0": {"ElementSpacing": "0 1 1"},
        "spacing nan": {"ElementSpacing": "nan 1 1"}, "spacing 1e300": {"ElementSpacing": "1e300 1 1"},
        "spacing 1e-300": {"ElementSpacing": "1e-300 1 1"}, "spacings": {"ElementSpacing": "1"},
        "list": {"ElementDataFile": "LIST"}, "lists": {"ElementDataFile": "LIST 2"},
        **{f"voxels {n}": {"ElementDataFile": n} for n in ("/dev/zero", "/dev/urandom", "/etc/passwd",
        "../shared/stay.tfm")},
        **{f"no voxels {n}": {"ElementDataFile": n} for n in ("gone.raw", ".", "", "s%03d.raw 1 4 1", "%s",
        "%n%n.raw 1 4 1")},
        "type": {"ElementType": "MET_FOO"}, "no type": {"ElementType": "MET_NONE"},
        "channels": {"ElementNumberOfChannels": "100000000"}, "no channels": {"ElementNumberOfChannels": "0"},
        "packed": {"CompressedData": "True", "CompressedDataSize": "99999999999"}, "written": {"BinaryData": "False"},
        "header": {"HeaderSize": "999999999"},
    }  # fmt: skip
    nrrds = {
        "bomb": {"sizes": bomb}, "overflow": {"sizes": "4294967296 4294967296 4"}, "negative": {"sizes": "-6 5 4"},
        "zero": {"sizes": "0 5 4"}, "axes 0": {"dimension": "0"}, "axes 20": {"dimension": "20"},
        "type": {"type": "foo"},
        "block": {"type": "block"}, "encoding": {"encoding": "foo"}, "space": {"space": "foo"},
        "flat": {"space_directions": "(1,0,0) (1,0,0) (0,0,1)"},
        "nan": {"space_directions": "(nan,0,0) (0,1,0) (0,0,1)"},
        "hex": {"encoding": "hex"}, "packed bomb": {"encoding": "gzip", "sizes": "30000 30000 10000"},
        **{f"voxels {n}": {"data_file": n} for n in ("/dev/zero", "/etc/passwd", "gone.raw", "LIST",
        "s%d.raw 1 9999999 1")},
    }  # fmt: skip
    whole = {"nii": nifti() + VOXELS, "nii.gz": packed, "mha": meta(), "nrrd": nrrd(), "png": png((6, 5), rows)}
    return {
        **{f"{what}.nii": nifti(*edits) + VOXELS for what, edits in niftis.items()},
        **{f"{what}.mha": meta(**fields) for what, fields in metas.items()},
        **{f"{what}.nrrd": nrrd(**fields) for what, fields in nrrds.items()},
        **{f"half.{ending}": data[: len(data) * 2 // 3] for ending, data in whole.items()},
        **{f"half.{n}": d[f"a.{n}"][: len(d[f"a.{n}"]) * 2 // 3] for n in ("vtk", "gipl", "tif")
        for d in [files_of(n)]},
        **{f"{what}.{n}": b"hello world" * n_times for n in (*whole, "vtk", "tif", "jpg", "bmp", "gipl", "mnc", "h5",
        "xyz")
           for what, n_times in (("words", 99), ("empty", 0))},
        "packed bomb.nii.gz": gzip.compress(nifti(huge) + VOXELS),
        "short.nii.gz": gzip.compress((nifti() + VOXELS)[:450]),
        "end gone.nii.gz": packed[:-4], "start only.nii.gz": packed[:20], "bomb.png": png((60000, 60000), rows),
        "no width.png": png((0, 5), rows), "wide.png": png((2**32 - 1, 2**32 - 1), rows),
        "bits.png": png((6, 5), rows, 7),
        "no colours.png": png((6, 5), rows, colour=3), "short.png": png((60, 50), rows),
        "bomb.tif": tiff(t256=60000, t257=60000), "rows.tif": tiff(t257=4_000_000_000), "wide.tif": tiff(t256=60000),
        "loop.tif": tiff(pages_end=38), "bits.tif": tiff(t258=64), "packed.tif": tiff(t259=99),
        "no width.tif": tiff(t256=0),
        "gone.tif": tiff(t273=2**32 - 16), "bomb.jpg": jpeg[:at] + struct.pack(">HH", 60000, 60000) + jpeg[at + 4 :],
        "half.jpg": jpeg[: len(jpeg) // 3], "bomb.bmp": bmp[:18] + struct.pack("<ii", 60000, 60000) + bmp[26:],
        "negative.bmp": bmp[:18] + struct.pack("<i", -6) + bmp[22:],
        "gone.bmp": bmp[:10] + b"\xf0\xff\xff\xff" + bmp[14:],
        "bomb.vtk": b"# vtk DataFile Version 3.0\nx\nBINARY\nDATASET STRUCTURED_POINTS\nDIMENSIONS 100000 100000 1000\n"
        b"SPACING 1 1 1\nORIGIN 0 0 0\nPOINT_DATA 120\nSCALARS s short 1\nLOOKUP_TABLE default\n" + VOXELS,
        "packed end.mha": meta(zlib.compress(VOXELS)[:40], CompressedData="True", CompressedDataSize="80"),
        "packed bomb.mha": meta(zlib.compress(VOXELS), CompressedData="True", DimSize="20000 20000 100"),
        "packed end.nrrd": nrrd(gzip.compress(VOXELS)[:-30], encoding="gzip"), "head.nrrd": b"NRRD0005\n",
    }  # fmt: skip


def accepted() -> Mapping[str, bytes]:
    """Files that are odd and yet have one right reading."""
    return {
        "plain.nii.gz": nifti() + VOXELS, "packed.nii": gzip.compress(nifti() + VOXELS), "large.NII": nifti() + VOXELS,
        "slope.nii": nifti(("f", 112, float("nan"))) + VOXELS,
        "no fourth size.nii": nifti(("h", 40, 4), ("h", 48, 0)) + VOXELS,
        "bits.nii": nifti(("h", 72, 0)) + VOXELS, "back.nii": nifti(("f", 80, -1.0)) + VOXELS,
        "last bytes.mha": meta(HeaderSize="-1"),
        "long.nrrd": nrrd(more="key:=" + "x" * 2_000_000 + "\n"),
    }  # fmt: skip


def known() -> list[Case]:
    """Each of these files through a command."""
    cases = []
    for right, files in ((False, refused()), (True, accepted())):
        for number, (what, data) in enumerate(files.items()):
            name = what.replace(" ", "_").replace("/", "-")
            arguments = commands(name)[2 if "bomb" in what and number % 2 else 0]
            outputs = (arguments[-1],) if right else ()
            case = Case(
                name=f"images/known/{name}", arguments=arguments, files={name: data}, outputs=outputs, refused=not right
            )
            cases.append(case)
    return cases


KIND = Kind(name="images", shared=shared, seeds=seeds, known=known, modules=("semreg.io.dicom", "semreg.transforms"))
