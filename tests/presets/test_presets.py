"""Promises of the presets: each can be read, says why, fits its pair, and brings a pair together."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from conftest import grid_at, rotation
from semreg.cli.presets import app
from semreg.cli.register_flags import SettingFlags, load_config
from semreg.config import RegistrationConfig
from semreg.errors import ConfigError
from semreg.phantom import make_pair, render
from semreg.presets import configure, effort_names, layered, load_preset, preset_names, read_toml
from semreg.registration.matching import resolve_models
from semreg.registration.pipeline import register
from semreg.registration.plan import ImageFacts, Machine, make_plan
from semreg.runtime.settings import to_dict

ALL = (*preset_names(), *effort_names())
PAIRS = ("brain-multicontrast", "brain-t1", "cbct-ct", "ct-mr-abdomen", "histology-2d", "lung-ct")
GRIDS = {
    "brain-multicontrast": ((170, 220, 190), (1.0, 1.1, 1.2)),
    "brain-t1": ((170, 220, 190), (1.0, 1.1, 1.2)),
    "cbct-ct": ((256, 250, 88), (0.9, 0.9, 2.0)),
    "ct-mr-abdomen": ((320, 260, 72), (1.2, 1.2, 3.0)),
    "histology-2d": ((4000, 3000), (0.0005, 0.0005)),
    "lung-ct": ((380, 300, 260), (0.8, 0.8, 1.25)),
    "fast": ((170, 220, 190), (1.0, 1.1, 1.2)),
    "quality": ((170, 220, 190), (1.0, 1.1, 1.2)),
}

CONTRASTS = {"brain-t1": ("mr", "mr"), "cbct-ct": ("ct", "ct"), "lung-ct": ("ct", "ct")}
"""Of the fixed and the moving phantom; any other preset is for two contrasts."""


def test_there_is_a_preset_for_each_common_pair():
    """The presets are those that are documented; fast and quality stand beside them."""
    assert preset_names() == PAIRS
    assert effort_names() == ("fast", "quality")


@pytest.mark.parametrize("name", ALL)
def test_every_preset_is_read_and_says_why(name):
    """A preset is settings that exist and differ from the defaults, one sentence what for, and the reasons."""
    preset = load_preset(name)
    config = layered(preset.settings)
    assert config != RegistrationConfig()
    assert "\n" not in preset.description
    assert len(preset.why.split()) > 20
    assert preset.why.endswith(".")
    assert to_dict(layered({}, preset.settings)) == to_dict(config)


@pytest.mark.parametrize("name", ALL)
def test_every_setting_of_a_preset_changes_something(name):
    """No setting of a preset repeats a default, but where the reason says that it must not be guessed."""
    defaults = to_dict(RegistrationConfig())
    for section, table in load_preset(name).settings.items():
        for key, value in table.items():
            assert value != defaults[section][key], f"{name}: {section}.{key}"


@pytest.mark.parametrize("name", ALL)
def test_every_preset_fits_images_of_its_kind(name):
    """On a grid as such images have, a preset resolves, and takes less than 12 GB."""
    size, spacing = GRIDS[name]
    seen = ImageFacts(grid_at((3.0, -5.0, 9.0)[: len(size)], size, spacing, rotation(len(size))))
    config = layered(load_preset(name).settings)
    pairings = resolve_models(config, len(size), torch.device("cpu"))
    found = make_plan((seen, seen), config, Machine("cpu", 10**12), pairings=pairings)
    assert found.memory_bytes < 12e9
    assert 0 < found.config.coarse.reach_mm < 0.6 * max(seen.grid.extent_mm)


@functools.cache
def bodies(dimension):
    """An anatomy, a known deformation of at most 9 mm, a grid in the body for each image, and landmarks there."""
    pair = make_pair(size=24, dimension=dimension, displacement_mm=9.0, seed=3)
    middle = torch.as_tensor(pair.fixed.grid.corners_xyz().mean(0))
    size, spacing = ((30, 28, 26), (4.1, 4.4, 4.0)) if dimension == 3 else ((70, 64), (2.0, 2.2))
    fixed = grid_at(middle.numpy(), size, spacing, rotation(dimension))
    more = grid_at(middle.numpy(), [n + 4 for n in size], [s * 1.05 for s in spacing], rotation(dimension, -4.0))
    random = torch.rand(dimension, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = middle[:, None] + 70.0 * (random - 0.5)
    return pair, fixed, more, points


@pytest.mark.parametrize("name", ALL)
def test_every_preset_brings_a_pair_together(name):
    """Points of a phantom in the contrasts that a preset is for end nearer than they began."""
    flat = name == "histology-2d"
    pair, fixed, moving, points = bodies(2 if flat else 3)
    one, other = CONTRASTS.get(name, ("ct", "mr"))
    images = render(pair.anatomy, fixed, one), render(pair.anatomy, moving, other, origin_of=pair.true_map.inverse)
    true = pair.true_map(points)
    result = register(*images, config=layered(load_preset(name).settings), device="cpu")
    before, after = (
        torch.linalg.vector_norm(x - true, dim=0).mean() for x in (points, result.field.point_map()(points))
    )
    assert after < 0.8 * before
    assert result.record.jacobian.folded_share == 0


def test_an_unknown_preset_is_refused_with_the_nearest():
    """A wrong name is an error that lists the names and names the nearest."""
    with pytest.raises(ConfigError, match="did you mean lung-ct"):
        load_preset("lungs-ct")
    with pytest.raises(ConfigError, match="histology-2d"):
        load_preset("../presets/fast")


def test_layers_replace_single_settings_and_whole_lists():
    """Later layers win one setting at a time; the models are one list."""
    config = layered(
        {"refine": {"iterations": 5, "levels": 3}, "models": [{"model": "mind"}, {"model": "intensity"}]},
        {"refine": {"iterations": 7}, "models": [{"model": "intensity"}]},
    )
    assert (config.refine.iterations, config.refine.levels, config.refine.diffusion) == (7, 3, None)
    assert [model.model for model in config.models] == ["intensity"]
    with pytest.raises(ConfigError, match=r"did you mean 'refine\.iterations'"):
        layered({"refine": {"iteration": 5}})
    with pytest.raises(ConfigError, match="table of settings"):
        layered({"refine": {"iterations": 5}}, {"refine": 3})


def test_python_layers_settings_as_the_command_line_does(tmp_path):
    """``configure`` gives what the flags of the same names give, from the preset up to the last assignment."""
    path = tmp_path / "mine.toml"
    path.write_text("[refine]\ndiffusion = 2\niterations = 99\n[coarse]\nreach_mm = 70\n", encoding="utf-8")
    said = "refine.levels=3", "refine.levels=1", "models.weight=2"
    flags = SettingFlags(preset="lung-ct", config=path, fast=True, assignments=said)
    found = configure(*said, preset="lung-ct", file=str(path), effort="fast")
    assert found == load_config(flags) != load_config(replace(flags, fast=False))
    assert (found.refine.diffusion, found.coarse.reach_mm, found.refine.levels) == (2.0, 70.0, 1)
    assert found.refine.iterations == load_preset("fast").settings["refine"]["iterations"]
    assert configure() == RegistrationConfig()


def test_settings_that_are_none_are_refused(tmp_path):
    """``configure`` names what it does not know and the nearest that it knows."""
    with pytest.raises(ConfigError, match=r"did you mean 'refine\.diffusion'"):
        configure("refine.difusion=1")
    with pytest.raises(ConfigError, match="did you mean lung-ct"):
        configure(preset="lungs-ct")
    with pytest.raises(ConfigError, match="effort of fast or quality, got 'lung-ct'"):
        configure(effort="lung-ct")
    with pytest.raises(ConfigError, match="no such file"):
        configure(file=tmp_path / "missing.toml")


def test_a_file_of_settings_may_say_why(tmp_path):
    """A preset that was printed to a file is a file of settings; a broken or missing file is one sentence."""
    path = tmp_path / "mine.toml"
    path.write_text(load_preset("lung-ct").text, encoding="utf-8")
    assert read_toml(path) == load_preset("lung-ct").settings
    path.write_text("refine = {", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"settings in TOML in .*mine\.toml"):
        read_toml(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="a TOML file"):
        read_toml(path)
    with pytest.raises(ConfigError, match="no such file"):
        read_toml(tmp_path / "missing.toml")


def test_the_command_lists_and_shows():
    """``list`` has a line for each preset with its flag; ``show`` prints the file as it is."""
    run = CliRunner().invoke
    lines = run(app, ["list"]).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines[-len(ALL) :]] == list(ALL)
    assert "--preset lung-ct" in "".join(lines)
    assert "--fast" in "".join(lines)
    listed = json.loads(run(app, ["list", "--json"]).stdout)
    assert [entry["name"] for entry in listed] == list(ALL)
    for name in ALL:
        assert run(app, ["show", name]).stdout == load_preset(name).text
    assert json.loads(run(app, ["show", "fast", "--json"]).stdout)["settings"] == load_preset("fast").settings
    wrong = run(app, ["show", "slow"])
    assert wrong.exit_code == 2
    assert wrong.stderr.count("\n") == 1
