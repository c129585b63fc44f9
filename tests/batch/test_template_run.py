"""Promises of ``semreg template``: files for each image, and a run that was killed goes on where it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from cohort_bodies import make_cohort
from conftest import eventually
from semreg import RegistrationConfig, write_image
from semreg.batch.template import names_of
from semreg.config import AlignConfig, RefineConfig
from semreg.io.files import read_image
from semreg.registration.template import TemplateOptions, build_template

QUICK = ("--align", "none", "--set", "refine.iterations=4", "--set", "refine.levels=1", "--threads", "1")
SAME = RegistrationConfig(align=AlignConfig(transform="none"), refine=RefineConfig(iterations=4, levels=1))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two images of one body, in files."""
    folder = tmp_path_factory.mktemp("bodies")
    for number, image in enumerate(make_cohort(2, size=32).images):
        write_image(image, folder / f"body{number}.nii.gz")
    return [folder / "body0.nii.gz", folder / "body1.nii.gz"]


def when_written(folder: Path) -> dict[str, int]:
    """When each record of a registration was written, in ns."""
    return {str(path.parent.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("record.json")}


def test_a_killed_run_goes_on_and_gives_the_same_template(run, files, tmp_path):
    """Killed in its round, it repeats nothing that was done; what comes out is that of ``build_template``."""
    out = tmp_path / "out"
    words = ["template", *map(str, files), "-o", str(out), "--rounds", "1", *QUICK]
    process = subprocess.Popen([sys.executable, "-m", "semreg", *words], stderr=subprocess.PIPE, start_new_session=True)
    try:
        eventually(lambda: (out / "rounds" / "1" / "body0" / "done.json").exists() or process.poll() is not None)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    done = when_written(out)
    assert set(done) == {"start/body1", "rounds/1/body0"}
    assert not (out / "template.json").exists()

    code, said, err = run(*words)
    assert code == 0, err
    assert "body0: done before" in err
    assert "mean displacement" in said
    after = when_written(out)
    assert set(after) == {*done, "rounds/1/body1", "images/body0", "images/body1"}
    assert all(after[name] == done[name] for name in done)

    record = json.loads((out / "template.json").read_text(encoding="utf-8"))
    assert record["names"] == ["body0", "body1"]
    assert [each["number"] for each in record["rounds"]] == [1, 2]
    for name in record["names"]:
        written = {path.name for path in (out / "images" / name).iterdir()}
        assert {"transform.h5", "inverse.h5", "warped.nii.gz", "report.html", "record.json"} <= written
    assert {"index.html", "cohort.csv"} <= {path.name for path in (out / "images").iterdir()}

    here = build_template(files, options=TemplateOptions(rounds=1), config=SAME)
    there = read_image(out / "template.nii.gz").volume
    assert there.grid.size_xyz == here.image.grid.size_xyz
    spread = float(here.image.data.std())
    assert float((there.data - here.image.data).abs().mean()) < 0.01 * spread
    warped = sitk.ReadImage(str(out / "images" / "body1" / "warped.nii.gz"), sitk.sitkFloat32)
    np.testing.assert_allclose(warped.GetOrigin(), there.grid.origin_xyz, atol=1e-4)
    found = read_image(out / "images" / "body1" / "warped.nii.gz").volume
    assert float((found.data - there.data).abs().mean()) < 0.5 * spread

    before = (out / "template.nii.gz").read_bytes()
    code, _, err = run(*words)
    assert code == 0, err
    assert when_written(out) == after
    assert (out / "template.nii.gz").read_bytes() == before


def test_what_cannot_become_a_template_is_said(run, files, tmp_path):
    """In a sentence, before anything is written."""
    out = tmp_path / "out"
    code, _, err = run("template", files[0], "-o", out)
    assert code == 2
    assert "two images or more for a template, got 1" in err
    code, _, err = run("template", files[0], files[0], "-o", out)
    assert code == 2
    assert "each image once" in err
    code, _, err = run("template", *files, "--start", tmp_path / "other.nii.gz", "-o", out)
    assert code == 2
    assert "--start with one of the images" in err
    code, _, err = run("template", files[0], tmp_path / "none.nii.gz", "-o", out)
    assert code == 2
    assert "none.nii.gz" in err
    assert not out.exists()
    code, _, err = run("template", *files, "-o", files[0].parent)
    assert code == 2
    assert "which is read, lies in it" in err


def test_images_of_one_name_are_told_apart_by_their_folders():
    assert names_of([Path("a/one.nii.gz"), Path("b/two.mha")]) == ["one", "two"]
    assert names_of([Path("/s1/t1.nii.gz"), Path("/s2/t1.nii.gz")]) == ["s1_t1", "s2_t1"]
