"""Transforms of ITK, elastix and images of displacements, nearly right."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from fuzz_harness import Case
from fuzz_kinds import Kind, Seed
from semreg.io.files import write_sitk_transform

POINTS = b"x,y,z,name\n1.5,2.5,3.5,a\n2,3,4,b\n100,-50,20,c\n"
HEAD = "#Insight Transform File V1.0\n#Transform 0\n"
EULER = f"{HEAD}Transform: Euler3DTransform_double_3_3\nParameters: 0.1 -0.2 0.3 1 2 3\nFixedParameters: 4 5 6 0\n"
AFFINE = (
    f"{HEAD}Transform: AffineTransform_double_3_3\n"
    "Parameters: 1.1 0 0.1 0 0.9 0 0 0.05 1 1 2 3\nFixedParameters: 4 5 6\n"
)
ELASTIX = """(Transform "AffineTransform")
(NumberOfParameters 12)
(TransformParameters 1.1 0 0.1 0 0.9 0 0 0.05 1 1 2 3)
(InitialTransformParameterFileName "NoInitialTransform")
(HowToCombineTransforms "Compose")
(FixedImageDimension 3)
(MovingImageDimension 3)
(Size 6 7 8)
(Index 0 0 0)
(Spacing 1 1 1)
(Origin 0 0 0)
(Direction 1 0 0 0 1 0 0 0 1)
(CenterOfRotationPoint 0 0 0)
"""
ELASTIX_CHAIN = ELASTIX.replace("NoInitialTransform", "first.txt")
ELASTIX_SPLINE = """(Transform "BSplineTransform")
(NumberOfParameters 50)
(TransformParameters {})
(InitialTransformParameterFileName "NoInitialTransform")
(HowToCombineTransforms "Compose")
(FixedImageDimension 2)
(GridSize 5 5)
(GridIndex 0 0)
(GridSpacing 4 4)
(GridOrigin -4 -4)
(GridDirection 1 0 0 1)
(BSplineTransformSplineOrder 3)
(UseCyclicTransform "false")
""".format(" ".join(f"{n % 7 / 10}" for n in range(50)))


@cache
def _field(dimension: int = 3) -> sitk.Image:
    size = (6, 5, 4)[:dimension]
    values = np.linspace(-1, 1, int(np.prod(size)) * dimension).reshape(*size[::-1], dimension)
    image = sitk.GetImageFromArray(values, isVector=True)
    image.SetSpacing((1.5, 2.0, 2.5)[:dimension])
    return image


def _spline(dimension: int = 3) -> sitk.BSplineTransform:
    spline = sitk.BSplineTransformInitializer(sitk.Image([8] * dimension, sitk.sitkFloat32), [2] * dimension, 3)
    spline.SetParameters([n % 5 / 10 for n in range(len(spline.GetParameters()))])
    return spline


def _written(name: str, write: Callable[[str], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(str(Path(folder) / name))
        return (Path(folder) / name).read_bytes()


def _stored(transform: sitk.Transform, name: str) -> bytes:
    def write(path: str) -> None:
        if name.endswith(".h5"):
            write_sitk_transform(transform, path)
        else:
            sitk.WriteTransform(transform, path)

    return _written(name, write)


def image_bytes(image: sitk.Image, name: str) -> bytes:
    """An image as the bytes of a file of this name."""
    return _written(name, lambda path: sitk.WriteImage(image, path))


@cache
def _transforms() -> dict[str, sitk.Transform]:
    affine = sitk.AffineTransform(3)
    affine.SetParameters([1.1, 0, 0.1, 0, 0.9, 0, 0, 0.05, 1, 1, 2, 3])
    moved = sitk.DisplacementFieldTransform(sitk.Image(_field()))
    return {
        "affine": affine,
        "spline": _spline(),
        "field": moved,
        "composite": sitk.CompositeTransform([affine, sitk.Euler3DTransform((1, 2, 3), 0.1, 0.2, 0.3)]),
        "both": sitk.CompositeTransform([affine, moved]),
        "similarity": sitk.Similarity3DTransform(1.2, (0, 0, 1), 0.3, (1, 2, 3)),
        "skew": sitk.ScaleSkewVersor3DTransform(),
        "flat": sitk.Euler2DTransform((1, 2), 0.3),
    }


def shared() -> dict[str, bytes]:
    """Points and a grid to apply transforms to."""
    return {"points.csv": POINTS, "grid.nii.gz": image_bytes(sitk.Image([4, 5, 6], sitk.sitkFloat32), "grid.nii.gz")}


def commands(name: str, kind: str = "tfm") -> tuple[tuple[str, ...], ...]:
    """What is done with a transform."""
    grid = "../shared/grid.nii.gz"
    return (
        ("apply", name, "-i", "../shared/points.csv", "-o", "moved.csv"),
        ("convert", name, f"out.{kind}"),
        ("apply", name, "-i", grid, "-o", "moved.nii.gz", "-r", grid),
        ("apply", name, "-i", "../shared/points.csv", "-o", "moved.csv", "--inverse"),
        ("convert", name, "TransformParameters.0.txt", "-r", grid),
    )


def seeds() -> list[Seed]:
    """One of each kind of file."""
    outputs = ("moved.csv", "out.tfm", "TransformParameters.0.txt")
    found = [
        Seed(name=name, data=data.encode(), arguments=commands(name), outputs=outputs, beside=beside)
        for name, data, beside in (
            ("euler.tfm", EULER, None),
            ("affine.txt", AFFINE, None),
            ("elastix.txt", ELASTIX, None),
            ("chain.txt", ELASTIX_CHAIN, {"first.txt": ELASTIX.encode()}),
        )
    ]
    flat = {"flat.csv": b"x,y\n1.5,2.5\n2,3\n"}
    flatly = ("apply", "flat.txt", "-i", "flat.csv", "-o", "moved.csv"), ("convert", "flat.txt", "out.tfm")
    found.append(Seed(name="flat.txt", data=ELASTIX_SPLINE.encode(), arguments=flatly, outputs=outputs, beside=flat))
    for kind, ending in (
        ("spline", "tfm"), ("field", "tfm"), ("composite", "tfm"), ("both", "h5"), ("affine", "h5"), ("spline", "h5"),
        ("composite", "h5"), ("similarity", "tfm"), ("skew", "tfm"), ("affine", "mat"), ("similarity", "mat"),
    ):  # fmt: skip
        name, text = f"{kind}.{ending}", ending == "tfm"
        data = _stored(_transforms()[kind], name)
        found.append(Seed(name=name, data=data, arguments=commands(name), outputs=outputs, text=text))
    for ending in ("nii", "mha", "nrrd"):
        name = f"field.{ending}"
        data = image_bytes(_field(), name)
        found.append(Seed(name=name, data=data, arguments=commands(name), outputs=outputs, text=ending != "nii"))
    return found


def _text(kind: str, parameters: str, fixed: str, name: str = "a.tfm") -> tuple[str, bytes]:
    return name, f"{HEAD}Transform: {kind}\nParameters: {parameters}\nFixedParameters: {fixed}\n".encode()


def known() -> list[Case]:
    """Files that are wrong in ways which were thought of, each to be refused."""
    one, ident = " ".join(["0"] * 50), "1 0 0 0 1 0 0 0 1"
    affine, euler, spline = "AffineTransform_double_3_3", "Euler3DTransform_double_3_3", "BSplineTransform_double_3_3"
    field = "DisplacementFieldTransform_double_3_3"
    good = "1 0 0 0 1 0 0 0 1 1 2 3"
    texts = {
        "letters": _text(affine, "a b c", "0 0 0"),
        "nan": _text(affine, "nan 0 0 0 1 0 0 0 1 0 0 0", "0 0 0"),
        "inf": _text(affine, "1 0 0 0 1 0 0 0 1 inf 0 0", "0 0 0"),
        "too large": _text(affine, "1e999 0 0 0 1 0 0 0 1 0 0 0", "0 0 0"),
        "no parameters": _text(affine, "", "0 0 0"),
        "nothing": _text(affine, "", ""),
        "fixed nan": _text(affine, good, "nan 0 0"),
        "fixed missing": _text(affine, good, "0"),
        "fixed more": _text(affine, good, "0 0 0 0 0"),
        "commas": _text(affine, good.replace(" ", " 0,5 ", 1).replace("0 0,5", "0,5"), "0 0 0"),
        "two parameters": _text(euler, "0 0", "0 0 0 0"),
        "many parameters": _text(euler, one, "0 0 0 0"),
        "euler fixed": _text(euler, "0 0 0 0 0 0", "0 0"),
        "unknown": _text("MagicTransform_double_3_3", "0 0 0", "0 0 0"),
        "no name": _text("", "0 0 0", ""),
        "four": _text("AffineTransform_double_4_4", one, "0 0 0 0"),
        "twelve": _text("AffineTransform_double_12_12", one, "0 0 0 0"),
        "mixed": _text("AffineTransform_double_2_3", good, "0 0 0"),
        "half": _text("AffineTransform_half_3_3", good, "0 0 0"),
        "huge grid": _text(spline, "0", f"100000 100000 100000 0 0 0 1 1 1 {ident}"),
        "grid of letters": _text(spline, "0", f"a b c 0 0 0 1 1 1 {ident}"),
        "negative grid": _text(spline, "0", f"-4 -4 -4 0 0 0 1 1 1 {ident}"),
        "small grid": _text(spline, "0", f"1 1 1 0 0 0 1 1 1 {ident}"),
        "empty grid": _text(spline, "", f"0 0 0 0 0 0 1 1 1 {ident}"),
        "split grid": _text(spline, one, f"4.5 4 4 0 0 0 1 1 1 {ident}"),
        "no grid": _text(spline, one, ""),
        "flat axes": _text(spline, " ".join(["0"] * 192), "4 4 4 0 0 0 1 1 1 0 0 0 0 0 0 0 0 0"),
        "no spacing": _text(spline, " ".join(["0"] * 192), f"4 4 4 0 0 0 0 0 0 {ident}"),
        "field of nothing": _text(field, "", f"0 0 0 0 0 0 1 1 1 {ident}"),
        "field without values": _text(field, "", f"4 4 4 0 0 0 1 1 1 {ident}"),
        "huge field": _text(field, "0 0 0", f"100000 100000 100000 0 0 0 1 1 1 {ident}"),
        "field no spacing": _text(field, "0 0 0", f"1 1 1 0 0 0 0 0 0 {ident}"),
        "flat versor": _text("VersorRigid3DTransform_double_3_3", "5 5 5 0 0 0", "0 0 0"),
        "no scale": _text("Similarity3DTransform_double_3_3", "0 0 0 0 0 0 nan", "0 0 0"),
        "translation": _text("TranslationTransform_double_3_3", "1", ""),
        "quaternion": _text("QuaternionRigidTransform_double_3_3", "0 0", "0 0 0"),
        "thin plate": _text("ThinPlateSplineKernelTransform_double_3_3", "0 0", "0 0 0 1"),
        "spline of thin plates": _text("ThinPlateSplineKernelTransform_double_3_3", "0 0 0", ""),
        "composite alone": _text("CompositeTransform_double_3_3", "", ""),
        "order": ("a.tfm", f"{HEAD}FixedParameters: 0 0 0\nParameters: {good}\nTransform: {affine}\n".encode()),
        "twice": ("a.tfm", f"{AFFINE}Parameters: 1 2\n".encode()),
        "only a head": ("a.tfm", HEAD.encode()),
        "empty": ("a.tfm", b""),
        "blank lines": ("a.tfm", b"\n" * 100_000),
        "wide": ("a.tfm", AFFINE.encode("utf-16")),
        "zeros": ("a.tfm", bytes(1000)),
        "empty matrix": ("a.mat", b""),
        "short matrix": ("a.mat", _stored(_transforms()["affine"], "a.mat")[:60]),
        "matrix of zeros": ("a.mat", bytes(300)),
        "empty h5": ("a.h5", b""),
        "short h5": ("a.h5", _stored(_transforms()["affine"], "a.h5")[:1000]),
        "only a signature": ("a.h5", b"\x89HDF\r\n\x1a\n"),
    }
    cases = [
        Case(
            name=f"transforms/known/{what}/{number}",
            arguments=commands(name)[number],
            files={name: data},
            outputs=(("moved.csv",), ("out.tfm",))[number],
            refused=True,
        )
        for what, (name, data) in texts.items()
        for number in (0, 1)
    ]
    return cases + _elastix()


def _elastix() -> list[Case]:
    """Parameter files of elastix that are wrong."""
    long = "n" * 300
    swaps = {
        "cycle": ('"NoInitialTransform"', '"a.txt"'),
        "missing": ('"NoInitialTransform"', '"none.txt"'),
        "long name": ('"NoInitialTransform"', f'"{long}"'),
        "device": ('"NoInitialTransform"', '"/dev/zero"'),
        "folder": ('"NoInitialTransform"', '"."'),
        "zero byte": ('"NoInitialTransform"', '"a\0b"'),
        "no dimension": ("(FixedImageDimension 3)\n", ""),
        "dimension": ("(FixedImageDimension 3)", "(FixedImageDimension 1e9)"),
        "part of a dimension": ("(FixedImageDimension 3)", "(FixedImageDimension 3.7)"),
        "no kind": ('"AffineTransform"', '"MagicTransform"'),
        "transform in a file": ('(Transform "AffineTransform")', '(Transform "File")'),
        "few": ("1.1 0 0.1 ", ""),
        "nan": ("1.1 0 0.1", "nan 0 0.1"),
    }
    spline = {
        "order": ("(BSplineTransformSplineOrder 3)", "(BSplineTransformSplineOrder three)"),
        "order of nan": ("(BSplineTransformSplineOrder 3)", "(BSplineTransformSplineOrder nan)"),
        "axes": ("(GridDirection 1 0 0 1)", "(GridDirection 0 0 0 0)"),
        "spacing": ("(GridSpacing 4 4)", "(GridSpacing 0 0)"),
        "grid": ("(GridSize 5 5)", "(GridSize 100000 100000)"),
        "half a grid": ("(GridSize 5 5)", "(GridSize 5.5 5)"),
        "no grid": ("(GridSize 5 5)\n", ""),
    }
    cases = []
    for whole, changes in ((ELASTIX, swaps), (ELASTIX_SPLINE, spline)):
        for what, (old, new) in changes.items():
            files = {"a.txt": whole.replace(old, new).encode(), "flat.csv": b"x,y\n1,2\n"}
            points = "../shared/points.csv" if whole == ELASTIX else "flat.csv"
            arguments = ("apply", "a.txt", "-i", points, "-o", "moved.csv")
            cases.append(Case(name=f"transforms/elastix/{what}", arguments=arguments, files=files, refused=True))
    return cases


KIND = Kind(name="transforms", shared=shared, seeds=seeds, known=known, modules=("scipy.io", "semreg.transforms.chain"))
