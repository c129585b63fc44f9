"""Promises of BIDS derivatives: names, sidecars, the direction of the transforms, and the validator of the standard."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from cohort_cases import image_pair
from semreg.batch import write_derivatives
from semreg.batch.bids_names import derived_names
from semreg.errors import ConfigError, OutputError

QUICK = (
    *("--fast", "--align", "none", "--threads", "1", "--inverse"),
    *("--set", "refine.iterations=2", "--set", "uncertainty.enabled=false"),
)
STEM = "sub-01/ses-02/anat/sub-01_ses-02"
FIRST, SECOND = "sub-01_ses-02_T1w-to-ses-01_T1w", "sub-02_T2w-to-T1w"


def said(path):
    """The object in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    """A data set of two subjects, one with two sessions."""
    folder = tmp_path_factory.mktemp("study") / "raw data"
    names = {
        "one": ("sub-01/ses-01/anat/sub-01_ses-01_T1w.nii.gz", "sub-01/ses-02/anat/sub-01_ses-02_T1w.nii.gz"),
        "two": ("sub-02/anat/sub-02_T1w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz"),
    }
    for seed, (name, places) in enumerate(names.items()):
        row = image_pair(folder.parent, name, seed)
        for role, place in zip(("fixed", "moving"), places, strict=True):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder.parent / row[role]).rename(folder / place)
    (folder / "dataset_description.json").write_text(
        '{"Name": "Two heads", "BIDSVersion": "1.10.0", "DatasetDOI": "doi:10.0.1/x"}', encoding="utf-8"
    )
    table = folder.parent / "pairs.csv"
    rows = [
        f"{name},{folder / fixed},{folder / moving}"
        for name, (fixed, moving) in zip((FIRST, SECOND), names.values(), strict=True)
    ]
    table.write_text("\n".join(["name,fixed,moving", *rows]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def done(bids):
    """A batch of both pairs, and its derivatives."""
    out, derivatives = bids.parent / "out", bids / "derivatives" / "semreg"
    words = [bids.parent / "pairs.csv", "-o", out, "--bids-derivatives", derivatives, "--json", *QUICK]
    process = subprocess.run(
        [sys.executable, "-m", "semreg", "batch", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return out, derivatives


def test_a_batch_lays_its_results_out_by_the_names_of_the_standard(done):
    """Each pair has its image, both transforms and a sidecar each, nothing else; bytes are those of the result."""
    out, derivatives = done
    expected = {"dataset_description.json", ".bidsignore", "README"}
    for stem, space, source, end in (
        (STEM, "ses01T1w", "ses02T1w", "T1w"),
        ("sub-02/anat/sub-02", "T1w", "T2w", "T2w"),
    ):
        for name, extension in (
            (f"{stem}_space-{space}_desc-registered_{end}", ".nii.gz"),
            (f"{stem}_from-{source}_to-{space}_mode-image_xfm", ".h5"),
            (f"{stem}_from-{space}_to-{source}_mode-image_xfm", ".h5"),
        ):
            expected |= {f"{name}{extension}", f"{name}.json"}
    assert {path.relative_to(derivatives).as_posix() for path in derivatives.rglob("*") if path.is_file()} == expected
    image = derivatives / "sub-02/anat/sub-02_space-T1w_desc-registered_T2w.nii.gz"
    assert image.read_bytes() == (out / SECOND / "warped.nii.gz").read_bytes()


def test_a_transform_resamples_from_into_to(done, bids):
    """mode-image: SimpleITK resamples the moving image by from-moving_to-fixed on the fixed grid into the warped one.

    The other direction brings the fixed image back onto the moving grid, and neither does the other's work.
    """
    derivatives = done[1]
    fixed, moving = (sitk.ReadImage(str(bids / f"sub-02/anat/sub-02_{end}.nii.gz")) for end in ("T1w", "T2w"))
    there, back = (
        sitk.ReadTransform(str(derivatives / f"sub-02/anat/sub-02_from-{one}_to-{other}_mode-image_xfm.h5"))
        for one, other in (("T2w", "T1w"), ("T1w", "T2w"))
    )
    warped = sitk.ReadImage(str(derivatives / "sub-02/anat/sub-02_space-T1w_desc-registered_T2w.nii.gz"))
    values = sitk.GetArrayFromImage(warped)
    low = float(sitk.GetArrayFromImage(moving).min())

    def off(transform):
        found = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, low))
        return np.percentile(np.abs(found - values), 99)

    assert off(there) < 0.01 * np.ptp(values)
    assert off(back) > 0.05 * np.ptp(values)
    point = (4.0, -6.0, 12.0)
    assert np.linalg.norm(np.subtract(back.TransformPoint(there.TransformPoint(point)), point)) < 0.2


def test_sidecars_name_sources_and_reference(done):
    """Sources and SpatialReference are URIs of BIDS, resolved by DatasetLinks; the raw data set has its DOI."""
    derivatives = done[1]
    image = said(derivatives / f"{STEM}_space-ses01T1w_desc-registered_T1w.json")
    raw = "bids:raw:sub-01/ses-{0}/anat/sub-01_ses-{0}_T1w.nii.gz"
    assert image["Sources"] == [raw.format("01"), raw.format("02")]
    assert image["SpatialReference"] == raw.format("01")
    assert image["SkullStripped"] is False
    transform = said(derivatives / f"{STEM}_from-ses01T1w_to-ses02T1w_mode-image_xfm.json")
    assert transform["SpatialReference"] == raw.format("02")
    assert "resamples sub-01_ses-01_T1w.nii.gz into the space of sub-01_ses-02_T1w.nii.gz" in transform["Description"]
    about = said(derivatives / "dataset_description.json")
    assert about["DatasetType"] == "derivative"
    assert about["SourceDatasets"] == [{"URL": "../..", "DOI": "doi:10.0.1/x"}]
    assert (derivatives / about["DatasetLinks"]["raw"]).resolve() == derivatives.parents[1].resolve()
    version = said(done[0] / SECOND / "record.json")["versions"]["semreg"]
    assert about["GeneratedBy"] == [{"Name": "semreg", "Version": version}]


def test_the_validator_of_the_standard_finds_no_error(done):
    """bids-validator-deno on the derivatives: no error and no unknown name but transforms, which .bidsignore names."""
    found = shutil.which("bids-validator-deno", path=Path(sys.executable).parent) or shutil.which("bids-validator-deno")
    if found is None:
        pytest.skip("bids-validator-deno of the Python package index is not installed")
    words = [found, str(done[1]), "--json", "--prune"]
    process = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    issues = json.loads(process.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    assert process.returncode == 0
    assert not {"SIDECAR_KEY_RECOMMENDED"} & {issue["code"] for issue in issues}


def test_one_result_is_laid_out_beside_others(done, bids, run, tmp_path):
    """The command takes any result; a container is named; an inverse of before does not outlive its transform."""
    out, derivatives = done
    copy = bids / "derivatives" / "again"
    shutil.copytree(derivatives, copy)
    (copy / "README").rename(copy / "README.md")
    code, _, err = run("bids", out / SECOND, "-o", copy, "--quiet")
    assert (code, err) == (0, "")
    assert (copy / f"{STEM}_space-ses01T1w_desc-registered_T1w.nii.gz").is_file()
    assert not (copy / "README").exists()
    result = tmp_path / "result"
    shutil.copytree(out / SECOND, result)
    (result / "inverse.h5").unlink()
    (tmp_path / "container.json").write_text('{"Type": "docker", "Tag": "semreg:1"}', encoding="utf-8")
    write_derivatives([result], copy, container=tmp_path / "container.json")
    assert not list(copy.glob("sub-02/anat/*_from-T1w_to-T2w_*"))
    assert len(list(copy.glob("sub-02/anat/*_from-T2w_to-T1w_*"))) == 2
    makers = said(copy / "dataset_description.json")["GeneratedBy"]
    assert [maker.get("Container") for maker in makers] == [None, {"Type": "docker", "Tag": "semreg:1"}]


def test_what_cannot_be_laid_out_changes_nothing(done, bids, run, tmp_path):
    """Bad input is one sentence and exit code 2, and no file appears."""
    out, _ = done
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "dataset_description.json").write_text('{"Name": "of others"}', encoding="utf-8")
    private = tmp_path / "private"
    shutil.copytree(out / SECOND, private)
    record = said(private / "record.json") | {"private": True}
    (private / "record.json").write_text(json.dumps(record), encoding="utf-8")
    for words, expected in (
        ((out / SECOND, "-o", foreign), "says something else: choose another"),
        ((out / SECOND, "-o", bids / "mine"), "among the raw data"),
        ((out / SECOND, "-o", bids), "among the raw data"),
        ((out / SECOND, "-o", bids / "derivatives"), "among the raw data"),
        ((out / "gone", "-o", tmp_path / "new"), "expected the output folder of semreg register"),
        ((private, "-o", tmp_path / "new"), "made with --private"),
    ):
        code, said_out, err = run("bids", *words)
        assert (code, said_out, err.count("\n")) == (2, "", 1)
        assert expected in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign", "private"]
    assert not (bids / "mine").exists()
    code, _, err = run("batch", bids.parent / "pairs.csv", "-o", tmp_path / "o", "--bids-derivatives", foreign, *QUICK)
    assert (code, "says something else" in err, (tmp_path / "o").exists()) == (2, True, False)


def test_a_full_disk_leaves_what_was_there(done, bids, monkeypatch):
    """Where copying breaks off, the derivatives of before are as they were."""
    copy = bids / "derivatives" / "kept"
    shutil.copytree(done[1], copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    calls = []

    def full(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OutputError, match="No space left"):
        write_derivatives([done[0] / SECOND], copy)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("fixed", "moving", "space", "source"),
    [
        ("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T2w.nii.gz", "T1w", "T2w"),
        ("sub-01/anat/sub-01_run-1_T1w.nii.gz", "sub-01/anat/sub-01_run-01_acq-fine_T2w.nii.gz", "T1w", "acqfineT2w"),
        ("sub-02/anat/sub-02_T1w.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz", "sub02T1w", "T1w"),
        ("tpl-MNI152NLin2009cAsym_res-01_T1w.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz", "MNI152NLin2009cAsym", "T1w"),
        ("my_atlas (2).nii.gz", "sub-01/ses-1/pet/sub-01_ses-1_pet.nii", "myatlas2", "pet"),
        ("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_space-MNI_desc-brain_T2w.nii.gz", "T1w", "descbrainT2w"),
    ],
)
def test_spaces_are_named_after_what_differs(fixed, moving, space, source):
    """A label holds the entities in which an image differs; templates and other files have their own names."""
    names = derived_names(Path("/b") / fixed, Path("/b") / moving)
    stem = moving.partition(".")[0].rpartition("_")[0].partition("_space-")[0]
    stem = stem.replace("run-01_acq-fine", "acq-fine_run-01")
    source = source.replace("descbrain", "spaceMNIdescbrain")
    assert names.root == Path("/b")
    assert names.forward == f"{stem}_from-{source}_to-{space}_mode-image_xfm"
    assert names.backward == f"{stem}_from-{space}_to-{source}_mode-image_xfm"
    suffix = moving.partition(".")[0].rpartition("_")[2]
    assert names.warped == f"{stem}_space-{space}_desc-registered_{suffix}"


@pytest.mark.parametrize(
    ("fixed", "moving", "expected"),
    [
        ("a.nii.gz", "b.nii.gz", "a moving image of a BIDS data set"),
        ("a.nii.gz", "sub-01_T1w.nii.gz", "a moving image of a BIDS data set"),
        ("x/sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz", "names of their own"),
    ],
)
def test_images_without_names_are_refused(fixed, moving, expected):
    """No name is made up."""
    with pytest.raises(ConfigError, match=expected):
        derived_names(Path("/b") / fixed, Path("/b") / moving)
