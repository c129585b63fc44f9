"""Promises of the rules for BIDS data sets: which images are paired, and that no guess is made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from semreg.batch import bids_pairs
from semreg.errors import ConfigError


@pytest.fixture
def bids(tmp_path):
    """Three subjects, two sessions and runs in places, files that are none of ours, derivatives."""
    for name in (
        "sub-01/ses-01/anat/sub-01_ses-01_T1w.nii.gz",
        "sub-01/ses-01/anat/sub-01_ses-01_T1w.json",
        "sub-01/ses-01/anat/sub-01_ses-01_acq-fine_T2w.nii.gz",
        "sub-01/ses-02/anat/sub-01_ses-02_T1w.nii.gz",
        "sub-01/ses-02/anat/sub-01_ses-02_T2w.nii.gz",
        "sub-02/anat/sub-02_run-1_T1w.nii",
        "sub-02/anat/sub-02_run-02_T1w.nii",
        "sub-02/anat/sub-02_run-01_T2w.nii.gz",
        "sub-03/anat/sub-03_T1w.nii.gz",
        "derivatives/tool/sub-01/anat/sub-01_ses-01_T2w.nii.gz",
        ".trash/sub-09/anat/sub-09_T2w.nii.gz",
        "sub-01/anat/sub-01_T2w_old copy.nii.gz",
        "sub-template/anat/sub-template_T1w.nii.gz",
    ):
        path = tmp_path / "bids" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return tmp_path / "bids"


def found(folder, fixed, moving, **more):
    return {pair.name: (pair.fixed.name, pair.moving.name) for pair in bids_pairs(folder, fixed, moving, **more)}


def test_pairs_stay_within_subject_session_and_run(bids):
    """Each moving image gets the fixed one of its subject, session and run (1 is 01); subjects with half are left."""
    assert found(bids, "suffix=T1w", "suffix=T2w") == {
        "sub-01_ses-01_acq-fine_T2w-to-ses-01_T1w": ("sub-01_ses-01_T1w.nii.gz", "sub-01_ses-01_acq-fine_T2w.nii.gz"),
        "sub-01_ses-02_T2w-to-ses-02_T1w": ("sub-01_ses-02_T1w.nii.gz", "sub-01_ses-02_T2w.nii.gz"),
        "sub-02_run-01_T2w-to-run-1_T1w": ("sub-02_run-1_T1w.nii", "sub-02_run-01_T2w.nii.gz"),
    }


def test_rules_take_entities_long_and_short(bids):
    """Sessions can be registered on each other; an empty value means that the entity is not there."""
    expected = {"sub-01_ses-02_T1w-to-ses-01_T1w": ("sub-01_ses-01_T1w.nii.gz", "sub-01_ses-02_T1w.nii.gz")}
    assert found(bids, "suffix=T1w,session=01", "suffix=T1w,ses=02") == expected
    assert found(bids, "suffix=T1w, ses=ses-01", "suffix=T1w,ses=02,acq=") == expected
    assert list(found(bids, "suffix=T1w,ses=01", "suffix=T2w,acq=fine")) == ["sub-01_ses-01_acq-fine_T2w-to-ses-01_T1w"]


def test_one_fixed_image_for_all(bids):
    """A template, by rule or by file, is the fixed image of every subject and never moves onto itself."""
    by_rule = found(bids, "suffix=T1w,sub=template", "suffix=T1w", across=True)
    assert {fixed for fixed, _ in by_rule.values()} == {"sub-template_T1w.nii.gz"}
    assert len(by_rule) == 5
    assert "sub-03_T1w-to-sub-template_T1w" in by_rule
    template = bids.parent / "mni.nii.gz"
    template.write_text("x", encoding="utf-8")
    by_file = found(bids, str(template), "suffix=T2w")
    assert sorted(by_file) == [
        "sub-01_ses-01_acq-fine_T2w-to-mni",
        "sub-01_ses-02_T2w-to-mni",
        "sub-02_run-01_T2w-to-mni",
    ]


@pytest.mark.parametrize(
    ("fixed", "moving", "more", "said"),
    [
        ("sufix=T1w", "suffix=T2w", {}, "'sufix': did you mean suffix"),
        ("T1w", "suffix=T2w", {}, "name=value"),
        ("suffix=T1w,suffix=T2w", "suffix=T2w", {}, "suffix once"),
        ("suffix=T1w", "suffix=bold", {}, "got none; there are: T1w, T2w"),
        ("suffix=T1w", "suffix=T2w", {"across": True}, "expected one image .* got 6"),
        ("suffix=T1w,sub=03", "suffix=T2w", {}, "a subject"),
        ("suffix=T1w", "suffix=T1w,ses=02,sub=01", {}, None),
    ],
)
def test_what_is_open_is_refused(bids, fixed, moving, more, said):
    """Unknown entities, rules that fit nothing, several candidates: one sentence; nothing is guessed."""
    if said is None:
        assert list(found(bids, fixed, moving, **more)) == ["sub-01_ses-02_T1w-to-ses-01_T1w"]
        return
    with pytest.raises(ConfigError, match=said):
        bids_pairs(bids, fixed, moving, **more)


def test_two_candidates_of_one_session_are_not_guessed(bids):
    """Where session and run leave two fixed images, the rule must say more."""
    (bids / "sub-03/anat/sub-03_acq-b_T1w.nii.gz").write_text("x", encoding="utf-8")
    (bids / "sub-03/anat/sub-03_T2w.nii.gz").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"one fixed image for sub-03_T2w.nii.gz, got 2"):
        bids_pairs(bids, "suffix=T1w", "suffix=T2w")
    assert "sub-03_T2w-to-T1w" in found(bids, "suffix=T1w,acq=", "suffix=T2w")


def test_an_empty_folder_is_refused(tmp_path):
    """A folder without names of BIDS is one sentence with an example."""
    with pytest.raises(ConfigError, match="sub-01_T1w"):
        bids_pairs(tmp_path, "suffix=T1w", "suffix=T2w")


def test_names_that_are_no_text_are_refused(bids):
    """A folder whose name is no UTF-8 cannot be written into a record: one sentence that can, before anything runs."""
    odd = Path(os.fsdecode(os.fsencode(bids) + b"-\xff"))
    try:
        bids.rename(odd)
    except OSError:
        pytest.skip("the file system takes names in UTF-8 alone")
    with pytest.raises(ConfigError, match="expected the path of fixed to be text in UTF-8, got") as caught:
        bids_pairs(odd, "suffix=T1w", "suffix=T2w")
    assert str(caught.value).encode()
