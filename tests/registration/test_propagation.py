"""Promises of the propagation of labels: atlases vote, a bad one is outvoted, the record says who voted how."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import grid_at, noise
from semreg import RegistrationConfig, write_image
from semreg.config import AlignConfig, RefineConfig
from semreg.core.fields import Volume
from semreg.errors import ConfigError, GeometryError, ImageError
from semreg.phantom import make_brains
from semreg.registration.propagation import Fusion, files_of_atlas, fuse, propagate

QUICK = RegistrationConfig(align=AlignConfig(transform="none"), refine=RefineConfig(iterations=6, levels=1))
SIZE = 32


@pytest.fixture(scope="module")
def heads():
    """An image with its labels, and three atlases: the same head, deformed in three ways."""
    pairs = [make_brains(size=SIZE, seed=0, displacement_mm=mm) for mm in (5.0, 7.0, 9.0)]
    atlases = [(pair.moving, pair.moving_labels()) for pair in pairs]
    return pairs[0].fixed, pairs[0].fixed_labels(), atlases


def dice(found: Volume, truth: Volume) -> float:
    """Mean over the labels of the truth."""
    labels = [label for label in truth.data.unique().tolist() if label]
    pairs = [(found.data == label, truth.data == label) for label in labels]
    return float(np.mean([2 * int((a & b).sum()) / int(a.sum() + b.sum()) for a, b in pairs]))


def spoilt(labels: Volume, seed: int) -> Volume:
    """The labels with one voxel of five at random of another label."""
    random = torch.Generator().manual_seed(seed)
    some = torch.rand(labels.data.shape, generator=random) < 0.2
    others = torch.randint(0, int(labels.data.max()) + 1, labels.data.shape, generator=random).float()
    return Volume(torch.where(some, others, labels.data), labels.grid)


@pytest.mark.parametrize("fusion", list(Fusion))
def test_atlases_are_better_together(heads, fusion):
    """Where each atlas has wrong labels of its own, the fused ones are better than those of the best atlas."""
    image, truth, atlases = heads
    known = [(atlas, spoilt(labels, number)) for number, (atlas, labels) in enumerate(atlases)]
    found = propagate(image, known, fusion=fusion, config=QUICK)
    assert dice(found.labels, truth) > max(dice(each, truth) for each in found.each)
    assert found.labels.grid == image.grid
    assert float(found.agreement.data.max()) <= 1 + 1e-6
    if fusion == Fusion.MAJORITY:
        assert float(found.agreement.data[found.labels.data != 0].min()) > 1 / 3 - 1e-6


def test_an_atlas_that_does_not_match_is_outvoted_where_it_does_not(heads):
    """Two atlases of noise against one head: alike they win, weighed by their match the head does."""
    image, truth, atlases = heads
    wrong = Volume(noise(1, *image.grid.shape, dtype=torch.float32, seed=3) * 100, image.grid)
    nothing = Volume(torch.zeros_like(truth.data), truth.grid)
    mixed = [atlases[0], (wrong, nothing), (wrong, nothing)]
    local, majority = (propagate(image, mixed, fusion=each, config=QUICK).labels for each in ("local", "majority"))
    alone = propagate(image, atlases[:1], config=QUICK).labels
    assert dice(majority, truth) == 0
    assert dice(local, truth) > 0.9 * dice(alone, truth)


def test_votes_are_counted_by_label():
    """By hand: the label with most votes, their share, and of equal ones the smallest."""
    stack = torch.tensor([[1, 2, 0, 3], [1, 2, 4, 4], [2, 0, 4, 0]])
    chosen, share = fuse(stack, Fusion.MAJORITY)
    assert chosen.tolist() == [1, 2, 4, 0]
    np.testing.assert_allclose(share, [2 / 3, 2 / 3, 2 / 3, 1 / 3])
    weights = torch.tensor([[0.1] * 4, [0.1] * 4, [1.0] * 4])
    assert fuse(stack, Fusion.LOCAL, weights)[0].tolist() == [2, 0, 4, 0]


def test_staple_is_that_of_itk():
    """On random labels of five atlases of one truth: as SimpleITK finds it, where it decides."""
    random = np.random.default_rng(1)
    truth = random.integers(0, 3, (6, 7, 8))
    stack = np.stack([np.where(random.random(truth.shape) < 0.2, random.integers(0, 3, truth.shape), truth)] * 1 + [
        np.where(random.random(truth.shape) < 0.3, random.integers(0, 3, truth.shape), truth) for _ in range(4)
    ])  # fmt: skip
    found = fuse(torch.from_numpy(stack), Fusion.STAPLE)[0].numpy()
    images = [sitk.GetImageFromArray(each.astype(np.uint8)) for each in stack]
    expected = sitk.GetArrayFromImage(sitk.MultiLabelSTAPLE(images, 9))
    np.testing.assert_array_equal(found[expected != 9], expected[expected != 9])


def test_labels_of_one_atlas_are_those_that_are_carried(heads):
    """With one atlas every voxel has its label, and all votes."""
    image, _, atlases = heads
    found = propagate(image, atlases[:1], config=QUICK)
    assert torch.equal(found.labels.data, found.each[0].data)
    assert torch.equal(found.agreement.data, torch.ones_like(found.agreement.data))


def test_what_cannot_be_propagated_is_refused(heads):
    image, _, atlases = heads
    with pytest.raises(ConfigError, match="at least one atlas"):
        propagate(image, [], config=QUICK)
    with pytest.raises(ConfigError, match="a fusion of local, majority, staple"):
        propagate(image, atlases, fusion="best", config=QUICK)
    many = Volume(torch.ones_like(image.data), image.grid).to_sitk("int16")
    huge = sitk.Cast(many, sitk.sitkInt64) * ((1 << 24) + 1)
    with pytest.raises(ImageError, match="numbers up to 16777216"):
        propagate(image, [(image, huge)], config=QUICK)
    flat = grid_at((0.0, 0.0), (12, 14), (1.0, 1.0), np.eye(2))
    with pytest.raises(GeometryError, match="labels of atlas 1 in 3-D"):
        propagate(image, [(image, Volume(torch.ones(1, *flat.shape), flat))], config=QUICK)


def test_the_command_writes_labels_and_who_voted(run, heads, tmp_path):
    """Files with commas in their names too; the record names each atlas and how many of its labels hold."""
    image, truth, atlases = heads
    write_image(image, tmp_path / "image.nii.gz", "int16")
    flags = []
    for number, (atlas, labels) in enumerate(atlases):
        names = tmp_path / f"atlas,{number}.nii.gz", tmp_path / f"labels,{number}.nii.gz"
        write_image(atlas, names[0], "int16")
        write_image(labels, names[1], "uint8")
        flags += ["--atlas", f"{names[0]},{names[1]}"]
    settings = ("--align", "none", "--set", "refine.iterations=4", "--set", "refine.levels=1")
    code, said, err = run("propagate", tmp_path / "image.nii.gz", *flags, "-o", tmp_path / "out", *settings)
    assert code == 0, err
    assert "fused from 3 atlases (local)" in said
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"labels.nii.gz", "agreement.nii.gz", "record.json", "config.toml"}
    labels = sitk.ReadImage(str(tmp_path / "out" / "labels.nii.gz"))
    assert labels.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    found = Volume(torch.from_numpy(sitk.GetArrayFromImage(labels).astype(np.float32))[None], image.grid)
    assert dice(found, truth) > 0.5
    record = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    assert [atlas["image"].rsplit("/", 1)[1] for atlas in record["atlases"]] == [f"atlas,{n}.nii.gz" for n in range(3)]
    assert all(0.5 < atlas["share"] <= 1 for atlas in record["atlases"])
    code, _, err = run("propagate", tmp_path / "image.nii.gz", "--atlas", "alone.nii", "-o", tmp_path / "other")
    assert code == 2
    assert "expected an atlas as IMAGE,LABELS" in err
    assert not (tmp_path / "other").exists()


def test_an_atlas_is_two_files(tmp_path):
    """Where several cuts of the name are possible, the one counts whose files are there."""
    for name in ("a,b", "c"):
        (tmp_path / name).touch()
    assert files_of_atlas(f"{tmp_path}/a,b,{tmp_path}/c") == (tmp_path / "a,b", tmp_path / "c")
    with pytest.raises(ConfigError, match="two files with a comma between"):
        files_of_atlas("a,")
