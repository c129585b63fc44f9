"""Promises of the command line: files that open elsewhere, one sentence for what is wrong, nothing half-written."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import typer

import semreg
from blobs import blobs
from conftest import centre, eventually, grid_at, make_grid, rotation
from semreg.cli import app
from semreg.cli.common import sentences
from semreg.config import RegistrationConfig
from semreg.core.fields import Volume
from semreg.io.bridge import PIXEL_TYPES
from semreg.io.files import write_image
from semreg.runtime.progress import REGISTER
from semreg.runtime.settings import from_dict, to_toml

FIXED = grid_at((3.0, -7.0, 11.0), (22, 20, 16), (1.7, 1.9, 2.6), rotation(3))
MOVING = grid_at((4.0, -6.0, 12.0), (24, 19, 21), (1.6, 2.1, 2.2), rotation(3, -21.0))


QUICK = ("--align", "none", "--set", "refine.iterations=2", "--set", "refine.symmetric=false")
"""For what does not depend on how good the result is."""


@pytest.fixture
def pair(tmp_path):
    """A fixed and a moving image on different oblique anisotropic grids, as files, and a folder for the results."""
    write_image(blobs(FIXED), tmp_path / "fixed.nii.gz", "float32")
    write_image(blobs(MOVING, (2.0, -1.5, 1.0)), tmp_path / "moving.nrrd", "int16")
    return tmp_path / "fixed.nii.gz", tmp_path / "moving.nrrd", tmp_path / "out"


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


LIGHT = """
import contextlib, io, json, sys, typer
from semreg.cli import app, main

def lines(command, *words):
    yield [*words, "--help"]
    for name, inner in getattr(command, "commands", {}).items():
        yield from lines(inner, *words, name)

said = {}
for words in [*lines(typer.main.get_command(app)), ["presets", "list"], ["version"]]:
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            main(words)
        except SystemExit as end:
            assert not end.code, words
    heavy = {"torch", "SimpleITK", "itk", "rich", "huggingface_hub"} | ({"numpy"} if "--help" in words else set())
    assert not heavy & set(sys.modules), (words, heavy & set(sys.modules))
    said[" ".join(words)] = text.getvalue()
print(json.dumps(said))
"""


def test_what_computes_nothing_is_light():
    """Help of all commands, presets and versions come without torch, SimpleITK, itk or rich; help without numpy too.

    Help says which side a transform starts from, what the exit code of the doctor means, and that there is a doctor.
    """
    done = subprocess.run([sys.executable, "-c", LIGHT], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {"--help", "register --help", "models fetch --help", "infer --help", "presets list", "version"} <= set(said)
    assert all(said.values())
    assert all("fixed" in said[f"{name} --help"] for name in ("apply", "convert", "compose", "invert", "jacobian"))
    assert "doctor" in said["--help"]
    assert "exit code" in said["doctor --help"]


def test_version(run):
    """The version is one line; ``version`` adds those of what semreg builds on."""
    assert run("--version") == (0, f"semreg {semreg.__version__}\n", "")
    code, out, _ = run("version")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["semreg", "python", "torch", "SimpleITK", "numpy"]


def test_register_writes_all_files(run, pair):
    """A run leaves its seven files and nothing else, says what it reached and where, and brings the images together."""
    fixed, moving, out = pair
    code, text, err = run("register", fixed, moving, "-o", out)
    assert code == 0, err
    files = ["config.toml", "field.nii.gz", "record.json", "report.html", "transform.h5", "uncertainty.nii.gz"]
    assert listed(out) == [*files, "warped.nii.gz"]
    assert json.loads((out / "record.json").read_text(encoding="utf-8"))["outputs"] == listed(out)
    assert text.startswith("verdict: ")
    assert "maps points of the fixed image to the moving image" in text
    assert str(out / "transform.h5") in text
    assert "before" in text
    assert "Jacobian" in text
    assert "warning" not in err
    warped = sitk.ReadImage(str(out / "warped.nii.gz"))
    assert warped.GetPixelIDTypeAsString() == "16-bit signed integer"
    assert warped.GetSize() == FIXED.size_xyz
    assert warped.GetOrigin() == pytest.approx(FIXED.origin_xyz, abs=1e-4)
    # and the warped image is much nearer to the fixed one than the moving image was
    target = sitk.ReadImage(str(fixed))
    before = sitk.Resample(sitk.ReadImage(str(moving), sitk.sitkFloat32), target)
    after = sitk.ReadImage(str(out / "warped.nii.gz"), sitk.sitkFloat32)
    errors = [np.abs(sitk.GetArrayFromImage(image - target)).mean() for image in (before, after)]
    assert errors[1] < 0.6 * errors[0]


def test_files_give_the_warped_image_in_sitk(run, pair):
    """SimpleITK's Resample with either file gives warped.nii.gz within the rounding of interpolation."""
    fixed, moving, out = pair
    assert run("register", fixed, moving, "-o", out, "--dtype", "float32", *QUICK)[0] == 0
    field = sitk.ReadImage(str(out / "field.nii.gz"), sitk.sitkVectorFloat64)
    image, grid = sitk.ReadImage(str(moving), sitk.sitkFloat32), sitk.ReadImage(str(out / "warped.nii.gz"))
    for transform in (sitk.ReadTransform(str(out / "transform.h5")), sitk.DisplacementFieldTransform(field)):
        resampled = sitk.GetArrayFromImage(sitk.Resample(image, grid, transform, sitk.sitkLinear, 0.0))
        difference = np.abs(resampled - sitk.GetArrayFromImage(grid))
        assert np.median(difference) < 0.05
        assert np.mean(difference > 0.5) < 0.01  # the outermost voxels, where rounding decides what is inside


