"""Promises of ``semreg infer`` and ``semreg features``: files that open elsewhere, one sentence for what is wrong."""

from __future__ import annotations

import json
import pickle
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from test_cli import listed

import semreg
from conftest import eventually, make_grid, noise_volume, rotation
from semreg.cli.common import parse_layers
from semreg.core.fields import Volume
from semreg.errors import ConfigError
from semreg.io.files import write_image
from small_networks import Small, outputs_of, save

GRID = make_grid((14, 12, 10), (0.8, 1.3, 2.1), (-31.0, 12.5, 77.0), rotation(3))
FORMATS = ("nii.gz", "nii", "nrrd", "mha")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(Small(), tmp_path_factory.mktemp("models") / "small.pt")


@pytest.fixture
def image(tmp_path):
    """An image on an oblique anisotropic grid, as a file."""
    write_image(Volume(noise_volume(GRID).data.float(), GRID), tmp_path / "image.nii.gz")
    return tmp_path / "image.nii.gz"


def channels_of(path):
    """The image as SimpleITK reads it, and its channels (C, z, y, x)."""
    found = sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(found)
    return found, np.moveaxis(values, -1, 0) if found.GetNumberOfComponentsPerPixel() > 1 else values[None]


def expected(path):
    """What the network returns for the image in a file, called directly."""
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return outputs_of(Small(), torch.from_numpy(values)[None])


@pytest.mark.parametrize("ending", FORMATS)
def test_labels_of_a_network(run, image, model, tmp_path, ending):
    """``--argmax`` writes one image of small integers with the header of the image, in every format, and no more."""
    out = tmp_path / "out" / f"labels.{ending}"
    code, text, err = run("infer", image, "-o", out, "--model", model, "--argmax")
    assert code == 0, err
    assert str(out) in text
    assert listed(out.parent) == [out.name]
    labels, values = channels_of(out)
    given = sitk.ReadImage(str(image))
    assert labels.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    assert labels.GetSize() == given.GetSize()
    assert labels.TransformIndexToPhysicalPoint((3, 5, 7)) == pytest.approx(
        given.TransformIndexToPhysicalPoint((3, 5, 7)), abs=1e-4
    )
    np.testing.assert_array_equal(values[0], expected(image)[2].argmax(0))


def test_scores_of_a_network(run, image, model, tmp_path):
    """Without ``--argmax`` the channels of the last output are the components of one image; --dtype is their type."""
    out = tmp_path / "scores.nii.gz"
    assert run("infer", image, "-o", out, "--model", model, "--dtype", "float64", "-q") == (0, "", "")
    found, values = channels_of(out)
    assert found.GetPixelIDTypeAsString() == "vector of 64-bit float"
    np.testing.assert_allclose(values, expected(image)[2], atol=1e-5)


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd"])
def test_coarse_output_comes_onto_the_grid_of_the_image(run, image, model, tmp_path, ending):
    """An output of half the size is written on the grid of the image, as ``semreg.infer`` gives it."""
    out = tmp_path / f"coarse.{ending}"
    assert run("infer", image, "-o", out, "--model", model, "--layers", "1")[0] == 0
    found, values = channels_of(out)
    assert found.GetSize() == GRID.size_xyz
    (output,) = semreg.infer(semreg.read_image(image), model, layers=1)
    np.testing.assert_allclose(values, output.data, atol=1e-5)


@pytest.mark.parametrize("ending", FORMATS)
def test_features_lie_where_they_were_computed(run, image, model, tmp_path, ending):
    """Each layer has the header of its own grid, and its channels are the components, for SimpleITK as the judge."""
    out = tmp_path / "out"
    code, text, err = run("features", image, "-o", out, "--model", model, "--format", ending)
    assert code == 0, err
    assert listed(out) == [*[f"layer_{i}.{ending}" for i in range(3)], "record.json"]
    assert str(out / "record.json") in text
    given = sitk.ReadImage(str(image))
    for number, output in enumerate(expected(image)):
        found, values = channels_of(out / f"layer_{number}.{ending}")
        assert found.GetNumberOfComponentsPerPixel() == len(output)
        np.testing.assert_allclose(values, output, atol=1e-5)
        index = (2, 3, 4) if number != 1 else (4.5, 6.5, 8.5)
        point = given.TransformContinuousIndexToPhysicalPoint(index)
        assert found.TransformIndexToPhysicalPoint((2, 3, 4)) == pytest.approx(point, abs=1e-4)


