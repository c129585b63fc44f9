"""Promises of ``--private``: no file that is written says where, by whom and of whose files it was made."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from blobs import blobs
from conftest import grid_at, rotation
from dicom_files import pixel_tags, slice_tags, write_dicom
from secrets_in import SECRET, secrets_in
from semreg.io.files import write_image
from semreg.quality import read_result
from semreg.runtime.texts import without
from small_networks import Small, save

FIXED = grid_at((3.0, -7.0, 11.0), (19, 17, 14), (1.9, 2.1, 2.8), rotation(3))
QUICK = ("--align", "none", "--set", "refine.iterations=3", "--set", "refine.symmetric=false", "-q")


@pytest.fixture
def files(tmp_path):
    """A folder whose name is a secret, with a series of DICOM, an image, a mask, a network and points."""
    folder = tmp_path / SECRET
    (folder / f"{SECRET}-scan").mkdir(parents=True)
    across, down, step = (np.asarray(FIXED.direction)[:, axis] for axis in range(3))
    for number, pixels in enumerate(blobs(FIXED).data[0].numpy().astype(np.int16)):
        position = np.asarray(FIXED.origin_xyz) + number * FIXED.spacing_xyz[2] * step
        tags = slice_tags("1.2.3.1", number + 1, position, [*across, *down], FIXED.spacing_xyz[:2])
        path = folder / f"{SECRET}-scan" / f"{SECRET}{number:02d}.dcm"
        write_dicom(path, {**tags, **pixel_tags(pixels), 0x0008103E: ("LO", SECRET)})
    write_image(blobs(FIXED, (2.0, -1.5, 1.0)), folder / f"{SECRET}.nii.gz", "int16")
    write_image(blobs(FIXED), folder / "mask.nrrd", "uint8")
    save(Small(), folder / f"{SECRET}.pt")
    (folder / "points.csv").write_text("x,y,z\n3,-7,11\n5,-7,9\n", encoding="utf-8")
    return folder


def test_no_file_of_a_private_run_names_anything(run, files, tmp_path):
    """Record, settings, page and figures of register, evaluate and report; evaluate and report keep to it unasked."""
    out, scan, moving = tmp_path / "out", files / f"{SECRET}-scan", files / f"{SECRET}.nii.gz"
    pair = ("register", scan, moving, "--fixed-mask", files / "mask.nrrd", "--fixed-series", SECRET)
    network = ("--model", files / f"{SECRET}.pt", "--model", "mind")
    code, said, err = run(
        *pair, "-o", out, *network, *QUICK[:-1], "--private", "--inverse", "--figures", "--json", "--format", "nii.gz"
    )
    assert code == 0, err
    record = json.loads(said)
    assert SECRET not in said
    assert record["command"] == []
    assert record["inputs"]["fixed"]["path"] == record["inputs"]["fixed"]["sha256"][:12]
    assert record["settings"]["models"][0]["model"] == record["models"][0]["sha256"][:12]
    assert secrets_in(out) == {}
    code, _, err = run("evaluate", out, "-q")
    assert code == 2
    assert "expected --fixed, got none" in err
    points = ("--fixed-landmarks", files / "points.csv", "--moving-landmarks", files / "points.csv")
    given = ("--fixed", scan, "--moving", moving)
    code, _, err = run(
        "evaluate", out, *given, "--mask", files / "mask.nrrd", "--fixed-series", SECRET, *points, "--figures", "-q"
    )
    assert code == 0, err
    assert read_result(out).evaluation.private
    assert secrets_in(out) == {}
    assert run("report", out, *given, "--figures", "-q")[0] == 0
    assert secrets_in(out) == {}


def test_what_a_network_writes_can_be_private(run, files, tmp_path):
    """The record of ``features``, and that which ``infer`` prints, name neither image, mask nor network."""
    given = (files / f"{SECRET}.nii.gz", "--model", files / f"{SECRET}.pt", "--private")
    code, _, err = run("features", *given, "-o", tmp_path / "out", "--mask", files / "mask.nrrd", "-q")
    assert code == 0, err
    assert secrets_in(tmp_path / "out") == {}
    record = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    assert record["model"]["name"] == record["model"]["path"] == record["model"]["sha256"][:12]
    code, said, _ = run("infer", *given, "-o", tmp_path / "out.nii.gz", "--json")
    assert (code, SECRET in said) == (0, False)


def test_a_page_can_be_private_when_the_record_is_not(run, files, tmp_path):
    """``align`` and ``report`` know the flag too; a page made with it names nothing, though the record does."""
    moving, out = files / f"{SECRET}.nii.gz", tmp_path / "out"
    assert run("align", moving, moving, "-o", out, "--transform", "none", "-q", "--private")[0] == 0
    assert secrets_in(out) == {}
    shutil.rmtree(out)
    assert run("align", moving, moving, "-o", out, "--transform", "none", "-q")[0] == 0
    page = tmp_path / "page" / "report.html"
    page.parent.mkdir()
    assert run("report", out, "-o", page, "--private", "-q")[0] == 0
    assert list(secrets_in(out)) == ["record.json"]
    assert secrets_in(page.parent) == {}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/a/b/c.nii: damaged", "fixed: damaged"),
        ("see /a/b/c.nii/IM 1 and /a/b", "see fixed 1 and out"),
        ("/a/b/log, /a/bc/d and x/a/b", "out, /a/bc/d and x/a/b"),
        ("bob@host: bobby", "me@host: bobby"),
    ],
)
def test_names_are_replaced_whole(text, shown):
    """The longest name first; of a path what follows too; never a part of a word."""
    assert without(text, {"/a/b": "out", "/a/b/c.nii": "fixed", "bob": "me"}) == shown