def test_record_says_what_was_done(run, pair):
    """The record is sorted, strict JSON with inputs, checksums, versions, settings and the command."""
    fixed, moving, out = pair
    arguments = ["register", str(fixed), str(moving), "-o", str(out), "--seed", "7", *QUICK]
    assert run(*arguments)[0] == 0
    text = (out / "record.json").read_text(encoding="utf-8")

    def no_constants(name):
        raise AssertionError(f"{name} is no JSON")

    record = json.loads(text, parse_constant=no_constants)
    assert text == json.dumps(record, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    assert record["command"] == ["semreg", *arguments]
    assert record["inputs"]["fixed"] == {
        "path": str(fixed),
        "pixel_type": "float32",
        "series": None,
        "sha256": semreg.read_image(fixed).sha256,
    }
    assert record["inputs"]["moving"]["pixel_type"] == "int16"
    assert record["versions"]["semreg"] == semreg.__version__
    assert set(record["versions"]) == {"semreg", "python", "torch", "SimpleITK", "numpy"}
    assert record["outputs"] == listed(out)
    assert record["verdict"]["level"] in ("PASS", "REVIEW", "FAIL")
    assert set(record["similarity"]) >= {"before", "after"}
    assert set(record["jacobian"]) >= {"minimum", "folded_share"}
    assert record["settings"]["seed"] == 7


def test_json_and_quiet(run, pair):
    """``--json`` prints the record and nothing else on the standard output; ``--quiet`` prints nothing at all."""
    fixed, moving, out = pair
    code, text, _ = run("register", fixed, moving, "-o", out, "--json", *QUICK)
    assert code == 0
    assert text == (out / "record.json").read_text(encoding="utf-8")
    assert run("register", fixed, moving, "-o", out, "--quiet", *QUICK) == (0, "", "")


def test_progress_goes_to_the_standard_error(run, pair):
    """Where there is no terminal what is done is said first, then each stage in one line with its seconds."""
    fixed, moving, out = pair
    _, _, err = run("register", fixed, moving, "-o", out, *QUICK)
    first, *lines = err.splitlines()
    assert first == f"registering {moving} onto {fixed}"
    assert all(re.match(r"[a-z]+ +\d+\.\d s( |$)", line) for line in lines), lines
    names = [line.split()[0] for line in lines]
    assert names == [name for name in REGISTER if name in names]
    assert {"read", "prepare", "coarse", "refine", "write", "judge", "page"} <= {*names}
    (refine,) = (line for line in lines if line.startswith("refine"))
    assert "distance" in refine


def test_format_and_type_of_the_images(run, pair):
    """``--format`` and ``--dtype`` say how the images are written."""
    fixed, moving, out = pair
    assert run("register", fixed, moving, "-o", out, "--format", "nrrd", "--dtype", "uint8", "-q", *QUICK)[0] == 0
    files = ["config.toml", "field.nrrd", "record.json", "report.html", "transform.h5", "uncertainty.nrrd"]
    assert listed(out) == [*files, "warped.nrrd"]
    assert sitk.ReadImage(str(out / "warped.nrrd")).GetPixelIDTypeAsString() == "8-bit unsigned integer"


def test_dry_run_plans_and_writes_nothing(run, pair):
    """The plan is in mm and names the memory; no folder is made."""
    fixed, moving, out = pair
    code, text, _ = run("register", fixed, moving, "-o", out, "--dry-run")
    assert code == 0
    assert " mm" in text
    assert "GB that may be used" in text
    assert not out.exists()
    code, text, _ = run("register", fixed, moving, "-o", out, "--dry-run", "--json")
    assert code == 0
    assert json.loads(text)["memory_bytes"] > 0


def test_settings_come_from_file_set_and_seed(run, pair, tmp_path):
    """A file of settings is read, ``--set`` and ``--seed`` change it, and the record holds the effective settings."""
    fixed, moving, out = pair
    (tmp_path / "settings.toml").write_text(to_toml(RegistrationConfig()) + "", encoding="utf-8")
    arguments = ("register", fixed, moving, "-o", out, "-q", *QUICK, "--config", tmp_path / "settings.toml")
    assert run(*arguments, "--set", "seed=3")[0] == 0
    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    effective = from_dict(RegistrationConfig, record["settings"])
    assert effective.seed == 3
    assert effective.features.spacing_mm == pytest.approx(1.7)
    assert effective.refine.diffusion == RegistrationConfig().refine.diffusion
    (tmp_path / "settings.toml").write_text(to_toml(effective), encoding="utf-8")
    field = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "field.nii.gz")))
    assert run(*arguments)[0] == 0
    assert json.loads((out / "record.json").read_text(encoding="utf-8"))["settings"] == record["settings"]
    assert np.array_equal(field, sitk.GetArrayFromImage(sitk.ReadImage(str(out / "field.nii.gz"))))
    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert record["inputs"]["config"]["path"] == str(tmp_path / "settings.toml")


