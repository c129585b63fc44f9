"""Promises of a start network: what its numbers mean in mm, what it is worth, and what is said of one that is none."""

from __future__ import annotations

import itertools
import json
import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor, nn

import semreg
from blob_networks import FIXED_BLOBS, MIDDLE, MOVING_BLOBS, BlobNetwork, blobs, scripted, stored
from conftest import grid_at, noise, oblique_grid, rotation
from semreg.core.fields import Field, Layer, Volume, jacobian_determinant
from semreg.core.geometry import Grid, canonical_order, oriented_order, reorder
from semreg.errors import ConfigError, ModelContractError, ModelError, ModelNotFoundError
from semreg.features.registrar import as_registrar, load_registrar
from semreg.features.registrar_spec import RegistrarSpec
from semreg.features.trial import try_registrar
from semreg.io.records import record_of
from semreg.preprocess.preparation import Prepared
from semreg.registration.dense.data_term import distance_at
from semreg.registration.dense.terms import ALIKE, Term, terms_of
from semreg.registration.result import Record
from semreg.registration.start import Proposal, judged, proposed, report_of

UNITS = (
    ("voxels", None), ("mm", None), ("unit-cube", "centres"), ("unit-cube", "edges"),
    ("minus-one-to-one", "centres"), ("minus-one-to-one", "edges"),
)  # fmt: skip
FIXED = grid_at(MIDDLE, (41, 38, 33), (1.9, 2.2, 2.6), rotation(3, 9.0))
MOVING = grid_at(MIDDLE + np.array([2.0, -1.0, 3.0]), (37, 46, 40), (2.3, 1.8, 2.1), rotation(3, -14.0)[:, [1, 2, 0]])
PLAIN = RegistrarSpec(
    first="fixed", direction="fixed-to-moving", unit="voxels", components="tensor", output=1, shape=(27, 32, 30)
)
ALONE = (
    "align.transform=none", "coarse.enabled=false", "refine.enabled=false", "fine.enabled=false",
    "uncertainty.enabled=false",
)  # fmt: skip


def network_of(spec):
    """A network as its description says; one of ``shape`` alone sees its own voxels."""
    spacing = spec.spacing_mm or (1.0,) * spec.dimension
    return scripted(BlobNetwork(spec, spacing * spec.dimension if len(spacing) == 1 else spacing))


def off_mm(field):
    """How far from the blobs of the moving image those of the fixed one are brought, mm."""
    return np.abs(field.map(FIXED_BLOBS.T) - MOVING_BLOBS.T).max()


LAYOUTS = (
    {"spacing_mm": (2.4, 2.9, 2.1), "multiple": 4}, {"spacing_mm": (2.7,), "shape": (40, 37, 35)},
    {"shape": (29, 35, 31)}, {"spacing_mm": (2.1, 2.6, 3.0), "shape": (40, 31, 28)},
)  # fmt: skip
AXES = ("SPL", "RAI", "LIA", "ASR", None)


