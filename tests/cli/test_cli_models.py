"""Promises of ``semreg models``: what is known, how it is fetched, and what a file holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
import typer

from hub import running_hub
from semreg.cli import app
from semreg.features.catalogue import LOCK_FILE, entries, find
from semreg.features.catalogue.entries import PINNED
from semreg.features.contract import ModelSpec
from semreg.features.descriptors import DESCRIPTORS
from semreg.runtime.settings import from_toml
from small_networks import Small, save

NAME, PATH = "ts/m730", "TS/M730.pt"


@pytest.fixture(autouse=True)
def _direct_connections(monkeypatch, tmp_path):
    """No proxy and no offline mode of whoever runs the tests, and an empty home."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(Small(), tmp_path_factory.mktemp("models") / "small.pt")


@pytest.fixture
def hub(model):
    """A hub on this machine that has one model, a real network."""
    with running_hub() as running:
        running.files[PINNED, PATH] = model.read_bytes()
        running.branches["main"] = PINNED
        yield running


def test_commands_are_documented():
    """Every command, and every option of it, says what it is for."""
    group = typer.main.get_command(app)
    context = typer.Context(group)
    commands = [group.get_command(context, word) for word in ("infer", "features")]
    models = group.get_command(context, "models")
    commands += [models.get_command(context, word) for word in ("list", "show", "fetch", "inspect")]
    for command in commands:
        assert command.help
        assert all(getattr(parameter, "help", "") for parameter in command.params), command.name


def test_list_shows_what_is_known(run, tmp_path):
    """The list has a line a model with its name, dimension, licence, whether its file is there, and what for."""
    (tmp_path / "M730.pt").touch()
    code, text, err = run("models", "list", "--models", tmp_path)
    assert (code, err) == (0, "")
    titles, *lines = text.splitlines()
    assert titles == "name\tdimension\tlicence\tfile\twhat for"
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in lines}
    assert set(rows) == {*DESCRIPTORS, *[entry.name for entry in entries() if not entry.earlier]}
    assert rows[NAME] == ["3-D", "Apache-2.0", "fetched", find(NAME).use]
    assert rows["sam2.1/tiny"][0] == "2-D"
    assert rows["anatomix"][2] == "no"
    code, text, _ = run("models", "list", "--all", "--json")
    assert {row["name"] for row in json.loads(text)} == {entry.name for entry in entries()}


def test_show_prints_a_description_that_can_be_used(run, tmp_path):
    """The output is the TOML file of the model, which reads back to its description; the rest are comments."""
    code, text, _ = run("models", "show", NAME)
    assert code == 0
    assert from_toml(ModelSpec, text) == find(NAME).spec
    comments = [line for line in text.splitlines() if line.startswith("# ")]
    for words in ("Apache-2.0", find(NAME).spec.source, PATH, "path: not here"):
        assert any(words in line for line in comments)
    code, text, _ = run("models", "show", NAME, "--json")
    assert json.loads(text)["spec"]["spacing_mm"] == [1.5]
    assert run("models", "show", "mind")[1].startswith("# name: mind\n# use: MIND-SSC")
    (tmp_path / "own.pt").touch()
    (tmp_path / "own.toml").write_text('axes = "LIA"\n', encoding="utf-8")
    assert 'axes = "LIA"' in run("models", "show", tmp_path / "own.pt")[1]


def test_fetch_brings_a_model_that_runs(run, hub, model, tmp_path):
    """A fetched model is printed with path, checksum and revision, is listed, inspected, and not fetched twice."""
    folder = tmp_path / "models"
    arguments = ("models", "fetch", NAME, "--folder", folder, "--mirror", hub.address)
    code, text, err = run(*arguments)
    assert (code, err) == (0, "")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    facts = dict(line.split(": ", 1) for line in text.splitlines())
    assert facts == {"path": str(folder / PATH), "sha256": digest, "revision": PINNED, "licence": "Apache-2.0"}
    code, text, _ = run(*arguments, "--json")
    assert json.loads(text)["transferred"] is False
    assert hub.transfers() == 1
    assert f"{NAME}\t3-D\tApache-2.0\tfetched" in run("models", "list", "--models", folder)[1]
    code, text, err = run("models", "inspect", NAME, "--models", folder, "--spec", "layers=1", "--json")
    assert code == 0, err
    assert json.loads(text)["sha256"] == digest
    assert json.loads(text)["path"] == str(folder / PATH)


def test_fetch_into_the_default_folder(run, hub, tmp_path):
    """Without ``--folder`` a model goes below the home, where it is found without being told."""
    assert run("models", "fetch", NAME, "--mirror", hub.address, "-q") == (0, "", "")
    assert (tmp_path / "home" / ".cache" / "semreg" / "models" / PATH).is_file()
    assert f"{NAME}\t3-D\tApache-2.0\tfetched" in run("models", "list")[1]