def test_dicom_and_pictures_are_inputs(run, tmp_path):
    """Two grey pictures are registered in 2-D."""
    grid = make_grid((40, 36), (1.0, 1.0), (-17.0, -25.0), np.eye(2))
    write_image(blobs(grid), tmp_path / "fixed.png", "uint8")
    write_image(blobs(grid, (2.0, 1.0)), tmp_path / "moving.png", "uint8")
    code, _, err = run("register", tmp_path / "fixed.png", tmp_path / "moving.png", "-o", tmp_path / "out")
    assert code == 0, err
    assert sitk.ReadImage(str(tmp_path / "out" / "warped.nii.gz")).GetSize() == (40, 36)


def test_mask_on_another_grid_is_used(run, pair, tmp_path):
    """A mask may lie on a grid of its own."""
    fixed, moving, out = pair
    grid = grid_at(centre(FIXED), (9, 8, 7), (4.5, 5.0, 6.5), rotation(3, 5.0))
    write_image(Volume(torch.ones(1, *grid.shape), grid), tmp_path / "mask.nii.gz", "uint8")
    code, _, err = run("register", fixed, moving, "-o", out, "--fixed-mask", tmp_path / "mask.nii.gz", *QUICK)
    assert code == 0, err
    assert "fixed_mask" in json.loads((out / "record.json").read_text(encoding="utf-8"))["inputs"]


