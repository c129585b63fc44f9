"""Promises of semreg.toml: where it is looked for, what it yields to, and that a run says so and holds it all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.main import get_command

from blobs import blobs
from conftest import grid_at, rotation
from semreg.cli import app
from semreg.cli.batch import _with_settings
from semreg.cli.evaluate import checks_of
from semreg.cli.evaluate_flags import EvaluateFlags
from semreg.cli.register_flags import SettingFlags, load_config
from semreg.cli.settings_file import NAME, OFF, find_settings
from semreg.config import RegistrationConfig
from semreg.errors import ConfigError
from semreg.io.files import write_image
from semreg.presets import configure
from semreg.runtime.settings import from_toml

FIXED = grid_at((3.0, -7.0, 11.0), (19, 17, 14), (1.9, 2.1, 2.8), rotation(3))
MOVING = grid_at((4.0, -6.0, 12.0), (20, 17, 18), (1.8, 2.3, 2.4), rotation(3, -21.0))
TEXT = "seed = 7\n[align]\ntransform = 'none'\n[refine]\niterations = 3\nsymmetric = false\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a file of settings, seen from a folder two below its root; outside lies another file."""
    (tmp_path / NAME).write_text("seed = 99\n", encoding="utf-8")
    root = tmp_path / "project"
    (root / "data" / "pairs").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / NAME).write_text(TEXT, encoding="utf-8")
    monkeypatch.chdir(root / "data" / "pairs")
    return root


@pytest.fixture
def images(tmp_path):
    """A fixed and a moving image."""
    write_image(blobs(FIXED), tmp_path / "fixed.nii.gz", "float32")
    write_image(blobs(MOVING, (2.0, -1.5, 1.0)), tmp_path / "moving.nii.gz", "float32")
    return tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz"


def test_the_nearest_file_up_to_the_root_holds(project, monkeypatch):
    """The working folder first, then those above it up to the one with .git, and none beyond."""
    assert find_settings() == Path("../..") / NAME
    (project / "data" / NAME).write_text("", encoding="utf-8")
    assert find_settings() == Path("..") / NAME
    monkeypatch.chdir(project)
    assert find_settings() == Path(NAME)
    (project / NAME).unlink()
    assert find_settings() is None


def test_without_a_root_only_the_working_folder_counts(project, monkeypatch):
    """A file above a folder that belongs to no project is not met by chance."""
    (project / ".git").rmdir()
    assert find_settings() is None
    monkeypatch.chdir(project)
    assert find_settings() == Path(NAME)


def test_all_that_is_said_holds_over_what_is_found(project, tmp_path):
    """A preset and --set win; --config stands in its place, none leaves it out; Python looks for nothing."""
    assert (load_config(SettingFlags()).seed, load_config(SettingFlags()).refine.iterations) == (7, 3)
    assert load_config(SettingFlags(assignments=("seed=5",))).seed == 5
    (project / NAME).write_text("seed = 7\n[coarse]\nreach_mm = 11\n", encoding="utf-8")
    preset = load_config(SettingFlags(preset="lung-ct"))
    assert (preset.coarse.reach_mm, preset.seed) == (50.0, 7)
    mine = tmp_path / "mine.toml"
    mine.write_text("[refine]\ndiffusion = 0.7\n", encoding="utf-8")
    assert load_config(SettingFlags(config=mine)) == configure(file=mine)
    assert load_config(SettingFlags(config=OFF)) == RegistrationConfig()
    assert configure() == RegistrationConfig()


@pytest.mark.parametrize("command", ["register", "align"])
def test_a_run_says_and_records_it(run, project, images, tmp_path, command):
    """One sentence names the file, the record has it with its checksum, and config.toml repeats the run elsewhere."""
    out = tmp_path / "out"
    code, _, err = run(command, *images, "-o", out, "--threads", 1)
    assert code == 0, err
    assert err.count(f"settings are read from ../../{NAME}, which was found; --config none leaves it out") == 1
    found = json.loads((out / "record.json").read_text(encoding="utf-8"))["inputs"]["config"]
    assert found["path"].endswith(NAME)
    assert len(found["sha256"]) == 64
    effective = from_toml(RegistrationConfig, out / "config.toml")
    assert (effective.seed, effective.refine.iterations) == (7, 3)
    (project / NAME).unlink()
    again = tmp_path / "again"
    assert run(command, *images, "-o", again, "--threads", 1, "--config", out / "config.toml")[0] == 0
    assert (again / "config.toml").read_bytes() == (out / "config.toml").read_bytes()
    assert (again / "transform.h5").read_bytes() == (out / "transform.h5").read_bytes()