def test_record_of_features(run, image, model, tmp_path):
    """The record says what was read, which network ran, where its outputs lie, and what it took."""
    out = tmp_path / "out"
    arguments = [
        "features", str(image), "-o", str(out), "--model", str(model), "--layers", "1,-1", "--memory", "50GB",
        "--spec", "normalisation.kind=z-score", "--threads", "1", "--device", "cpu", "--json",
    ]  # fmt: skip
    code, text, err = run(*arguments)
    assert code == 0, err
    assert text == (out / "record.json").read_text(encoding="utf-8")
    record = json.loads(text)
    assert record["command"] == ["semreg", *arguments]
    assert record["inputs"]["image"]["sha256"] == semreg.read_image(image).sha256
    assert (record["model"]["name"], record["model"]["path"]) == ("small", str(model))
    assert record["model"]["sha256"] == semreg.load_network(model).sha256
    assert record["model"]["layers"] == [1, 2]
    assert record["model"]["spec"]["normalisation"]["kind"] == "z-score"
    assert [one["file"] for one in record["outputs"]] == ["layer_0.nii.gz", "layer_1.nii.gz"]
    assert [one["channels"] for one in record["outputs"]] == [5, 4]
    assert record["outputs"][0]["size"] == [7, 6, 5]
    assert record["outputs"][0]["spacing_mm"] == pytest.approx([1.6, 2.6, 4.2])
    assert record["receptive_field"] == [2, 2, 2]
    assert record["tiles"] == 1
    assert record["memory_limit_bytes"] == 50 * 10**9
    assert record["peak_memory_bytes"] > 10**8
    assert record["threads"] == 1
    assert set(record["seconds"]) == {"read", "load", "extraction", "extraction_cpu", "write", "write_cpu"}
    assert set(record["versions"]) == {"semreg", "python", "torch", "SimpleITK", "numpy"}


def test_mask_is_written_as_weight(run, image, model, tmp_path):
    """With a mask each layer has its weight beside it."""
    mask = torch.ones(1, *GRID.shape)
    mask[:, :4] = 0
    write_image(Volume(mask, GRID), tmp_path / "mask.nii.gz", "uint8")
    out = tmp_path / "out"
    command = ("features", image, "-o", out, "--model", model, "--layers", "0", "--mask", tmp_path / "mask.nii.gz")
    assert run(*command, "-q")[0] == 0
    assert listed(out) == ["layer_0.nii.gz", "record.json", "weight_0.nii.gz"]
    np.testing.assert_array_equal(channels_of(out / "weight_0.nii.gz")[1], mask)
    assert "mask" in json.loads((out / "record.json").read_text(encoding="utf-8"))["inputs"]


def test_formulas_have_features(run, image, tmp_path):
    """What is built in needs no file."""
    assert run("features", image, "-o", tmp_path / "out", "--model", "mind", "-q") == (0, "", "")
    assert sitk.ReadImage(str(tmp_path / "out" / "layer_0.nii.gz")).GetNumberOfComponentsPerPixel() == 12
    record = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    assert (record["model"]["path"], record["receptive_field"]) == (None, None)


def test_progress_counts_tiles(run, image, model, tmp_path):
    """Where there is no terminal a run is one line on the standard error with the number of its tiles."""
    code, text, err = run("infer", image, "-o", tmp_path / "a.nii", "--model", model, "--spec", "patch=8", "--json")
    assert code == 0
    lines = [line for line in err.splitlines() if not line.startswith("warning")]
    tiles = json.loads(text)["tiles"]
    assert tiles > 1
    (line,) = lines
    assert line.split()[:1] + line.split()[3:] == ["features", str(tiles), "tiles"]


BAD_USE = [
    ("no image's name", ("infer", "image.nii.gz", "-o", "labels.txt"), "expected the name of a file that ends in .nii"),
    ("a folder", ("infer", "image.nii.gz", "-o", "folder.nii"), "got the folder folder.nii"),
    ("several outputs", ("infer", "image.nii.gz", "-o", "a.nii", "--layers", "0,1"), "semreg features writes several"),
    ("no number", ("infer", "image.nii.gz", "-o", "a.nii", "--layers", "last"), "expected --layers as whole numbers"),
    (
        "no such layer",
        ("infer", "image.nii.gz", "-o", "a.nii", "--layers", "7"),
        "from 0 to 2, or from -3 to -1, got 7",
    ),
    ("no type", ("infer", "image.nii.gz", "-o", "a.nii", "--dtype", "half"), "expected --dtype of int8"),
    ("input", ("infer", "image.nii.gz", "-o", "./image.nii.gz"), "image.nii.gz, which is read, would be written over"),
    ("input below", ("features", "layer_0.nii.gz", "-o", "."), "layer_0.nii.gz, which is read, might be written over"),
    ("no image", ("infer", "nothing.nii.gz", "-o", "a.nii"), "nothing.nii.gz: there is no such file"),
    ("below a file", ("features", "image.nii.gz", "-o", "image.nii.gz/out"), "expected to write to"),
    ("little memory", ("infer", "image.nii.gz", "-o", "a.nii", "--memory", "50MB"), "GB of memory or more for small"),
    ("no memory", ("infer", "image.nii.gz", "-o", "a.nii", "--memory", "lots"), "an amount of memory such as 3GB"),
    ("no setting", ("infer", "image.nii.gz", "-o", "a.nii", "--spec", "channel=1"), "did you mean 'channels'?"),
    ("no mask", ("features", "image.nii.gz", "-o", "out", "--mask", "no.nii"), "no.nii: there is no such file"),
    ("no device", ("features", "image.nii.gz", "-o", "out", "--device", "gpu"), "expected a device of auto, cpu"),
    ("channels", ("infer", "image.nii.gz", "-o", "a.nii", "--spec", "channels=3"), "to have 1 channels, but got 3"),
]


