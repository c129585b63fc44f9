"""Promises of the flags of ``semreg register``: which one wins, what they write, and that a run can be repeated."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from blobs import blobs
from conftest import grid_at, make_grid, rotation
from dicom_files import pixel_tags, slice_tags, write_dicom
from semreg.cli.model_flags import ModelFlags
from semreg.cli.register_flags import Alignment, SettingFlags, load_config
from semreg.cli.summary import contrast_rows
from semreg.config import RegistrationConfig
from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.errors import ConfigError
from semreg.io.files import write_image
from semreg.registration import guidance
from semreg.registration.dense.contrast import IntensityRelation
from semreg.runtime.settings import from_dict, from_toml, to_toml
from small_networks import Small, save

FIXED = grid_at((3.0, -7.0, 11.0), (19, 17, 14), (1.9, 2.1, 2.8), rotation(3))
MOVING = grid_at((4.0, -6.0, 12.0), (20, 17, 18), (1.8, 2.3, 2.4), rotation(3, -21.0))
QUICK = ("--align", "none", "--set", "refine.iterations=3", "--set", "refine.symmetric=false", "-q")


@pytest.fixture
def pair(tmp_path):
    """A fixed and a moving image on different oblique anisotropic grids, as files."""
    write_image(blobs(FIXED), tmp_path / "fixed.nii.gz", "float32")
    write_image(blobs(MOVING, (2.0, -1.5, 1.0)), tmp_path / "moving.nrrd", "int16")
    return tmp_path / "fixed.nii.gz", tmp_path / "moving.nrrd", tmp_path / "out"


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


def array(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def record_of(folder):
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "flags", [("--fast",), ("--quality", "--align", "rigid"), ("--preset", "lung-ct", "--set", "refine.iterations=4")]
)
def test_the_settings_of_a_run_give_the_same_run_again(run, pair, flags):
    """config.toml given back with --config gives the same field and image bit for bit, and the same config.toml."""
    fixed, moving, out = pair
    code, _, err = run("register", fixed, moving, "-o", out, "-q", *flags)
    assert code == 0, err
    again = out.with_name("again")
    assert run("register", fixed, moving, "-o", again, "-q", "--config", out / "config.toml")[0] == 0
    assert (again / "config.toml").read_bytes() == (out / "config.toml").read_bytes()
    for name in ("field.nii.gz", "warped.nii.gz"):
        assert np.array_equal(array(out / name), array(again / name))
    effective = from_toml(RegistrationConfig, out / "config.toml")
    assert effective == from_dict(RegistrationConfig, record_of(out)["settings"])
    assert effective.features.spacing_mm is not None


def test_each_way_to_say_a_setting_has_its_rank(tmp_path):
    """Preset, file, fast or quality, models, --set, single flags: each wins over those before it."""
    path = tmp_path / "mine.toml"
    path.write_text("[refine]\niterations = 21\ndiffusion = 0.7\n", encoding="utf-8")
    preset = load_config(SettingFlags(preset="lung-ct"))
    assert (preset.refine.diffusion, preset.refine.symmetric, preset.coarse.reach_mm) == (0.15, True, 50.0)
    file = load_config(SettingFlags(preset="lung-ct", config=path))
    assert (file.refine.diffusion, file.refine.iterations, file.coarse.reach_mm) == (0.7, 21, 50.0)
    fast = load_config(SettingFlags(preset="lung-ct", config=path, fast=True))
    assert (fast.refine.iterations, fast.refine.symmetric, fast.refine.diffusion) == (8, False, 0.7)
    named = load_config(SettingFlags(config=path, models=ModelFlags(model=("intensity",))))
    assert named.models[0].model == "intensity"
    assigned = load_config(SettingFlags(config=path, fast=True, assignments=("refine.iterations=5", "seed=3")))
    assert (assigned.refine.iterations, assigned.seed) == (5, 3)
    flags = SettingFlags(
        assignments=("align.transform=affine", "seed=3", "intensities.body=true"), align=Alignment.RIGID, seed=4
    )
    assert (load_config(flags).align.transform, load_config(flags).seed) == ("rigid", 4)
    assert load_config(flags).intensities.body is True
    assert load_config(SettingFlags(symmetric=False, body_mask=False)).refine.symmetric is False
    assert load_config(SettingFlags(modality="ct,mr")).intensities.modalities == ("ct", "mr")
    assert load_config(SettingFlags(modality="other")).intensities.modalities == ("other", "other")
    assert load_config(SettingFlags()) == RegistrationConfig()


def test_flags_that_exclude_each_other_are_refused(run, pair, tmp_path):
    """Fast and quality at once, two starts at once, an unknown preset: one sentence, nothing written."""
    fixed, moving, out = pair
    with pytest.raises(ConfigError, match="--fast or --quality"):
        load_config(SettingFlags(fast=True, quality=True))
    for flags in (
        ("--fast", "--quality"),
        ("--initial", tmp_path / "a.tfm", "--initial-landmarks", tmp_path / "a.csv", tmp_path / "b.csv"),
        ("--preset", "lungs"),
        ("--align", "sideways"),
        ("--modality", "pet"),
        ("--modality", "ct,mr,ct"),
    ):
        code, text, err = run("register", fixed, moving, "-o", out, *flags)
        assert (code, text) == (2, "")
        assert "error" in err.lower()
        assert not out.exists()


def test_explain_says_what_is_decided_and_then_does_it(run, pair):
    """The sentences come on the standard output, in mm, before the summary; with --dry-run nothing follows them."""
    fixed, moving, out = pair
    code, text, _ = run("register", fixed, moving, "-o", out, "--explain", "--dry-run")
    assert code == 0
    assert not out.exists()
    lines = text.splitlines()
    assert all(line.endswith(".") for line in lines)
    assert lines[0] == (
        "The fixed image has 19 × 17 × 14 voxels of 1.9 × 2.1 × 2.8 mm and is of grey values, neither CT nor labels."
    )
    assert lines[-1].startswith("It takes about ")
    code, whole, _ = run("register", fixed, moving, "-o", out, "--explain", "--align", "none", *QUICK[2:-1])
    assert code == 0
    assert whole.splitlines()[:2] == lines[:2]
    assert "There is no alignment, as set." in whole
    assert "smallest Jacobian" in whole
    assert run("register", fixed, moving, "-o", out, "--explain", "--dry-run", "-q")[1] == ""
    told = json.loads(run("register", fixed, moving, "-o", out, "--explain", "--dry-run", "--json")[1])
    assert told["memory_bytes"] > 1e8
    assert told["lines"][0] == lines[0]
    text = run("register", fixed, moving, "-o", out, "--explain", "--dry-run", "--modality", "mr,ct")[1]
    assert [line.partition(" mm and ")[2] for line in text.splitlines()[:2]] == ["is MR as set.", "is CT as set."]


def test_the_summary_says_what_the_intensities_showed():
    """One contrast or two, and whether they were compared in the end, which somebody may ask for all the same."""
    alike, other = (IntensityRelation(correlation=0.5, reversed=share) for share in (0.004, 0.31))
    assert contrast_rows(None, asked=False) == []
    assert contrast_rows(alike, asked=False) == [
        (
            "intensities",
            "one contrast, 0.4 % of their squared local correlation is negative: compared at full resolution",
        )
    ]
    said = [contrast_rows(other, asked=asked)[0][1] for asked in (False, True)]
    assert [text.rpartition(": ")[2] for text in said] == [
        "not compared at full resolution", "compared at full resolution"
    ]  # fmt: skip
    assert all(text.startswith("two contrasts, 31 %") for text in said)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--rigid", "fixed.nii.gz"), "labels"),
        (("--rigid", "none.nii.gz"), "label"),
        (("--rigid", "missing.nii.gz"), "there is no such file"),
        (("--sliding", "none.nii.gz"), "expected"),
        (("--sliding", "one.nii.gz", "--rigid", "one.nii.gz"), "both: leave one out"),
        (("--sliding", "one.nii.gz", "--set", "refine.enabled=false"), "refine.enabled=true with a part that slides"),
        (("--stiffness", "flat.png"), "-D"),
        (("--fixed-labels", "one.nii.gz", "--moving-labels", "two.nii.gz"), "labels that both label maps have"),
        (("--fixed-labels", "one.nii.gz", "--moving-labels", "one.nii.gz", "--label-weight", "7=2"), "{7: 2.0}"),
        (("--landmarks", "three.csv", "two.csv"), "expected"),
        (("--landmarks", "two.csv", "two.csv", "--landmark-sd", "-1"), "expected"),
        (("--segment", "broken.pt"), "broken.pt"),
        (("--start", "broken.pt"), "start network"),
        (("--uncertainty", "--set", "uncertainty.enabled=false"), "with --uncertainty, got false"),
        (("--fail-on", "fail", "--set", "checks.enabled=false"), "with --fail-on, got false"),
        (("--dtype", "float7"), "float7"),
        (("--dicom",), "DICOM"),
    ],
)
def test_the_dry_run_refuses_what_a_run_would(run, pair, tmp_path, monkeypatch, flags, said):
    """All that is named is read and checked, and refused in the same words; nothing is written."""
    fixed, moving, out = pair
    monkeypatch.chdir(tmp_path)
    for name, value in (("none", 0.0), ("one", 1.0), ("two", 2.0)):
        write_image(Volume(torch.full((1, *FIXED.shape), value), FIXED), tmp_path / f"{name}.nii.gz", "uint8")
    write_image(Volume(torch.ones(1, 5, 5), Grid.of_shape((5, 5))), tmp_path / "flat.png", "uint8")
    for name, count in (("two", 2), ("three", 3)):
        (tmp_path / f"{name}.csv").write_text("x,y,z\n" + "1,2,3\n4,5,7\n9,9,9\n"[: 6 * count], encoding="utf-8")
    (tmp_path / "broken.pt").write_bytes(b"no network")
    words = ("register", fixed, moving, "-o", out, *QUICK, *flags)
    planned, done = run(*words, "--dry-run"), run(*words)
    assert planned[0] == 2
    assert planned == done
    assert said in planned[2]
    assert not out.exists()


def test_the_dry_run_writes_over_nothing_either(run, pair):
    """An input that a run would write over is named before."""
    fixed, moving, out = pair
    fixed = fixed.rename(fixed.with_name("warped.nii.gz"))
    code, _, err = run("register", fixed, moving, "-o", out.parent, "--dry-run")
    assert code == 2
    assert "would be written over" in err


def test_the_dry_run_loads_a_network_that_segments_and_runs_none(run, pair, tmp_path, monkeypatch):
    """What does not fit is found; the plan does not wait for labels of both images."""
    fixed, moving, out = pair
    save(Small(), tmp_path / "net.pt")
    monkeypatch.setattr(guidance, "labels_of", lambda *_: pytest.fail("it was run"))
    words = ("register", fixed, moving, "-o", out, "--segment", tmp_path / "net.pt", "--dry-run")
    code, text, err = run(*words)
    assert code == 0, err
    assert "GB that may be used" in text
    code, _, err = run(*words, "--label-weight", "-1")
    assert code == 2
    assert "expected a weight of the labels above 0" in err


def test_the_dry_run_is_what_is_done(run, pair, tmp_path):
    """The settings that the dry run prints give, as a file, the run that was planned: the same field to the bit."""
    fixed, moving, out = pair
    quick = ("--set", "refine.iterations=2", "--set", "uncertainty.enabled=false", "--no-report")
    told = json.loads(run("register", fixed, moving, "-o", out, "--dry-run", "--json", *quick[:-1])[1])
    assert run("register", fixed, moving, "-o", out, *quick, "-q")[0] == 0
    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert record["settings"] == told["settings"]
    assert [reason["sentence"] for reason in record["plan"]["reasons"][:-1]] == told["lines"][:-1]
    (tmp_path / "planned.toml").write_text(to_toml(from_dict(RegistrationConfig, told["settings"])), encoding="utf-8")
    again = ("--config", tmp_path / "planned.toml", "--no-report", "-q")
    assert run("register", fixed, moving, "-o", tmp_path / "again", *again)[0] == 0
    assert (out / "transform.h5").read_bytes() == (tmp_path / "again" / "transform.h5").read_bytes()


def test_everything_is_done_once(run, pair, monkeypatch):
    """One run prepares each image once, plans once, and computes the determinants of its field once."""
    from semreg.core.fields import jacobian_determinant
    from semreg.preprocess import image_pair
    from semreg.registration.stages import plan, prepare

    counts: Counter[str] = Counter()

    def counting(module, name, counted=lambda *_: True):
        real = getattr(module, name)

        def call(*arguments, **more):
            counts[name] += bool(counted(*arguments))
            return real(*arguments, **more)

        monkeypatch.setattr(module, name, call)

    fixed, moving, out = pair
    whole = tuple(reversed(sitk.ReadImage(str(fixed)).GetSize()))
    for module, name in ((prepare, "prepare_pair"), (image_pair, "clean"), (image_pair, "treat"), (plan, "make_plan")):
        counting(module, name)
    for name, module in list(sys.modules.items()):
        if name.startswith("semreg") and getattr(module, "jacobian_determinant", None) is jacobian_determinant:
            counting(module, "jacobian_determinant", lambda given, *_: given.grid.shape == whole)
    code, *_ = run("register", fixed, moving, "-o", out, "--jacobian", "--set", "refine.iterations=2", "-q")
    assert code == 0
    assert counts == {"prepare_pair": 1, "clean": 2, "treat": 2, "make_plan": 1, "jacobian_determinant": 1}


def test_explain_does_not_disturb_json(run, pair):
    """With --json the standard output is the record alone."""
    fixed, moving, out = pair
    code, text, _ = run("register", fixed, moving, "-o", out, "--explain", "--json", *QUICK[:-1])
    assert code == 0
    assert text == (out / "record.json").read_text(encoding="utf-8")


def test_the_jacobian_on_request_is_that_of_itk(run, pair):
    """jacobian.nii.gz is the determinant that ITK's filter computes of the written field, on the fixed grid."""
    fixed, moving, out = pair
    code, _, err = run("register", fixed, moving, "-o", out, "--jacobian", *QUICK)
    assert code == 0, err
    assert "jacobian.nii.gz" in listed(out)
    assert "jacobian.nii.gz" in record_of(out)["outputs"]
    field = sitk.ReadImage(str(out / "field.nii.gz"), sitk.sitkVectorFloat64)
    inside = (slice(1, -1),) * 3
    # SimpleITK's filter takes the axes for those of the image: a grid without rotation tells the same determinant
    matrix = np.array(field.GetDirection()).reshape(3, 3)
    along = sitk.GetImageFromArray(sitk.GetArrayFromImage(field) @ matrix, isVector=True)
    along.SetSpacing(field.GetSpacing())
    expected = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(along))
    np.testing.assert_allclose(
        array(out / "jacobian.nii.gz")[inside], expected[inside], atol=5e-4
    )  # what is rounded in the file