@pytest.mark.parametrize(("unit", "ends"), UNITS)
@pytest.mark.parametrize("components", ["tensor", "reversed"])
def test_all_that_a_description_says_is_kept(unit, ends, components):
    """In any unit, order, direction and frame a network brings a blob to where it is in the other image, to 0.25 mm."""
    near, far = blobs(FIXED, FIXED_BLOBS), blobs(MOVING, MOVING_BLOBS)
    axes = canonical_order(FIXED)
    target = reorder(FIXED, axes)
    images = Prepared(near.reordered(axes), None), Prepared(far.on(target, outside=0.0), None)
    ways = itertools.product(["fixed", "moving"], ["fixed-to-moving", "moving-to-fixed"], ["displacement", "positions"])
    for number, (first, direction, gives) in enumerate(ways):
        layouts = [each for each in LAYOUTS if unit != "mm" or "spacing_mm" in each]
        spec = RegistrarSpec(
            first=first, direction=direction, gives=gives, unit=unit, ends=ends, components=components, output=-1,
            axes=AXES[number % len(AXES)], **layouts[number % len(layouts)],
        )  # fmt: skip
        field = proposed(as_registrar(network_of(spec), spec), *images, target)
        assert off_mm(field) < 0.25, spec


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_input_grid_is_the_box_of_the_image(layout):
    """It has the axes of the network, its middle is that of the image, and ``shape`` alone is the whole box."""
    spec = replace(PLAIN, shape=None, axes="LIA", **layout) if "shape" not in layout else replace(PLAIN, **layout)
    turned = reorder(oblique_grid(3), oriented_order(oblique_grid(3), spec.letters))
    grid = spec.input_grid(turned)
    assert np.allclose(grid.corners_xyz().mean(0), turned.corners_xyz().mean(0))
    assert grid.direction == turned.direction
    if spec.spacing_mm is None:
        assert np.allclose(grid.corners_xyz(), turned.corners_xyz())
    else:
        assert np.allclose(grid.spacing, spec.spacing_mm)
    assert all(n % spec.multiple == 0 for n in grid.shape)


@pytest.fixture(scope="module")
def pair():
    """Two images of blobs in frames of their own."""
    return blobs(FIXED, FIXED_BLOBS), blobs(MOVING, MOVING_BLOBS)


def test_a_registration_begins_there(pair, tmp_path):
    """From a file of TorchScript, in both frames: without search and descent the result is what the network says."""
    path = stored(BlobNetwork(PLAIN, (1.0,) * 3), PLAIN, tmp_path / "net.pt")
    result = semreg.register(*pair, start=path, config=semreg.configure(*ALONE))
    report = result.record.start
    assert off_mm(result.field) < 0.4
    assert report.used
    assert report.after < report.before == result.record.similarity.before
    assert result.record.similarity.after < report.before
    assert report.name == "net"
    assert report.sha256 == load_registrar(path).sha256
    assert record_of(Record, result.record.to_dict(), tmp_path).start == report


@pytest.mark.parametrize("continues", [False, True])
def test_it_sees_images_that_were_brought_together(pair, continues):
    """After an initial transform the network sees what is left, and the result is both, one after the other."""
    turn = sitk.Euler3DTransform(tuple(MIDDLE), 0.12, -0.08, 0.1, (23.0, -17.0, 9.0))
    fixed, moving = pair
    places = np.array([turn.TransformPoint(place) for place in MOVING_BLOBS.tolist()])
    grid = grid_at(np.array(turn.TransformPoint(tuple(MIDDLE))), (44, 42, 47), (2.0, 2.3, 1.9), rotation(3, 31.0))
    moving = blobs(grid, places)
    config = semreg.configure(*ALONE, f"refine.continues={str(continues).lower()}")
    result = semreg.register(fixed, moving, start=as_registrar(network_of(PLAIN), PLAIN), initial=turn, config=config)
    assert result.record.start.used
    assert np.abs(result.field.map(FIXED_BLOBS.T) - places.T).max() < 0.6
    assert result.record.start.mean_mm < 9


def test_in_two_dimensions():
    """The same of pictures: in place of three axes two."""
    fixed = grid_at(MIDDLE[:2], (41, 38), (1.9, 2.2), rotation(2, 9.0))
    moving = grid_at(MIDDLE[:2], (46, 44), (1.8, 2.1), rotation(2, -100.0))
    places = FIXED_BLOBS[:, :2], MOVING_BLOBS[:, :2]
    spec = replace(PLAIN, dimension=2, shape=(31, 37), axes="LA", components="reversed", unit="unit-cube", ends="edges")
    result = semreg.register(
        blobs(fixed, places[0]), blobs(moving, places[1]), start=as_registrar(network_of(spec), spec),
        config=semreg.configure(*ALONE),
    )  # fmt: skip
    assert result.record.start.used
    assert np.abs(result.field.map(places[0].T) - places[1].T).max() < 0.4