def test_initial_transform_brings_far_images_together(run, pair, tmp_path):
    """Images that do not overlap are registered once a transform says where to start."""
    fixed, _, out = pair
    far = grid_at(centre(MOVING) + np.array([400.0, 0.0, 0.0]), MOVING.size_xyz, MOVING.spacing_xyz, MOVING.direction)
    write_image(blobs(far, (402.0, -1.5, 1.0)), tmp_path / "far.nrrd")
    sitk.WriteTransform(sitk.TranslationTransform(3, (400.0, 0.0, 0.0)), str(tmp_path / "initial.tfm"))
    given = ("--initial", tmp_path / "initial.tfm", *QUICK)
    code, _, err = run("register", fixed, tmp_path / "far.nrrd", "-o", out, *given)
    assert code == 0, err
    transform = sitk.ReadTransform(str(out / "transform.h5"))
    assert transform.GetName() == "CompositeTransform"
    image, grid = sitk.ReadImage(str(tmp_path / "far.nrrd")), sitk.ReadImage(str(out / "warped.nii.gz"))
    resampled = sitk.GetArrayFromImage(sitk.Resample(image, grid, transform, sitk.sitkLinear, 0.0))
    assert np.median(np.abs(resampled - sitk.GetArrayFromImage(grid))) < 0.05


def test_nan_voxels_are_counted_in_a_warning(run, pair):
    """Voxels that are NaN or infinite are counted in a warning and the run goes on."""
    fixed, moving, out = pair
    volume = blobs(FIXED)
    volume.data[0, :2, :3, 4] = torch.nan
    volume.data[0, 5, 5, 5] = torch.inf
    write_image(volume, fixed)
    code, _, err = run("register", fixed, moving, "-o", out, *QUICK)
    assert code == 0
    assert any(line.startswith("warning: ") and " 7 " in line for line in err.splitlines())


def _all_nan(pair):
    write_image(Volume(torch.full((1, *FIXED.shape), torch.nan), FIXED), pair[0])


def _constant(pair):
    write_image(Volume(torch.full((1, *FIXED.shape), 3.0), FIXED), pair[0])


def _four_axes(pair):
    sitk.WriteImage(sitk.Image((5, 4, 3, 2), sitk.sitkInt16), str(pair[0]))


def _vectors(pair):
    sitk.WriteImage(sitk.Image((5, 4, 3), sitk.sitkVectorFloat32, 3), str(pair[1]))


def _rubbish(pair):
    pair[1].write_bytes(b"rubbish" * 50)


def _missing(pair):
    pair[0].unlink()


def _no_series(pair):
    pair[0].unlink()
    pair[0].mkdir()


def _far_away(pair):
    far = grid_at(centre(MOVING) + np.array([400.0, 0.0, 0.0]), MOVING.size_xyz, MOVING.spacing_xyz, MOVING.direction)
    write_image(blobs(far, (400.0, 0.0, 0.0)), pair[1])


def _flat(pair):
    grid = make_grid((22, 20), (1.7, 1.9), (0.0, 0.0), np.eye(2))
    write_image(blobs(grid), pair[0])


def _file_as_output(pair):
    pair[2].write_text("a file")


def _nothing(pair):
    pass


def _empty_mask(pair):
    write_image(Volume(torch.zeros(1, *FIXED.shape), FIXED), pair[0].with_name("mask.nii.gz"))