def test_the_inverse_on_request_leads_back(run, pair):
    """inverse.h5 and inverse.nii.gz lie on the moving grid and undo transform.h5 inside both images."""
    fixed, moving, out = pair
    code, _, err = run("register", fixed, moving, "-o", out, "--inverse", *QUICK)
    assert code == 0, err
    assert {"inverse.h5", "inverse.nii.gz"} <= set(listed(out))
    forth, back = sitk.ReadTransform(str(out / "transform.h5")), sitk.ReadTransform(str(out / "inverse.h5"))
    assert sitk.ReadImage(str(out / "inverse.nii.gz")).GetSize() == MOVING.size_xyz
    for offset in ((0, 0, 0), (6, -4, 3), (-5, 5, -6)):
        point = tuple(np.array([3.0, -7.0, 11.0]) + offset)
        assert back.TransformPoint(forth.TransformPoint(point)) == pytest.approx(point, abs=0.1)
        assert np.linalg.norm(np.subtract(forth.TransformPoint(point), point)) > 0.5


def test_landmarks_are_a_start(run, pair, tmp_path):
    """Images far from each other are brought together by a few corresponding points; their errors are said."""
    fixed, _, out = pair
    shift = np.array([300.0, -40.0, 20.0])
    far = make_grid(MOVING.size_xyz, MOVING.spacing_xyz, np.array(MOVING.origin_xyz) + shift, MOVING.direction)
    write_image(blobs(far, tuple(shift + np.array([2.0, -1.5, 1.0]))), tmp_path / "far.nrrd")
    points = np.array([3.0, -7.0, 11.0]) + np.array([[-8, 4, 3], [7, -5, -4], [3, 8, 6], [0, 0, 0], [5, 5, -8.0]])
    for name, values in (("a.csv", points), ("b.csv", points + shift)):
        np.savetxt(tmp_path / name, values, delimiter=",", header="x,y,z", comments="")
    given = ("--initial-landmarks", tmp_path / "a.csv", tmp_path / "b.csv")
    code, text, err = run("register", fixed, tmp_path / "far.nrrd", "-o", out, *given, *[a for a in QUICK if a != "-q"])
    assert code == 0, err
    transform = sitk.ReadTransform(str(out / "transform.h5"))
    moved = np.array([transform.TransformPoint(tuple(point)) for point in points[:3]])
    assert np.abs(moved - points[:3] - shift - [2.0, -1.5, 1.0]).mean() < 1.0
    record = record_of(out)
    assert {"fixed_landmarks", "moving_landmarks"} <= set(record["inputs"])
    errors = np.array([transform.TransformPoint(tuple(point)) for point in points]) - points - shift
    largest = np.linalg.norm(errors, axis=1).max()
    assert record["landmarks"]["after"]["maximum_mm"] == pytest.approx(largest, abs=0.01)
    assert record["landmarks"]["worse"] == 0
    assert f"largest {np.linalg.norm(shift):.2f} → {largest:.2f} mm; 0 of 5 got worse" in text
    assert {check["name"]: check["level"] for check in record["verdict"]["checks"]}["landmark_maximum"] == "PASS"