def test_a_search_decides_too(pair):
    """What is better where it begins and worse after a search is not used; both distances are in the record."""
    network = as_registrar(network_of(PLAIN), PLAIN)
    config = semreg.configure("align.transform=none", "refine.enabled=false", "fine.enabled=false", "coarse.reach_mm=4")
    report = semreg.register(*pair, start=network, config=config).record.start
    assert report.used
    assert report.searched_after < report.searched_before < report.before
    grid = Grid.of_shape((4, 5, 6))
    proposal = Proposal(Field.zeros(grid), 0.0, 0)
    assert report_of(network, proposal, (1.0, 0.5), (0.3, 0.2)).used
    assert not report_of(network, proposal, (1.0, 0.5), (0.3, 0.4)).used
    assert not report_of(network, proposal, (1.0, float("nan")), None).used
    assert report_of(network, proposal, (float("nan"), 0.5), None).used


class Shift(nn.Module):
    """The same for all voxels, whatever it sees: no registration."""

    def __init__(self, *voxels: float) -> None:
        """As it is described."""
        super().__init__()
        self.register_buffer("by", torch.tensor(voxels))

    def forward(self, x: Tensor) -> Tensor:
        """Both images as channels → a displacement."""
        return self.by.reshape(1, -1, 1, 1, 1).expand(1, -1, x.size(2), x.size(3), x.size(4))


@pytest.mark.parametrize("far", [7.0, 60.0])
def test_what_is_worse_than_nothing_is_not_used(pair, far, caplog):
    """A start that matches worse, or moves all out of view, is said and left: the result is what it is without."""
    spec = replace(PLAIN, output=0)
    config = semreg.configure("align.transform=none", "uncertainty.enabled=false", "coarse.reach_mm=8")
    same = pair[0], Volume(pair[0].data.clone(), pair[0].grid)
    with caplog.at_level(logging.WARNING, "semreg"):
        result = semreg.register(*same, start=as_registrar(Shift(far, 0.0, -far), spec), config=config)
    assert not result.record.start.used
    assert "it is not used, the deformation begins without it" in caplog.text
    alone = semreg.register(*same, config=config)
    assert torch.equal(result.field.vox, alone.field.vox)
    assert alone.record.start is None


@pytest.mark.parametrize("letters", ["SPL", "RAI", "LIA", "PRS"])
def test_its_axes_have_their_directions(pair, letters):
    """A voxel along the first tensor axis of a network is a step towards the first letter of its axes, in mm."""
    spec = replace(PLAIN, output=0, axes=letters, shape=None, spacing_mm=(2.5, 2.0, 1.5))
    axes = canonical_order(FIXED)
    target = reorder(FIXED, axes)
    images = Prepared(pair[0].reordered(axes), None), Prepared(pair[1].on(target), None)
    for number, letter in enumerate(letters):
        moved = [0.0, 0.0, 0.0]
        moved[number] = 2.0
        step = proposed(as_registrar(Shift(*moved), spec), *images, target).numpy()[3, 4, 5]
        along = next(axis for axis, both in enumerate(("LR", "PA", "SI")) if letter in both)
        sign = 1 if letter in "LPS" else -1
        assert np.allclose(step, 2 * spec.spacing_mm[number] * sign * np.array(FIXED.direction)[:, along], atol=1e-4)


def test_what_leaves_the_view_counts_as_unrelated():
    """A proposal that brings one matching corner together, and all else out of view, is worse than none."""
    grid = Grid.of_shape((24, 24, 24))
    fixed, other = noise(2, 4, *grid.shape).float()
    other[:, 16:, 16:, 16:] = fixed[:, :8, :8, :8]
    fixed = 0.7 * fixed + 0.3 * other
    other[:, 16:, 16:, 16:] = fixed[:, :8, :8, :8]
    terms = terms_of([Term(Layer(Volume(fixed, grid)), Layer(Volume(other, grid)))])
    away = Field(torch.full((3, *grid.shape), 16.0), grid)
    assert distance_at(terms, away) < 1e-6 < distance_at(terms, Field.zeros(grid))
    before, after = judged(terms, Field.zeros(grid), away)
    assert after > 0.9 * ALIKE
    assert after > before