def test_none_leaves_it_out(run, project, images, tmp_path):
    """With --config none a broken file is not read, and no sentence speaks of it."""
    (project / NAME).write_text("[refine\n", encoding="utf-8")
    words = ("register", *images, "-o", tmp_path / "out", "--dry-run")
    code, _, err = run(*words, "--config", "none")
    assert code == 0, err
    assert NAME not in err


@pytest.mark.parametrize(
    ("text", "said"), [("[refine\n", "expected settings in TOML"), ("[refine]\niteratons = 3\n", "iterations")]
)
def test_a_broken_file_is_refused(run, project, images, tmp_path, text, said):
    """Exit code 2 and one sentence; nothing is written."""
    (project / NAME).write_text(text, encoding="utf-8")
    code, _, err = run("register", *images, "-o", tmp_path / "out")
    assert code == 2
    assert said in err
    assert not (tmp_path / "out").exists()


def test_it_is_not_written_over(run, project, images, monkeypatch):
    """A result in the project's own folder leaves the file as it is."""
    monkeypatch.chdir(project)
    code, _, err = run("register", *images, "-o", project)
    assert code == 0, err
    assert (project / NAME).read_text(encoding="utf-8") == TEXT


def test_every_pair_of_a_batch_gets_it(run, project, images, tmp_path):
    """Each pair's config.toml has the settings, and the sentence is said once though settings differ by pair."""
    table = tmp_path / "pairs.csv"
    rows = [f"{name},{images[0]},{images[1]},{value}" for name, value in (("one", 1), ("two", 2))]
    table.write_text("\n".join(["name,fixed,moving,set.seed", *rows]) + "\n", encoding="utf-8")
    code, _, err = run("batch", table, "-o", tmp_path / "out")
    assert code == 0, err
    assert err.count("settings are read from") == 1
    for name, seed in (("one", 1), ("two", 2)):
        settings = from_toml(RegistrationConfig, tmp_path / "out" / name / "config.toml")
        assert (settings.seed, settings.refine.iterations) == (seed, 3)


@pytest.mark.parametrize(
    "text",
    [
        "[[models]]\nmodel = 'net.pt'\n",
        "[[models]]\nmodel = 'mind'\nmoving = 'net.pt'\n",
        "[ensemble]\nmodels = ['net.pt']\n",
        "start = 'net.pt'\n",
        "[[models]]\nmodel = 'ts/m730'\n",
    ],
    ids=["model", "moving", "ensemble", "start", "a file with a name of the catalogue"],
)
def test_what_was_found_names_no_file_that_runs_code(text, project, monkeypatch):
    """A folder from elsewhere may hold a network and settings that name it: only who names the settings runs it."""
    monkeypatch.chdir(project)
    (project / NAME).write_text(text, encoding="utf-8")
    for name in ("net.pt", "ts/m730"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_bytes(b"?")
    with pytest.raises(ConfigError, match=r"no file of a model in semreg\.toml.*--config semreg\.toml"):
        load_config(SettingFlags())
    load_config(SettingFlags(config=Path(NAME)))
    load_config(SettingFlags(config=OFF))


def test_what_was_found_may_name_what_is_known(project):
    """Models that are built in, and those of the catalogue."""
    (project / NAME).write_text("[[models]]\nmodel = 'mind'\n[[models]]\nmodel = 'ts/m730'\n", encoding="utf-8")
    assert [model.model for model in load_config(SettingFlags()).models] == ["mind", "ts/m730"]


def test_help_says_who_looks_for_it(run, project, tmp_path):
    """Each command that speaks of the file reads it; a judgement reads only what is named, and none is no file."""
    flags = EvaluateFlags(sources=(tmp_path / "t.h5",))
    assert checks_of(flags, None) == RegistrationConfig()
    assert checks_of(replace(flags, config=OFF), None) == RegistrationConfig()
    assert checks_of(replace(flags, config=project / NAME), None).seed == 7
    speaking = {name for name in get_command(app).commands if NAME in run(name, "--help")[1]}
    reading = {"register", "align", "batch", "propagate", "template", "motion", "large"}
    assert speaking == reading | {"slicer"}  # whose text says only with what none is looked for


def test_files_of_networks_are_absolute_in_a_batch(project, monkeypatch):
    """Its commands run in other folders: each setting that names a network does so from anywhere."""
    monkeypatch.chdir(project)
    (project / "net.pt").write_bytes(b"?")
    config = RegistrationConfig()
    words = ("ensemble.models=net.pt,mind", "start=net.pt")
    found = _with_settings(config, words)
    assert found.ensemble.models == (str(project / "net.pt"), "mind")
    assert found.start == str(project / "net.pt")
    assert found.models == config.models