BAD_INPUT = [
    ("missing file", _missing, (), "fixed.nii.gz: there is no such file"),
    ("rubbish", _rubbish, (), "expected a header in lines of fields and values"),
    ("folder without DICOM", _no_series, (), "DICOM series"),
    ("4-D", _four_axes, (), "expected an image of 2 or 3 axes, got 4"),
    ("vectors", _vectors, (), "expected one value per voxel, got 3 components"),
    ("all NaN", _all_nan, (), "NaN"),
    ("constant", _constant, (), "constant"),
    ("2-D and 3-D", _flat, (), "2"),
    ("no overlap", _far_away, ("--align", "none"), r"mm"),
    ("empty mask", _empty_mask, ("--fixed-mask", "mask.nii.gz"), "mask"),
    ("missing mask", _nothing, ("--moving-mask", "nowhere.nii.gz"), "nowhere.nii.gz: there is no such file"),
    ("output is a file", _file_as_output, (), "expected to write to"),
    ("output below a file", _nothing, ("-o", "fixed.nii.gz/out"), "expected to write to"),
    ("unknown setting", _nothing, ("--set", "sed=1"), "did you mean 'seed'?"),
    ("wrong setting", _nothing, ("--set", "seed=many"), "expected seed to be a whole number, got 'many'"),
    ("missing settings", _nothing, ("--config", "nowhere.toml"), "nowhere.toml: there is no such file"),
    ("unknown device", _nothing, ("--device", "gpu"), "expected a device of auto, cpu, cuda, cuda:n or mps, got 'gpu'"),
    ("missing transform", _nothing, ("--initial", "nowhere.tfm"), "nowhere.tfm: there is no such file"),
    ("no transform", _nothing, ("--initial", "settings.txt"), "settings.txt"),
    ("unknown type", _nothing, ("--dtype", "half"), f"expected --dtype of {', '.join(PIXEL_TYPES)}, got 'half'"),
]


@pytest.mark.parametrize(
    ("spoil", "arguments", "sentence"), [pytest.param(*rest, id=name) for name, *rest in BAD_INPUT]
)
def test_bad_input_is_one_sentence(run, pair, monkeypatch, spoil, arguments, sentence):
    """What is wrong is one line on the standard error, exit code 2, and nothing is left in the output folder."""
    fixed, moving, out = pair
    monkeypatch.chdir(fixed.parent)
    (fixed.parent / "settings.txt").write_text("no transform")
    spoil(pair)
    code, text, err = run("register", fixed, moving, "-o", out, "-q", *arguments)
    assert code == 2
    assert text == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert not out.is_dir()


def test_no_overlap_prints_both_boxes(run, pair):
    """Where images do not overlap the error says where each is, in mm."""
    _far_away(pair)
    code, _, err = run("register", *pair[:2], "-o", pair[2], "--align", "none", "-q")
    assert code == 2
    assert FIXED.box() in err
    assert "initial" in err


@pytest.mark.parametrize("device", ["cuda", "cuda:99"])
def test_missing_gpu_is_one_sentence(run, pair, device):
    """Asking for a GPU that is not there is an error that names the way out."""
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA GPU")
    code, _, err = run("register", *pair[:2], "-o", pair[2], "--device", device)
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: expected a CUDA GPU for {device}, this machine has")


@pytest.mark.parametrize(("words", "said"), [
    (("registr",), "'register'"),
    (("register", "a", "b", "-o", "c", "--presett", "x"), "did you mean --preset?"),
    (("register", "a", "b", "-o", "c", "--align", "afine"), "did you mean affine?"),
    (("register", "a", "b", "-o", "c", "--align", "SyN"), "semreg register deforms by default"),
    (("register", "a", "b", "-o", "c", "-t", "SyN"), "semreg register deforms by default"),
    (("register", "a", "b", "-o", "c", "--shrink-factors", "4x2x1"), "features.pooling"),
    (("register", "a", "b", "-o", "c", "--set", "FinalGridSpacing=8"), "refine.control_mm"),
    (("align", "a", "b", "-o", "c", "--dof", "6"), "--align rigid has 6"),
    (("evaluate", "a", "--fail-on", "reviw"), "did you mean review?"),
    (("register", "a", "b", "-o", "c", "--mask", "m"), "No such option: --mask: masks: --fixed-mask and --moving-mask"),
    (("register", "a", "b", "-o", "c", "--gpu"), "--device cuda"),
    (("register", "-f", "a", "--moving", "b"), "semreg register FIXED MOVING, without flags"),
    (("register", "a", "b", "-o", "c", "--zzz"), "No such option: --zzz"),
    (("register", "a", "b", "-o", "c", "-k", "3"), "No such option: -k"),
    (("register", "a", "b", "-o", "c", "--align", "affin"), "'--align': 'affin' is not one of"),
    (("register", "a", "b", "-o", "c", "--device", "gpu"), "got 'gpu': did you mean cuda?"),
    (("align", "a", "b", "-o", "c", "--device", "tpu"), "expected a device of auto, cpu, cuda"),
])  # fmt: skip
def test_what_was_meant_is_said(run, words, said):
    """A slip is answered with the nearest name, the word of another tool with what it is here."""
    code, _, err = run(*words)
    assert code == 2
    assert said in err.splitlines()[-1]