class Folding(nn.Module):
    """The displacement of the blobs, and a wave that turns space over."""

    def __init__(self, spec: RegistrarSpec) -> None:
        """As it is described."""
        super().__init__()
        self.blobs = BlobNetwork(spec, (1.0,) * 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """A displacement."""
        u = self.blobs(a, b)[1].clone()
        wave = 3 * torch.sin(torch.arange(u.size(2), dtype=u.dtype) * 1.2)
        u[:, 0] = u[:, 0] + wave.reshape(1, -1, 1, 1)
        return u


def test_a_start_that_folds_is_unfolded(pair):
    """A displacement that turns space over is said, and the result does not fold."""
    spec = replace(PLAIN, output=0)
    result = semreg.register(*pair, start=as_registrar(Folding(spec), spec), config=semreg.configure(*ALONE))
    report = result.record.start
    assert report.folded_share > 0.05
    assert "smooth where it folded" in report.sentence
    assert float(jacobian_determinant(result.field).min()) > 0


class Broken(nn.Module):
    """Returns what no displacement is."""

    def __init__(self, how: str) -> None:
        """As it is described."""
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        """As ``how`` says."""
        u = torch.zeros(1, 3, x.size(2), x.size(3), x.size(4))
        if self.how == "nan":
            return u / 0.0
        if self.how == "classes":
            return torch.cat([u, u], 1)
        if self.how == "half":
            return u[:, :, ::2, ::2, ::2]
        return u.permute(0, 2, 3, 4, 1)


class Features(nn.Module):
    """A model of features of one image."""

    def __init__(self) -> None:
        """As it is described."""
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        return self.first(x)


class Many(nn.Module):
    """Takes three images."""

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Their sum."""
        return a + b + c


SPEC = replace(PLAIN, output=0, shape=(16, 18, 20))


@pytest.mark.parametrize(
    ("module", "spec", "said"),
    [
        (Broken("nan"), SPEC, "expected finite values in output 0 of the start network net, got NaN or infinity"),
        (Broken("classes"), SPEC, r"shape \(1, 3, 16, 18, 20\) as output 0 of .*, got one of \(1, 6, 16, 18, 20\)"),
        (Broken("half"), SPEC, r"got one of \(1, 3, 8, 9, 10\)"),
        (Broken("last"), SPEC, r"got one of \(1, 16, 18, 20, 3\)"),
        (Broken("last"), replace(SPEC, output=2), "expected layers of the start network net from 0 to 0"),
        (Features(), SPEC, "to take both images as one input of two channels .* got RuntimeError"),
        (Many(), SPEC, "expected a network that takes two images, .*, which takes 3"),
        (Shift(0.0, 0.0, 0.0), replace(SPEC, shape=None), "expected shape or spacing_mm in the description of net"),
        (Shift(0.0, 0.0), replace(SPEC, dimension=2, shape=(9, 8)), "a network for 3-D images as they are, got"),
        (Shift(0.0, 0.0, 0.0), replace(SPEC, sha256="0" * 64), "expected the checksum 000"),
        (Shift(0.0, 0.0, 0.0), None, "expected the description of the start network in .*net.toml, got no such file"),
    ],
)
def test_what_is_no_start_is_one_sentence(run, pair, tmp_path, module, spec, said):
    """What is no network that registers ends in one sentence and exit code 2, and nothing is written."""
    for name, image in zip(("fixed", "moving"), pair, strict=True):
        semreg.write_image(image, tmp_path / f"{name}.nii.gz")
    net = stored(module, spec, tmp_path / "net.pt")
    out = tmp_path / "out"
    code, _, err = run(
        "register", tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz", "-o", out, "--start", net, "--align", "none"
    )
    assert code == 2, err
    lines = [line for line in err.splitlines() if "expected" in line]
    assert len(lines) == 1, err
    assert re.search(said, err), err
    assert not (out / "record.json").exists()


def test_descriptions_that_leave_something_open_are_refused(tmp_path):
    """What decides where a point goes has no default; an end is for units that have ends."""
    path = tmp_path / "net.pt"
    path.write_bytes(b"nothing")
    path.with_suffix(".toml").write_text('first = "fixed"\nunit = "voxels"\n', encoding="utf-8")
    with pytest.raises(ModelError, match=r"net\.toml: expected all values without a default"):
        load_registrar(path)
    with pytest.raises(ConfigError, match="expected ends, centres or edges, with the unit unit-cube"):
        replace(PLAIN, unit="unit-cube")
    with pytest.raises(ConfigError, match="expected no ends with the unit mm"):
        replace(PLAIN, unit="mm", ends="edges")
    with pytest.raises(ConfigError, match="axes such as SPL"):
        replace(PLAIN, axes="SPX")
    with pytest.raises(ModelNotFoundError, match="start network"):
        load_registrar(tmp_path / "none.pt")
    with pytest.raises(ModelError, match="got a Shift without one"):
        as_registrar(Shift(1.0, 0.0, 0.0))


def test_a_network_that_never_ends_is_refused(tmp_path):
    """What does not end on its own input is a sentence before this process runs it."""

    class Endless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            n = 0
            while n >= 0:
                n = (n + 1) % 7
            return x

    path = stored(Endless(), SPEC, tmp_path / "net.pt")
    with pytest.raises(ModelError, match="within 1 s, it did not"):
        try_registrar(path, seconds=1)
    try_registrar(None)


def test_a_program_of_torch_export(pair, tmp_path):
    """A program of torch.export fixes its size itself, and says so where the description has another."""
    spec = replace(PLAIN, output=0, shape=None)
    example = torch.rand(1, 2, 24, 26, 22)
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Shift(0.0, 1.0, 0.0).eval(), (example,)), str(path))
    assert load_registrar(path, spec=spec).spec.shape == (24, 26, 22)
    with pytest.raises(ModelContractError, match=r"which takes \(24, 26, 22\)"):
        load_registrar(path, spec=replace(spec, shape=(9, 9, 9)))


def test_command_line_record_and_privacy(run, pair, tmp_path):
    """--start is the setting ``start``: the record says what became of it, and names no file with --private."""
    for name, image in zip(("fixed", "moving"), pair, strict=True):
        semreg.write_image(image, tmp_path / f"{name}.nii.gz")
    net = stored(BlobNetwork(PLAIN, (1.0,) * 3), PLAIN, tmp_path / "secret.pt")
    images = tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz"
    settings = [word for each in ALONE for word in ("--set", each)]
    code, text, err = run("register", *images, "-o", tmp_path / "a", "--start", net, *settings, "--no-report")
    assert code == 0, err
    assert "secret moves the voxels by" in text
    record = json.loads((tmp_path / "a" / "record.json").read_text(encoding="utf-8"))
    assert record["start"]["used"] is True
    assert record["settings"]["start"] == str(net) == record["inputs"]["start"]["path"]
    code, _, err = run(
        "register",
        *images,
        "-o",
        tmp_path / "b",
        "--config",
        tmp_path / "a" / "config.toml",
        "--private",
        "--no-report",
    )
    assert code == 0, err
    written = [(tmp_path / "b" / name).read_text(encoding="utf-8") for name in ("record.json", "config.toml")]
    assert "secret" not in "".join(written)
    assert json.loads(written[0])["start"]["after"] == record["start"]["after"]
    with pytest.raises(ConfigError, match=r"refine\.axes of all axes with a start network"):
        semreg.register(*pair, start=net, config=semreg.configure("refine.axes=x"))