def test_another_revision(run, hub, tmp_path):
    """``--revision`` is what the hub is asked for."""
    hub.files["c" * 40, PATH] = b"another"
    hub.branches["next"] = "c" * 40
    arguments = ("models", "fetch", NAME, "--folder", tmp_path, "--mirror", hub.address, "--revision", "next")
    assert f"revision: {'c' * 40}" in run(*arguments)[1]
    assert (tmp_path / PATH).read_bytes() == b"another"


def test_inspection_in_words(run, model):
    """The inspection names kind, parameters, checksum, outputs, receptive field, sizes and memory."""
    code, text, err = run("models", "inspect", model)
    assert (code, err) == (0, "")
    facts = dict(line.split(": ", 1) for line in text.splitlines())
    assert facts["file"] == str(model)
    assert facts["kind"] == "TorchScript"
    assert facts["parameters"] == str(sum(p.numel() for p in Small().parameters()))
    assert facts["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert facts["output 0"] == "3 channels, size n, stride 1, first sample at voxel 0"
    assert facts["output 1"] == "5 channels, size n / 2, stride 2, first sample at voxel 0.5"
    assert facts["receptive field"] == "± 2 voxels (measured)"
    assert facts["input size"] == "any multiple of 1"
    assert "bytes a voxel" in facts["memory"]
    assert [facts[f"memory for {n} × {n} × {n}"].endswith(" GB") for n in (96, 128, 192)] == [True] * 3
    assert facts["description"] == "name=small, dimension=3, channels=1"


def test_inspection_as_json(run, tmp_path):
    """A network that sees the whole image is not tile-invariant, and the record says why."""
    module = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3, padding=1), torch.nn.InstanceNorm3d(2)).eval()
    code, text, err = run("models", "inspect", save(module, tmp_path / "norm.pt"), "--json", "--spec", "axes=LIA")
    assert code == 0, err
    record = json.loads(text)
    assert record["receptive_field"] == [None, None, None]
    assert record["tile_invariant"] is False
    assert "normalises over the image" in record["receptive_field_is"]
    assert record["spec"]["axes"] == "LIA"
    assert record["outputs"][0]["channels"] == 2
    assert record["bytes_per_voxel"] > 8
    assert set(record["patch_bytes"]) == {f"{n} × {n} × {n}" for n in (96, 128, 192)}


def test_a_broken_connection_is_one_sentence(run, hub, tmp_path):
    """Through the command itself: without a connection nothing is written and the sentence says what to do by hand."""
    address = hub.address
    hub.server_close()
    code, out, err = run("models", "fetch", NAME, "--folder", tmp_path / "models", "--mirror", address)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"error: expected {PATH} of ")
    assert "copy the file to" in err
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_changed_file_is_refused(run, hub, tmp_path):
    """A fetched file that was changed is refused, by whoever wants to use it, with both checksums."""
    assert run("models", "fetch", NAME, "--folder", tmp_path, "--mirror", hub.address, "-q")[0] == 0
    (tmp_path / PATH).write_bytes(b"changed")
    for command in (("fetch", "--folder", tmp_path, "--mirror", hub.address), ("inspect", "--models", tmp_path)):
        code, text, err = run("models", command[0], NAME, *command[1:])
        assert (code, text, err.count("\n")) == (2, "", 1)
        assert hashlib.sha256(b"changed").hexdigest() in err
    assert (tmp_path / LOCK_FILE).is_file()


BAD_USE = [
    (("fetch", "ts/m7300"), "did you mean 'ts/m730'?"),
    (("fetch", "mind"), "built in"),
    (("fetch", NAME, "--mirror", "nowhere"), "expected a mirror as https://host"),
    (("show", "ts/m7300"), "did you mean 'ts/m730'?"),
    (("show", "nowhere.pt"), "nowhere.pt: there is no such file"),
    (("inspect", "nowhere.pt"), "nowhere.pt: there is no such file"),
    (("inspect", "mind"), "mind, which is built in"),
    (("inspect", NAME), f"run `semreg models fetch {NAME}`"),
    (("inspect", "empty.pt"), "empty.pt, which is empty"),
    (("inspect", "flat.pt"), "to take some input of"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD_USE, ids=str)
def test_bad_use_is_one_sentence(run, model, tmp_path, monkeypatch, arguments, sentence):
    """What is wrong is one line on the standard error and exit code 2."""
    monkeypatch.chdir(tmp_path)
    Path("empty.pt").touch()
    if "flat.pt" in arguments:
        save(Small(2), Path("flat.pt"), 2)
    code, text, err = run("models", *arguments)
    assert (code, text, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: expected ")
    assert sentence in err