def test_terms_lead_to_settings_that_are_there():
    """Advice on terms of other tools names settings and flags that exist."""
    from semreg.runtime.settings import names
    from semreg.runtime.terms import TERMS, advice, nearest

    known = set(names(RegistrationConfig))
    for text in TERMS.values():
        assert set(re.findall(r"\b(?:align|coarse|features|intensities|refine)\.\w+", text)) <= known, text
    assert advice("--Shrink_Factors") == TERMS["shrinkfactors"]
    assert advice("metric.gridSpacing") == TERMS["gridspacing"]
    assert advice("nothing") == nearest("zzz", ["rigid"]) == ""


def test_the_help_has_groups_and_whole_sentences(run):
    """Commands stand in groups, each with a sentence that ends; -h is --help, in every command."""
    text = run("-h")[1]
    assert text == run("--help")[1]
    assert "..." not in text.replace("layer_1, ...", "").replace("[ARGS]...", "")
    groups = re.findall(r"^([A-Z][a-z ]+):$", text, re.MULTILINE)
    assert groups == ["Options", "Register", "Look and judge", "Use transforms", "Networks and settings",
                      "This installation"]  # fmt: skip
    for name in ("register", "doctor", "demo", "apply"):
        found = run(name, "-h")[1]
        assert found == run(name, "--help")[1]
        assert "--log-file" in found
        assert "-v, --verbose" in found


def test_a_mask_beside_its_image_is_refused(run, pair, tmp_path):
    """A mask most of which lies beside its image is refused; of another its share is printed."""
    fixed, moving, out = pair
    image = semreg.read_image(fixed).volume
    mask = torch.zeros_like(image.data)
    mask[:, 2:-2, 2:-2, 2:-2] = 1
    write_image(Volume(mask, image.grid), tmp_path / "mask.nii.gz", "uint8")
    code, _, err = run("align", fixed, moving, "-o", out, "--fixed-mask", tmp_path / "mask.nii.gz", "--align", "none")
    assert code == 0
    assert re.search(r"^fixed mask: \d+(\.\d)? % of its voxels count$", err, re.MULTILINE)
    far = replace(image.grid, origin_xyz=tuple(o + 0.8 * e for o, e in zip(
        image.grid.origin_xyz, image.grid.extent_mm[::-1], strict=True)))  # fmt: skip
    write_image(Volume(mask, far), tmp_path / "far.nii.gz", "uint8")
    code, _, err = run("align", fixed, moving, "-o", out, "--fixed-mask", tmp_path / "far.nii.gz", "--align", "none")
    assert code == 2
    assert "lies beside it" in err


def test_wrong_usage_is_exit_code_2(run, pair):
    """What typer itself refuses has the same exit code."""
    assert run("register", *pair[:2])[0] == 2
    assert run("register", *pair[:2], "-o", pair[2], "--format", "dcm")[0] == 2
    assert run("register", *pair[:2], "-o", pair[2], "--threads", "0")[0] == 2


