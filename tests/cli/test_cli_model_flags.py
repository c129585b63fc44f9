"""Promises of the flags of ``semreg register`` that choose models: they are the settings, and say what does not fit."""

from __future__ import annotations

import json

import pytest

from conftest import make_grid, noise_volume, rotation
from semreg.cli.model_flags import ModelFlags, model_configs
from semreg.config import ModelConfig
from semreg.core.fields import Volume
from semreg.errors import ConfigError
from semreg.io.files import write_image
from small_networks import Small, save

BASE = (ModelConfig(),)


def test_nothing_given_changes_nothing():
    """Without a flag the models are those of the settings."""
    assert model_configs(BASE, ModelFlags()) == BASE


def test_flags_are_settings():
    """Each flag is the setting of its name, ``--model`` stands in the place of the models of the settings.

    Layers and descriptions that are given once for all models go to the networks: what is built in has none.
    """
    flags = ModelFlags(
        model=("a.pt", "mind"), moving_model=("b.pt",), layers=("0,-1",), distance=("l2,cosine",),
        weight=("1,0.5", "2"), pca=("8", "0"),
    )  # fmt: skip
    first, second = model_configs((ModelConfig(model="old", subset=4),), flags)
    shared = {"moving": "b.pt", "distance": ("l2", "cosine")}
    assert first == ModelConfig(model="a.pt", layers=(0, -1), weight=(1.0, 0.5), pca=8, **shared)
    assert second == ModelConfig(model="mind", weight=(2.0,), pca=0, **shared)


def test_flags_change_the_models_of_the_settings():
    """Without ``--model`` the other flags change what a file of settings names, and nothing else in it."""
    (model,) = model_configs((ModelConfig(model="old", subset=4),), ModelFlags(weight=("3",), layers=("2",)))
    assert model == ModelConfig(model="old", subset=4, weight=(3.0,), layers=(2,))


@pytest.mark.parametrize(
    ("models", "given", "expected"),
    [
        (1, ("axes=LIA", "spacing_mm=1,1,2"), [("axes=LIA", "spacing_mm=1,1,2")]),
        (1, ("axes=LIA,patch=[96,96,64]",), [("axes=LIA", "patch=[96,96,64]")]),
        (2, ("axes=LIA,channels=3",), [("axes=LIA", "channels=3")] * 2),
        (2, ("axes=LIA", "spacing_mm=1,1,2"), [("axes=LIA",), ("spacing_mm=1,1,2",)]),
    ],
)
def test_descriptions(models, given, expected):
    """All ``--spec`` hold of one model; of several, one is for all or one is for each; a list may stand in it."""
    found = model_configs(BASE, ModelFlags(model=("a.pt", "b.pt")[:models], spec=given))
    assert [model.spec for model in found] == expected


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (ModelFlags(model=("a", "b", "c"), pca=("1", "2")), "expected --pca once, or once for each of 3 models"),
        (
            ModelFlags(moving_model=("a", "b")),
            "expected --moving-model once, or once for each of 1 models, got it 2 times",
        ),
        (ModelFlags(layers=("last",)), "--layers last: expected layers to be"),
        (ModelFlags(distance=("euclid",)), "--distance euclid: expected models.distance"),
        (ModelFlags(weight=("-1",)), "--weight -1: expected models.weight >= 0"),
        (ModelFlags(pca=("1.5",)), "--pca 1.5: expected pca to be a whole number"),
    ],
)
def test_what_does_not_fit_is_one_sentence(flags, sentence):
    """A wrong number of values and a wrong value are errors that name the flag."""
    with pytest.raises(ConfigError) as error:
        model_configs(BASE, flags)
    assert sentence in str(error.value)


def test_registration_with_a_network(run, tmp_path):
    """The models of the command line are in the settings of the record, and they are what is compared."""
    grid = make_grid((16, 14, 12), (1.7, 1.9, 2.6), (3.0, -7.0, 11.0), rotation(3))
    for number, name in enumerate(("fixed.nii", "moving.nii")):
        write_image(Volume(noise_volume(grid, seed=number).data.float(), grid), tmp_path / name)
    model = save(Small(), tmp_path / "small.pt")
    code, _, err = run(
        "register", tmp_path / "fixed.nii", tmp_path / "moving.nii", "-o", tmp_path / "out", "-q", "--model", model,
        "--layers", "0", "--distance", "cosine", "--weight", "2", "--model", "mind", "--layers", "0",
        "--set", "models.1.pca=4", "--set", "refine.iterations=2",
    )  # fmt: skip
    assert code == 0, err
    models = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))["settings"]["models"]
    assert [(one["model"], one["layers"], one["distance"], one["weight"], one["pca"]) for one in models] == [
        (str(model), [0], ["cosine"], [2.0], 0),
        ("mind", [0], ["cosine"], [2.0], 4),
    ]
    code, _, err = run(
        "register", tmp_path / "fixed.nii", tmp_path / "moving.nii", "-o", tmp_path / "out", "--model", "ts/m730",
        "--models", tmp_path,
    )  # fmt: skip
    assert code == 2
    assert str(tmp_path) in err