@pytest.mark.parametrize("use", [pytest.param(rest, id=name) for name, *rest in BAD_USE])
def test_bad_use_is_one_sentence(run, image, model, tmp_path, monkeypatch, use):
    """What is wrong is one line on the standard error, exit code 2, and no file is written or changed."""
    arguments, sentence = use
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.nii").mkdir()
    image.with_name("layer_0.nii.gz").write_bytes(image.read_bytes())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    code, text, err = run(*arguments, "--model", model, "-q")
    assert (code, text, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: expected ")
    assert sentence in err
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert listed(tmp_path) == sorted([*before, "folder.nii"])


def spoiled(kind, model, tmp_path):
    """The arguments that name a bad model, after making it."""
    bad = tmp_path / "bad.pt"
    if kind == "missing":
        return [bad]
    if kind == "corrupted":
        bad.write_bytes(model.read_bytes()[:3000])
    elif kind == "pickle":
        bad.write_bytes(pickle.dumps({"weights": [1.0]}))
    elif kind == "checksum":
        return [model, "--spec", f"sha256={'0' * 64}"]
    elif kind == "channels":
        return [model, "--spec", "channels=3"]
    elif kind == "not fetched":
        return ["ts/m730", "--models", tmp_path]
    return [bad]


BAD_MODELS = [
    ("missing", "bad.pt: there is no such file"),
    ("corrupted", "bad.pt, which is truncated or damaged"),
    ("pickle", "bad.pt, which is a pickle, which would run code"),
    ("checksum", "expected the checksum 0000"),
    ("channels", "to have 1 channels, but got 3 channels"),
    ("not fetched", "run `semreg models fetch ts/m730`"),
]


@pytest.mark.parametrize(("kind", "sentence"), BAD_MODELS)
def test_bad_models_are_one_sentence(run, image, model, tmp_path, kind, sentence):
    """A model that does not do is one sentence, exit code 2, and nothing is written."""
    arguments = spoiled(kind, model, tmp_path)
    code, out, err = run(
        "infer", image, "-o", tmp_path / "deep" / "out.nii.gz", "--threads", "1", "--model", *arguments
    )
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: expected ")
    assert sentence in err
    assert not (tmp_path / "deep").exists()


class Slow(Small):
    """The first output, slowly."""

    def forward(self, x):
        """It, late."""
        y = x
        for _ in range(60):
            y = self.first(x)
        return [y]


def test_interruption_leaves_nothing(image, tmp_path):
    """Ctrl-C ends the command with 130 while a network runs, and leaves no file and no folder."""
    model = save(Slow(), tmp_path / "slow.pt")
    out = tmp_path / "deep" / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "semreg", "features", str(image), "-o", str(out), "--threads", "1", "-m", str(model)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a shell may have it ignored
    )
    eventually(lambda: (out.exists() and listed(out)) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not (tmp_path / "deep").exists()


@contextmanager
def full_disk(size):
    """No file grows beyond ``size`` bytes."""
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_full_disk_is_one_sentence(run, image, model, tmp_path):
    """When a file cannot grow as on a full disk there is one sentence, and nothing stays."""
    with full_disk(9000):
        code, out, err = run("features", image, "-o", tmp_path / "out", "-m", model, "--format", "nii", "-q")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: expected to write ")
    assert not (tmp_path / "out").exists()


def test_layers_are_numbers():
    """``--layers`` are whole numbers between commas."""
    assert parse_layers(None) is None
    assert parse_layers("0, 2,-1") == (0, 2, -1)
    with pytest.raises(ConfigError, match="whole numbers such as 0,2 or -1, got '1;2'"):
        parse_layers("1;2")