def test_inputs_are_not_written_over(run, pair, tmp_path):
    """A run whose result would replace one of its inputs is refused."""
    fixed, moving, _ = pair
    write_image(blobs(FIXED), tmp_path / "warped.nii.gz")
    content = (tmp_path / "warped.nii.gz").read_bytes()
    code, _, err = run("register", tmp_path / "warped.nii.gz", moving, "-o", tmp_path)
    assert code == 2
    assert "warped.nii.gz, the fixed, would be written over" in err
    assert (tmp_path / "warped.nii.gz").read_bytes() == content
    assert fixed.exists()


def test_debug_shows_the_trace(run, pair):
    """``--debug`` prints where an error came from; the exit code stays."""
    code, _, err = run("register", pair[0], "nowhere.nii", "-o", pair[2], "--debug")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: expected an image file")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("Exception thrown in SimpleITK: Failed to allocate memory for image."),
    ],
)
def test_out_of_memory_is_one_sentence(error, capsys):
    """Too little memory, wherever it shows, is one sentence that says what to do."""
    with pytest.raises(typer.Exit) as end, sentences(debug=False):
        raise error
    assert end.value.exit_code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "--dry-run" in err


def test_other_errors_are_not_hidden():
    """A mistake of the program itself keeps its trace."""
    with pytest.raises(RuntimeError, match="a mistake"), sentences(debug=False):
        raise RuntimeError("a mistake")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_leaves_nothing(pair, tmp_path, number, code):
    """Ctrl-C ends the command with 130 (SIGTERM with 143), whatever it was doing, and leaves no file and no folder."""
    for name, grid in (("fixed", FIXED), ("moving", MOVING)):
        large = grid_at(centre(grid), (90, 80, 70), (0.5, 0.6, 0.7), grid.direction)
        write_image(blobs(large), tmp_path / f"large_{name}.nii.gz")
    out = tmp_path / "deep" / "out"
    inputs = [str(tmp_path / "large_fixed.nii.gz"), str(tmp_path / "large_moving.nii.gz")]
    process = subprocess.Popen(
        [sys.executable, "-m", "semreg", "register", *inputs, "-o", str(out), "--threads", "1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a shell may have it ignored
    )
    eventually(lambda: (out.exists() and listed(out)) or process.poll() is not None)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert not (tmp_path / "deep").exists()


def test_a_lost_terminal_ends_a_command_as_sigterm_does(run):
    """SIGHUP leaves through the ordinary way out with 129, unless it is ignored, as with nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run("--version")
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    run("--version")
    with pytest.raises(SystemExit, match="129"):
        signal.raise_signal(signal.SIGHUP)


def test_help_has_sections():
    """The help of a long command says what belongs together, in plain words, and each flag once."""
    command = typer.main.get_command(app).commands["register"]
    with typer.Context(command, info_name="semreg register") as context:
        text = command.get_help(context)
    titles = ["Arguments", "Input", "Output", "Settings", "Models", "Alignment", "Deformation", "Guidance", "Proof"]
    assert re.findall(r"^(\w+):$", text, re.MULTILINE) == [*titles, "Machine", "Messages"]
    assert "Usage: semreg register [OPTIONS] FIXED MOVING\n" in text
    assert "--initial-landmarks FIXED MOVING" in text
    assert "list[" not in text
    assert "<path>" not in text
    flags = re.findall(r"^  (?:-\w, )?(--[\w-]+)", text[text.index("Arguments:") :], re.MULTILINE)
    assert len(flags) == len(set(flags))
    options = [each for each in command.params if each.param_type_name == "option"]
    assert set(flags) == {next(name for name in each.opts if name.startswith("--")) for each in options} | {"--help"}


@pytest.mark.parametrize("wanted", [["--images-only"], []])
def test_demo_of_another_kind(run, tmp_path, wanted):
    """The demo makes the pair it is asked for, and says which files it wrote."""
    code, text, err = run("demo", "--kind", "slides", "--size", "40", "-o", tmp_path / "demo", *wanted)
    assert code == 0, err
    assert str(tmp_path / "demo" / "moving_labels.png") in text
    assert (tmp_path / "demo" / "report.html").exists() != bool(wanted)