def test_stiffness_is_read_as_an_image(run, pair, tmp_path):
    """Where the stiffness is high the field bends less than without."""
    fixed, moving, out = pair
    write_image(Volume(torch.full((1, *FIXED.shape), 50.0), FIXED), tmp_path / "stiff.nii.gz", "float32")
    assert run("register", fixed, moving, "-o", out, *QUICK)[0] == 0
    stiff = out.with_name("stiff")
    code, _, err = run("register", fixed, moving, "-o", stiff, "--stiffness", tmp_path / "stiff.nii.gz", *QUICK)
    assert code == 0, err

    def bending(folder):
        return float(sum(np.abs(np.diff(array(folder / "field.nii.gz"), axis=axis)).mean() for axis in range(3)))

    assert bending(stiff) < 0.9 * bending(out)


def test_rigid_parts_are_written_rigid_and_shown(run, pair, tmp_path):
    """The transform turns and shifts the part alone; the summary and the record say how; a wrong label is refused."""
    fixed, moving, out = pair
    labels = torch.zeros(1, *FIXED.shape)
    labels[0][tuple(slice(n // 3, 2 * n // 3) for n in FIXED.shape)] = 4
    write_image(Volume(labels, FIXED), tmp_path / "parts.nii.gz", "uint8")
    code, shown, err = run("register", fixed, moving, "-o", out, "--rigid", tmp_path / "parts.nii.gz", *QUICK[:-1])
    assert code == 0, err
    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    (part,) = record["parts"]["parts"]
    assert part["label"] == 4
    assert record["inputs"]["rigid"]["path"].endswith("parts.nii.gz")
    assert f"turned by {part['rotation_deg']:.2f}°" in shown
    transform, matrix = sitk.ReadTransform(str(out / "transform.h5")), np.array(part["matrix"])
    index = np.argwhere(labels[0].numpy())[::11]
    points = index @ FIXED.index_to_point()[:3, :3].T + FIXED.index_to_point()[:3, 3]
    there = np.array([transform.TransformPoint(point) for point in points.tolist()])
    assert np.abs(there - points @ matrix[:3, :3].T - matrix[:3, 3]).max() < 1e-3
    wrong = ("--rigid", tmp_path / "parts.nii.gz", "--set", "parts.labels=5")
    code, _, err = run("register", fixed, moving, "-o", tmp_path / "wrong", *wrong, *QUICK)
    assert code == 2
    assert "expected labels of rigid parts 5, got a label map with 4" in err


def test_what_slides_is_read_and_shown(run, pair, tmp_path):
    """The record names the mask and how far it slides, the summary too; a wrong label is refused, nothing is left."""
    fixed, moving, out = pair
    mask = torch.zeros(1, *FIXED.shape)
    mask[0][tuple(slice(n // 4, 3 * n // 4) for n in FIXED.shape)] = 3
    write_image(Volume(mask, FIXED), tmp_path / "mask.nii.gz", "uint8")
    code, shown, err = run("register", fixed, moving, "-o", out, "--sliding", tmp_path / "mask.nii.gz", *QUICK[:-1])
    assert code == 0, err
    record = record_of(out)
    assert record["sliding"]["labels"] == [3]
    assert record["inputs"]["sliding"]["path"].endswith("mask.nii.gz")
    assert f"{record['sliding']['slide_mm']['mean_mm']:.2f} mm along the wall" in shown
    wrong = ("--sliding", tmp_path / "mask.nii.gz", "--set", "sliding.labels=5")
    code, _, err = run("register", fixed, moving, "-o", tmp_path / "wrong", *wrong, *QUICK)
    assert code == 2
    assert "expected labels of what slides 5, got a label map with 3" in err
    assert not (tmp_path / "wrong" / "transform.h5").exists()


def test_nothing_that_is_read_is_written_over(run, pair):
    """A config.toml that is read from the output folder is an error, not lost."""
    fixed, moving, out = pair
    out.mkdir()
    (out / "config.toml").write_text("seed = 3\n", encoding="utf-8")
    code, _, err = run("register", fixed, moving, "-o", out, "--config", out / "config.toml")
    assert code == 2
    assert "another output folder" in err
    assert listed(out) == ["config.toml"]


def test_page_figures_and_uncertainty(run, pair):
    """The page and the figures show what was found, the map is that of the library; a plain run removes them all."""
    fixed, moving, out = pair
    quick = (*QUICK, "--set", "coarse.reach_mm=8")
    code, _, err = run("register", fixed, moving, "-o", out, *quick, "--figures", "--dpi", "60", "--uncertainty")
    assert code == 0, err
    record = record_of(out)
    assert {"uncertainty.nii.gz", "report.html", "figures/grid.png", "figures/before_after.png"} < set(
        record["outputs"]
    )
    assert sorted(record["outputs"]) == sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert record["verdict"]["level"] in (out / "report.html").read_text(encoding="utf-8")
    map_mm = array(out / "uncertainty.nii.gz")
    assert map_mm.shape == FIXED.shape
    assert map_mm.min() > 0
    assert map_mm.max() == pytest.approx(record["uncertainty"]["maximum_mm"], rel=0.35)
    (out / "evaluation.json").write_text("{}", encoding="utf-8")
    (out / "figures" / "mine.png").write_text("mine", encoding="utf-8")
    (out / "figures" / "landmarks.png").write_text("of semreg evaluate", encoding="utf-8")
    assert run("register", fixed, moving, "-o", out, *quick, "--no-report", "--set", "checks.enabled=false")[0] == 0
    assert listed(out) == ["config.toml", "field.nii.gz", "figures", "record.json", "transform.h5", "warped.nii.gz"]
    assert listed(out / "figures") == ["mine.png"]
    assert record_of(out)["verdict"] is None


def test_verdict_says_what_is_wrong(run, pair):
    """Images of different things end with their reason; the files are written, and 3 is left with only if asked for."""
    fixed, _, out = pair
    noise = torch.randn(1, *MOVING.shape, generator=torch.Generator().manual_seed(1)) * 300
    write_image(Volume(noise, MOVING), fixed.parent / "noise.nii.gz", "float32")
    code, text, _ = run("register", fixed, fixed.parent / "noise.nii.gz", "-o", out, *QUICK[:-1], "--fail-on", "review")
    assert code == 3
    assert (out / "transform.h5").is_file()
    level = text.splitlines()[0].removeprefix("verdict: ")
    assert level in ("REVIEW", "FAIL")
    assert text.splitlines()[1].split(":")[0] in ("review", "fail")
    assert run("evaluate", out, "--no-report", "--no-similarity")[0] == 0
    assert run("evaluate", out, "--no-report", "--no-similarity", "--fail-on", "review")[0] == 3
    fails = 3 if json.loads((out / "evaluation.json").read_text())["verdict"]["level"] == "FAIL" else 0
    assert run("evaluate", out, "--no-report", "--no-similarity", "--fail-on", "fail")[0] == fails


def test_uncertainty_that_is_off_cannot_be_written(run, pair):
    """--uncertainty with uncertainty.enabled=false is refused before anything is read."""
    fixed, moving, out = pair
    code, _, err = run("register", fixed, moving, "-o", out, "--uncertainty", "--set", "uncertainty.enabled=false")
    assert code == 2
    assert "uncertainty.enabled" in err
    assert not out.exists()


def test_letters_are_doubted_where_a_header_says_no_place(run, pair):
    """The page doubts the letters of NIfTI whose codes are 0, whoever writes it, and never those of DICOM."""
    folder, bare, out = pair[0].parent / "dicom", pair[0].parent / "bare.nii", pair[2]
    folder.mkdir()
    grid = Grid((20, 18, 16), (2.0, 2.1, 2.2), (0.0, 0.0, 0.0), np.eye(3))
    image = blobs(grid, (0.0, 0.0, 0.0))
    for number, pixels in enumerate(image.data[0].numpy().astype(np.int16)):
        tags = slice_tags("1.2.3", number + 1, (0.0, 0.0, 2.2 * number), [1, 0, 0, 0, 1, 0], grid.spacing_xyz[:2])
        write_dicom(folder / f"{number:02d}.dcm", {**tags, **pixel_tags(pixels)})
    write_image(image, bare, "int16")
    header = bytearray(bare.read_bytes())
    header[252:256] = bytes(4)
    bare.write_bytes(header)
    doubts = []
    for moving, command in ((folder, ()), (bare, ()), (bare, ("evaluate", out, "-q")), (bare, ("report", out, "-q"))):
        code, _, err = run(*(command or ("register", folder, moving, "-o", out, *QUICK)))
        assert code == 0, err
        doubts += [re.findall(r"may be wrong: ([^.]*)\.", (out / "report.html").read_text(encoding="utf-8"))]
        (out / "report.html").unlink()
    assert doubts == [[], *3 * [["the moving image has no place in the header"]]]


def test_the_series_of_a_folder_is_found_again(run, pair):
    """Evaluate and report read the series that was registered, of a folder with several, by what the record says."""
    _, moving, out = pair
    folder = out.parent / "dicom"
    folder.mkdir()
    across, down, step = (np.asarray(FIXED.direction)[:, axis] for axis in range(3))
    for name, uid, shift in (("first", "1.2.3.1", 0.0), ("second", "1.2.3.2", 2.0)):
        values = blobs(FIXED, (shift, -shift, 0.0)).data[0].numpy().astype(np.int16)
        for number, pixels in enumerate(values):
            position = np.asarray(FIXED.origin_xyz) + number * FIXED.spacing_xyz[2] * step
            tags = slice_tags(uid, number + 1, position, [*across, *down], FIXED.spacing_xyz[:2])
            path = folder / f"{name}{number:02d}.dcm"
            write_dicom(path, {**tags, **pixel_tags(pixels), 0x0008103E: ("LO", name)})
    code, _, err = run("register", folder, moving, "-o", out, "--fixed-series", "second", *QUICK)
    assert code == 0, err
    assert record_of(out)["inputs"]["fixed"]["series"] == "second"
    assert run("evaluate", out, "-q")[0] == 0
    assert run("report", out, "-q")[0] == 0
    moved = ("apply", out / "inverse.h5" if (out / "inverse.h5").exists() else out / "transform.h5", "-i", folder)
    assert "with one DICOM series" in run(*moved, "-o", out / "moved.nii")[2]
    series = ("--series", "first", "-r", folder, "--reference-series", "1.2.3.2")
    assert run(*moved, "-o", out / "moved.nii", *series)[0] == 0
    written = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert written["inputs"]["fixed"][0]["sha256"] == record_of(out)["inputs"]["fixed"]["sha256"]


@pytest.mark.parametrize("network", [False, True])
def test_an_ensemble_of_a_number_or_of_models(run, pair, network):
    """``--ensemble`` takes how many, or by which models; the record and the settings that repeat the run say it."""
    fixed, moving, out = pair
    given = save(Small(), out.with_name("net.pt")) if network else 2
    code, said, err = run("register", fixed, moving, "-o", out, "--ensemble", given, "--json", *QUICK[:-1])
    assert code == 0, err
    record = json.loads(said)
    assert record["settings"]["ensemble"] == {"members": 1 if network else 2, "models": [str(given)] if network else []}
    assert [each["sha256"] is not None for each in record["models"]] == [False, False] + [True] * network
    assert record["uncertainty"]["parts"]["ensemble"] > 0
    assert record["timings"]["ensemble"]["seconds"] > 0
    assert load_config(SettingFlags(config=out / "config.toml")).ensemble.count == 2


def test_an_ensemble_of_nobody_is_refused(run, pair):
    """No members, and a model that is not there."""
    fixed, moving, out = pair
    for given, said in (("0", "ensemble.members between 1 and 100"), ("no_such.pt", "no_such.pt")):
        code, _, err = run("register", fixed, moving, "-o", out, "--ensemble", given, *QUICK)
        assert code == 2
        assert said in err
        assert not out.exists()
