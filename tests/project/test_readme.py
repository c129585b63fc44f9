"""What README and guides say is so: Python and commands run, settings are read, targets exist."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch
import typer

from pages import blocks
from semreg.cli import app, main
from semreg.config import ModelConfig, RefineConfig, RegistrationConfig
from semreg.features.contract import ModelSpec, Normalisation
from semreg.io.files import write_image
from semreg.presets import load_preset
from semreg.runtime.settings import from_toml, names, override
from textured_pair import textured_pair

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def page(name):
    """The text of a page below docs."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


FEATURES = page("features.md")
GUIDES = {name: page(name) for name in ("features.md", "models.md", "choose.md", "limits.md", "concepts/stages.md")}
SLOW = ("batch", "doctor")
"""Commands that start processes of their own, the doctor one that loads all of ITK's registration: they are parsed here
and run by the tests of the cohort and of the doctor."""


def lines_of_shell(*pages):
    """All lines of all shell blocks."""
    return [line for page in pages for block in blocks("sh", page) for line in block.splitlines() if line.strip()]


@pytest.fixture
def pair_folder(tmp_path, monkeypatch):
    """The current folder, with the files that the pages name, all of a small pair."""
    from moved_pair import write_network
    from semreg.phantom import write_pair

    pair = textured_pair()
    write_pair(pair, tmp_path)
    bright = (pair.moving.data > pair.moving.data.median()).float()
    write_image(type(pair.moving)(bright, pair.moving.grid), tmp_path / "labels.nii.gz", "uint8")
    write_network(tmp_path / "net.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(block, where):
    """The names that a block of Python has made."""
    made: dict[str, object] = {}
    exec(compile(block, where, "exec"), made)  # noqa: S102 - the page is ours
    return made


def test_python_blocks_run(pair_folder, capsys):
    """The Python blocks run one after the other, each for itself, in a folder with the images they name."""
    register, resample = blocks("python", README)
    run(register, "README, register")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("smallest Jacobian determinant: 0.")
    assert said[1].split()[0] in ("PASS", "REVIEW", "FAIL")
    assert {"warped.nii.gz", "transform.h5", "report.html"} <= {path.name for path in pair_folder.iterdir()}
    warped = sitk.GetArrayFromImage(run(resample, "README, resample")["warped"]).astype(float)
    apart = abs(warped - sitk.GetArrayFromImage(sitk.ReadImage("warped.nii.gz")))
    assert (apart > 1).sum() <= 2  # integers, and on the very border of the moving image: rounding


@pytest.mark.usefixtures("pair_folder")
def test_commands_run(capfd):
    """The commands run in the order in which they stand, each on the results of those before, without a complaint."""
    lines = [line for line in lines_of_shell(README) if line.startswith("semreg ")]
    ran = [shlex.split(line)[1:] for line in lines if shlex.split(line)[1] not in SLOW]
    assert len(ran) == len(lines) - len(SLOW)
    for arguments in ran:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert not end.value.code, (arguments, capfd.readouterr().err)
    assert Path("out/evaluation.json").is_file()
    assert sitk.ReadImage("labels_on_fixed.nii.gz").GetSize() == sitk.ReadImage("fixed.nii.gz").GetSize()
    assert Path("net/report.html").is_file()


def parsed(line):
    """The parameters of a command line, or None for the list of commands."""
    group = typer.main.get_command(app)
    arguments = shlex.split(line, comments=True)[1:]
    if arguments == ["--help"]:
        return None
    with group.make_context("semreg", list(arguments)) as context:
        name, command, rest = group.resolve_command(context, list(arguments))
        if name in ("models", "presets"):
            name, command, rest = command.resolve_command(context, list(rest))
        return command.make_context(name, list(rest), parent=context).params


@pytest.mark.parametrize(
    "line", [line for line in lines_of_shell(README, *GUIDES.values()) if line.startswith("semreg ")]
)
def test_commands_parse(line):
    """Every semreg command in the README and the guides is one that the command line understands."""
    for assignment in (parsed(line) or {}).get("assignments") or ():
        override(RegistrationConfig(models=(ModelConfig(), ModelConfig())), assignment)


def test_make_targets_exist():
    """The two commands are the README's, and every ``make`` target it names is in the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    assert [line for line in lines_of_shell(README) if line.startswith("make ")] == ["make demo", "make test"]
    assert set(re.findall(r"`make ([a-z]+)", README)) | {"demo", "test"} <= targets


@pytest.mark.parametrize("text", [README, *GUIDES.values()], ids=["README.md", *GUIDES])
def test_settings_named_in_the_text_exist(text):
    """Every ``--set name=…`` and every section ``name.*`` names a setting."""
    known = set(names(RegistrationConfig))
    for name in re.findall(r"--set ([a-z_.]+)=", text):
        assert name in known
    for section in re.findall(r"`([a-z]+)\.\*`", text):
        assert any(name.startswith(f"{section}.") for name in known)


@pytest.mark.usefixtures("pair_folder")
def test_python_of_the_guide_runs():
    """The Python block of docs/features.md gives its network the description that it writes down."""
    (block,) = blocks("python", FEATURES)
    made = run(block, "docs/features.md")
    assert made["layer"].features.data.shape[0] == 8
    spec = made["result"].record.models[0].spec
    assert (spec.spacing_mm, spec.axes, spec.normalisation.kind) == ((8.0,), "LIA", "z-score")


@pytest.mark.usefixtures("pair_folder")
def test_python_of_the_report_page_runs(capsys):
    """The Python block of docs/report.md writes a page and prints the verdict."""
    (block,) = blocks("python", page("report.md"))
    assert run(block, "docs/report.md")["verdict"].level in capsys.readouterr().out
    assert Path("report.html").stat().st_size > 50_000


@pytest.mark.usefixtures("pair_folder")
def test_python_of_the_configuration_page_runs():
    """The Python block of docs/configuration.md registers with all that it says."""
    (block,) = blocks("python", page("configuration.md"))
    settings = run(block, "docs/configuration.md")["result"].record.settings
    assert (settings.align.transform, settings.refine.diffusion) == ("none", 1.0)
    assert settings.refine.iterations == load_preset("fast").settings["refine"]["iterations"]


@pytest.mark.usefixtures("pair_folder")
def test_python_of_the_transforms_page_runs():
    """The Python blocks of docs/transforms.md give the same image from transform and field, in SimpleITK and in itk."""
    import semreg

    itk = pytest.importorskip("itk", reason="needs the package itk")
    fixed, moving = semreg.read_image("fixed.nii.gz"), semreg.read_image("moving.nii.gz")
    field = semreg.Field.from_mm(torch.full((3, *fixed.volume.grid.shape), 2.5), fixed.volume.grid)
    semreg.write_transform(field, "transform.h5")
    semreg.write_field(field, "field.nii.gz")
    assert moving.pixel_type == "uint16"
    first, second, third = blocks("python", page("transforms.md"))
    made = run(first + second, "docs/transforms.md, SimpleITK")
    assert abs(sitk.GetArrayFromImage(made["warped"] - made["same"]).astype(float)).max() <= 1
    there = itk.array_from_image(run(third, "docs/transforms.md, itk")["warped"])
    assert abs(there - sitk.GetArrayFromImage(made["warped"])).max() <= 1
    assert there.max() > 100


def test_the_guide_describes_every_field():
    """The description in docs/features.md has every field of ``ModelSpec`` with its default; the example is read."""
    whole, example, _ = blocks("toml", FEATURES)
    assert from_toml(ModelSpec, whole) == ModelSpec(name="mine")
    for cls in (ModelSpec, Normalisation):
        assert {field.name for field in fields(cls)} <= set(re.findall(r"^\[?(\w+)", whole, flags=re.MULTILINE))
    assert from_toml(ModelSpec, example).axes == "LIA"


def test_the_guide_lists_every_setting_of_a_model():
    """The settings in docs/features.md are read as two models, and its tables name all keys of ``[[models]]``."""
    config = from_toml(RegistrationConfig, blocks("toml", FEATURES)[2])
    assert [model.model for model in config.models] == ["mind", "ts/m730"]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", FEATURES, flags=re.MULTILINE))
    assert {field.name for field in fields(ModelConfig)} <= set(rows)
    assert rows["update_every"] == str(RefineConfig().update_every)
    assert rows["subset"] == str(ModelConfig().subset)
