"""Tables of pairs and of labels, and records of results, nearly right."""

from __future__ import annotations

import json

import SimpleITK as sitk

from fuzz_harness import Case
from fuzz_kinds import Kind, Seed
from fuzz_transforms import AFFINE, POINTS, image_bytes

CSV = b"name,fixed,moving,set.refine.iterations,preset,note\none,f.nii,m.nii,4,lung-ct,a\ntwo,f.nii,m.nii,,,=b\n"
TOML = (
    b'[[pair]]\nname = "one"\nfixed = "f.nii"\nmoving = "m.nii"\nfixed_landmarks = ["p.csv"]\n'
    b'moving_landmarks = ["p.csv"]\n"set.refine.iterations" = 4\n[pair.set.align]\ntransform = "none"\n'
)
NAMES = b"label,name\n1,liver\n2,\xc3\xa9tage\n"
FILE = {"path": "p.csv", "sha256": "0" * 64}
MEASURED = json.dumps({"inputs": {"transform": [FILE]}, "command": ["semreg"], "versions": {"semreg": "1"}}).encode()


def shared() -> dict[str, bytes]:
    """Labels, to be called by their names."""
    labels = sitk.Image([4, 5, 6], sitk.sitkUInt8)
    labels[1:3, 1:3, 1:3] = 1
    return {"labels.nii.gz": image_bytes(labels, "labels.nii.gz"), "affine.tfm": AFFINE.encode()}


def seeds() -> list[Seed]:
    """One of each."""
    beside = dict.fromkeys(("f.nii", "m.nii"), b"x") | {"p.csv": POINTS}
    labels = "../shared/labels.nii.gz"
    measure = ("evaluate", "../shared/affine.tfm", "--labels", labels, labels, "--names", "names.csv", "-o", "out")
    return [
        Seed(name="pairs.csv", data=CSV, arguments=(("batch", "pairs.csv", "-o", "out", "--dry-run"),), beside=beside),
        Seed(
            name="pairs.toml", data=TOML, arguments=(("batch", "pairs.toml", "-o", "out", "--dry-run"),), beside=beside
        ),
        Seed(name="names.csv", data=NAMES, arguments=((*measure, "--no-similarity"),), outputs=("out/evaluation.csv",)),
        Seed(
            name="out/record.json",
            data=MEASURED,
            arguments=(("report", "out"), ("evaluate", "out")),
            beside=beside,
            right=False,  # most of a record is missing
        ),
    ]


def known() -> list[Case]:
    """Wrong in ways that were thought of."""
    beside = dict.fromkeys(("f.nii", "m.nii"), b"x")
    digits, deep = b"9" * 5000, b"[" * 500 + b"]" * 500
    tables = {
        "digits": ("pairs.toml", TOML.replace(b"= 4", b"= " + digits)),
        "deep": ("pairs.toml", TOML.replace(b"= 4", b"= " + deep)),
        "very deep": ("pairs.toml", TOML.replace(b"= 4", b"= " + deep * 20)),
        "tables": ("pairs.toml", TOML + b"[pair" + b".a" * 500 + b"]\nb = 1\n"),
        "user": ("pairs.csv", CSV.replace(b"one,f.nii", b"one,~nouser/f.nii")),
        "long name": ("pairs.csv", CSV.replace(b"one,f.nii", b"one," + b"f" * 300)),
        "long cell": ("pairs.csv", CSV.replace(b"lung-ct", b"l" * 140_000)),
        "zero": ("pairs.toml", TOML.replace(b'"f.nii"', b'"f\\u0000"')),
        "device": ("pairs.csv", CSV.replace(b"one,f.nii", b"one,/dev/zero")),
        "one name": ("pairs.csv", "name,fixed,moving\né,f.nii,m.nii\ne\u0301,f.nii,m.nii\n".encode()),
        "setting": ("pairs.csv", CSV.replace(b",4,", b"," + digits + b",")),
        "models": ("pairs.csv", CSV.replace(b"set.refine.iterations", b"set.models." + digits + b".weight")),
    }
    cases = [
        Case(name=f"tables/known/{what}", arguments=("batch", name, "-o", "out", "--dry-run"),
             files={name: data, **beside}, refused=True)
        for what, (name, data) in tables.items()
    ]  # fmt: skip
    record = {
        "deep": b"[" * 100_000,
        "digits": b'{"a": ' + digits + b"}",
        "surrogate": b'{"a": "\\ud800"}',
        "list": b"[]",
    }
    return cases + [
        Case(name=f"tables/record/{what}", arguments=("report", "out"), files={"out/record.json": data}, refused=True)
        for what, data in record.items()
    ]


KIND = Kind(name="tables", shared=shared, seeds=seeds, known=known, modules=("semreg.batch.table", "semreg.report"))
