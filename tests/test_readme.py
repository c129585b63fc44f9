"""What the README says is so: its Python runs, its commands parse, its files, targets, links and settings exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import SimpleITK as sitk
import typer

from semreg.cli import app
from semreg.config import RegistrationConfig
from semreg.files import OutputFolder
from semreg.phantom import make_pair
from semreg.settings import override

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def lines_of_shell():
    """All lines of all shell blocks."""
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    """All Python blocks run one after the other, each for itself, in a folder with the two images they name."""
    from semreg.demo import write_pair

    with OutputFolder(tmp_path) as folder:
        write_pair(make_pair(size=24), folder)
    monkeypatch.chdir(tmp_path)
    assert len(blocks("python")) == 3
    for i, block in enumerate(blocks("python")):
        names: dict[str, object] = {}
        exec(compile(block, f"README block {i + 1}", "exec"), names)  # noqa: S102 - the README is ours
        if "same" in names:
            a, b = (sitk.GetArrayFromImage(names[name]).astype(float) for name in ("warped", "same"))
            assert abs(a - b).max() <= 1.0  # of integer voxels: rounding
    assert "smallest Jacobian determinant" in capsys.readouterr().out
    assert {"warped.nii.gz", "transform.h5", "field.nii.gz"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("line", [line for line in lines_of_shell() if line.startswith("semreg ")])
def test_commands_parse(line):
    """Every semreg command in the README is one that the command line understands."""
    group = typer.main.get_command(app)
    arguments = shlex.split(line)[1:]
    if arguments == ["--help"]:
        return
    with group.make_context("semreg", list(arguments)) as context:
        name, command, rest = group.resolve_command(context, list(arguments))
        parsed = command.make_context(name, list(rest), parent=context)
    for assignment in parsed.params.get("assignments") or ():
        override(RegistrationConfig(), assignment)


def test_make_targets_exist():
    """Every ``make`` target in the README is in the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {shlex.split(line)[1] for line in lines_of_shell() if line.startswith("make ")}
    assert named == {"demo", "test"}
    assert named <= set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", *map(str, Path("docs").glob("*.md"))])
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
