"""What README and guides say is so: Python runs, commands parse, settings are read, files, targets and links exist."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch
import typer

from semreg.cli import app
from semreg.config import ModelConfig, RefineConfig, RegistrationConfig
from semreg.features.contract import ModelSpec, Normalisation
from semreg.files import OutputFolder
from semreg.phantom import make_pair
from semreg.settings import from_toml, override

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FEATURES = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
MODELS = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def blocks(language, page=README):
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def lines_of_shell(*pages):
    """All lines of all shell blocks."""
    return [line for page in pages for block in blocks("sh", page) for line in block.splitlines() if line.strip()]


def landmark_error(transform):
    """Mean distance in mm of the landmarks of the pair in ``pair_folder``."""
    pair = make_pair(size=24)
    moved = [transform.TransformPoint(point) for point in pair.fixed_points.tolist()]
    return float((torch.tensor(moved) - pair.moving_points).norm(dim=1).mean())


@pytest.fixture
def pair_folder(tmp_path, monkeypatch):
    """The current folder, with the two images that the pages name."""
    from semreg.demo import write_pair

    with OutputFolder(tmp_path) as folder:
        write_pair(make_pair(size=24), folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_blocks_run(pair_folder, capsys):
    """All Python blocks run one after the other, each for itself, in a folder with the two images they name."""
    assert len(blocks("python")) == 6
    said = ""
    for i, block in enumerate(blocks("python")):
        names: dict[str, object] = {}
        exec(compile(block, f"README block {i + 1}", "exec"), names)  # noqa: S102 - the README is ours
        said += capsys.readouterr().out
        if "same" in names:
            a, b = (sitk.GetArrayFromImage(names[name]).astype(float) for name in ("warped", "same"))
            assert abs(a - b).max() <= 1.0  # of integer voxels: rounding
        if "SelfSimilarity" in names:
            assert names["layer"].features.data.shape[0] == 6
            assert names["result"].record["models"][0]["image"] == "both"
        if "verdict" in names:
            assert names["verdict"].level in said
            assert Path("report.html").stat().st_size > 50_000
        if "metric" in names:
            still, affine = sitk.Transform(3, sitk.sitkIdentity), sitk.ReadTransform("affine.h5")
            assert landmark_error(affine) < 0.9 * landmark_error(still)  # of a motion that is no affine one
    assert "smallest Jacobian determinant" in said
    assert {"warped.nii.gz", "transform.h5", "field.nii.gz"} <= {path.name for path in pair_folder.iterdir()}


@pytest.mark.usefixtures("pair_folder")
def test_python_of_the_guide_runs():
    """The Python block of docs/features.md gives its network the description that it writes down."""
    (block,) = blocks("python", FEATURES)
    names: dict[str, object] = {}
    exec(compile(block, "docs/features.md", "exec"), names)  # noqa: S102 - the page is ours
    assert names["layer"].features.data.shape[0] == 8
    spec = names["result"].record["models"][0]["spec"]
    assert (spec["spacing_mm"], spec["axes"], spec["normalisation"]["kind"]) == ([8.0], "LIA", "z-score")


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


@pytest.mark.parametrize("line", [x for x in lines_of_shell(README, FEATURES, MODELS) if x.startswith("semreg ")])
def test_commands_parse(line):
    """Every semreg command in the README and the guides is one that the command line understands."""
    group = typer.main.get_command(app)
    arguments = shlex.split(line)[1:]
    if arguments == ["--help"]:
        return
    with group.make_context("semreg", list(arguments)) as context:
        name, command, rest = group.resolve_command(context, list(arguments))
        if name == "models":
            name, command, rest = command.resolve_command(context, list(rest))
        parsed = command.make_context(name, list(rest), parent=context)
    for assignment in parsed.params.get("assignments") or ():
        override(RegistrationConfig(models=(ModelConfig(), ModelConfig())), assignment)


def test_make_targets_exist():
    """Every ``make`` target in the README is in the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {shlex.split(line)[1] for line in lines_of_shell(README) if line.startswith("make ")}
    assert named == {"demo", "test"}
    assert named <= set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))


@pytest.mark.parametrize(
    "page", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "native/README.md", *map(str, Path("docs").glob("*.md"))]
)
def test_links_lead_somewhere(page):
    """Every link to a file of the project is to one that exists."""
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        assert "://" in target or (path.parent / target).exists(), target


def test_settings_named_in_the_text_exist():
    """Every ``--set name=…`` in the README names a setting."""
    from semreg.settings import names

    named = set(re.findall(r"--set ([a-z_.]+)=", README))
    assert named
    assert named <= set(names(RegistrationConfig))
