"""CONTRIBUTING's "How to add": each recipe followed to the letter, in a module that is not part of the package.

Each test writes one file, adds one row, uses what it added from the command line or the public functions, and takes the
row away again. What it needs beside file and row would be a place that the recipe forgot.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from conftest import grid_at, noise, rotation
from semreg.core.fields import Layer, Volume
from semreg.core.kernels import BACKENDS, kernels_for, spline_product
from semreg.core.kernels.table import BackendRow
from semreg.core.sampling import smooth
from semreg.distances import DISTANCES
from semreg.distances.table import DistanceRow
from semreg.errors import ConfigError
from semreg.features.descriptors import DESCRIPTORS
from semreg.features.descriptors.table import DescriptorRow
from semreg.io.files import write_image
from semreg.io.images import read_image
from semreg.presets import load
from semreg.quality import Evidence, judge, verdict
from semreg.quality.checks import CHECKS, Check
from semreg.registration.parametric.descent import Descent
from semreg.registration.parametric.overlap import Picture
from semreg.registration.stages import STAGES
from semreg.transforms.families import TRANSFORMS
from semreg.transforms.formats import FORMATS
from semreg.transforms.formats.table import FormatRow
from semreg.transforms.points import POINTS
from semreg.transforms.points.table import PointRow

ROOT = Path(__file__).parents[2]
SETTINGS = ("refine.iterations=3", "refine.symmetric=false", "checks.enabled=false")
QUICK = ("--align", "none", *[word for text in SETTINGS for word in ("--set", text)], "-q")
Scratch = Callable[[str], str]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scratch]:
    """Writes the text of a module, which can be imported by the name that is returned until the test ends."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "scratch_of_a_contributor"

    def write(text: str) -> str:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
        importlib.invalidate_caches()
        return name

    yield write
    sys.modules.pop(name, None)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two images in 2-D that show the same, 2 mm apart, and a folder for results."""
    texture = smooth(noise(1, 36, 32, seed=3).float(), radius=1, passes=2) * 1000
    for name, shift in (("fixed", 0.0), ("moving", 2.0)):
        grid = grid_at((1.0 + shift, 2.0), (32, 36), (1.1, 1.3), rotation(2))
        write_image(Volume(texture, grid), tmp_path / f"{name}.nii.gz", "float32")
    return tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz", tmp_path / "out"


def record_of(folder: Path) -> Any:
    """The record of a run."""
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))


def mean_field(folder: Path) -> Any:
    """The mean displacement, x and y, mm."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "field.nii.gz")))[6:-6, 6:-6].reshape(-1, 2).mean(0)


HUBER = """
    from semreg.distances.contract import Distance
    from semreg.distances.samples import mean_over

    def huber(fixed, moving, weight=None, shape=None):
        square = (moving - fixed).square().sum(1)
        return mean_over((1 + square).sqrt() - 1, weight)

    HUBER = Distance.of(huber)
"""


def test_a_distance(run, pair, scratch, monkeypatch):
    """One function and one row: settings, search, refinement, command line and the metric of ITK know the distance."""
    fixed, moving, out = pair
    monkeypatch.setitem(DISTANCES.rows, "huber", DistanceRow(f"{scratch(HUBER)}:HUBER", "Huber"))
    code, _, error = run("register", fixed, moving, "-o", out, "--distance", "huber", *QUICK)
    assert code == 0, error
    assert record_of(out)["settings"]["models"][0]["distance"] == ["huber"]
    np.testing.assert_allclose(mean_field(out), [2.0, 0.0], atol=0.4)
    checks = importlib.import_module("semreg.itk.api.checks")
    assert checks.distance("Distance", "huber") == "Huber"
    joint = importlib.import_module("semreg.itk.sampled.distances").joint
    near, far = noise(20, 3, seed=1), noise(20, 3, seed=2)
    assert float(joint("huber", near, far, None)) == pytest.approx(float(DISTANCES["huber"](near, far)))
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="got 'huber'"):
        DISTANCES.check("huber")


GRADIENT = """
    from dataclasses import dataclass, field

    from semreg.features.contract import DescriptorSpec, FeatureMap
    from semreg.features.descriptors.kind import Kind

    @dataclass(frozen=True, kw_only=True)
    class SlopeParameters:
        step: int = 1

    class Slope:
        def __init__(self, dimension, step):
            self.step, self.spec = step, DescriptorSpec(f"slope({step})", dimension, dimension, step)

        def __call__(self, x, stats, valid=None):
            inner = [slice(self.step, n - self.step) for n in x.shape[1:]]
            parts = []
            for axis, n in enumerate(x.shape[1:]):
                above, below = list(inner), list(inner)
                above[axis], below[axis] = slice(2 * self.step, n), slice(0, n - 2 * self.step)
                parts.append((x[(0, *above)] - x[(0, *below)]) / (stats.std or 1.0))
            return FeatureMap(__import__("torch").stack(parts), None)

    SLOPE = Kind(SlopeParameters, lambda dimension, given: Slope(dimension, given.step))
"""


def test_a_descriptor(run, pair, scratch, monkeypatch):
    """One class and one row: the command line lists it, takes its parameters, and registers with it."""
    fixed, moving, out = pair
    row = DescriptorRow(f"{scratch(GRADIENT)}:SLOPE", "a test: differences of neighbours")
    monkeypatch.setitem(DESCRIPTORS.rows, "slope", row)
    code, listed, error = run("models", "list")
    assert code == 0, error
    assert "slope" in listed
    code, _, error = run("register", fixed, moving, "-o", out, "--model", "slope", "--spec", "step=2", *QUICK)
    assert code == 0, error
    assert record_of(out)["models"][0]["name"] == "slope(2)"
    np.testing.assert_allclose(mean_field(out), [2.0, 0.0], atol=0.4)
    code, _, error = run("features", fixed, "-o", out.parent / "layers", "--model", "slope", "--spec", "steps=2")
    assert code == 2
    assert "expected step=... for slope" in error


NUMBERS = """
    import numpy as np
    import SimpleITK as sitk

    from semreg.io.files import atomic_file
    from semreg.transforms.formats.contract import Format

    def write(chain, path, reference, outside):
        affine = chain.affine()
        with atomic_file(path) as partial:
            partial.write_text("numbers " + " ".join(map(repr, [*affine.GetMatrix(), *affine.GetTranslation()])))
        return [path]

    def read(path):
        values = [float(text) for text in path.read_text(encoding="utf-8").split()[1:]]
        transform = sitk.AffineTransform(2 if len(values) == 6 else 3)
        n = transform.GetDimension()
        transform.SetMatrix(values[: n * n])
        transform.SetTranslation(values[n * n :])
        return [transform]

    NUMBERS = Format(write, lambda path: path.read_bytes().startswith(b"numbers "), read)
"""


def test_a_format_of_transforms(run, scratch, monkeypatch, tmp_path):
    """One file and one row: convert writes it by its name or ``--format``, and reads it back by what is in it."""
    row = FormatRow(f"{scratch(NUMBERS)}:NUMBERS", r".*\.numbers", ".numbers (a test)")
    monkeypatch.setitem(FORMATS.rows, "numbers", row)
    turn = sitk.AffineTransform(3)
    turn.SetMatrix([0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    turn.SetTranslation([3.0, -2.0, 5.5])
    sitk.WriteTransform(turn, str(tmp_path / "turn.tfm"))
    for name, more in (("a.numbers", ()), ("b.dat", ("--format", "numbers"))):
        code, _, error = run("convert", tmp_path / "turn.tfm", tmp_path / name, *more, "-q")
        assert code == 0, error
        code, _, error = run("convert", tmp_path / name, tmp_path / "back.tfm", "-q")
        assert code == 0, error
        back = sitk.ReadTransform(str(tmp_path / "back.tfm"))
        assert back.TransformPoint((1.0, 2.0, 3.0)) == pytest.approx(turn.TransformPoint((1.0, 2.0, 3.0)))
    code, _, error = run("convert", tmp_path / "turn.tfm", tmp_path / "a.unknown")
    assert code == 2
    assert ".numbers (a test)" in error
    code, _, error = run("convert", tmp_path / "turn.tfm", tmp_path / "b.dat", "--format", "number")
    assert "expected --format to be one of itk, " in error
    assert "did you mean 'numbers'?" in error


LINES = """
    import numpy as np

    from semreg.transforms.points.contract import PointFile, PointFormat

    def parse(data, ras):
        rows = [line.split() for line in data.decode().splitlines()]
        points = np.array([[float(value) for value in row[1:]] for row in rows]).T

        def rewritten(moved):
            return "".join(f"{row[0]} {x} {y} {z}\\n" for row, (x, y, z) in zip(rows, moved.T)).encode()

        return PointFile(points, rewritten, tuple(row[0] for row in rows))

    LINES = PointFormat(parse)
"""


ALONG_X = """
    from dataclasses import dataclass, replace

    import numpy as np

    from semreg.transforms.linear import Linear

    @dataclass(frozen=True)
    class AlongX(Linear):
        def changed(self, step):
            move = np.eye(len(self.matrix))
            move[0, -1] = step[0]
            return replace(self, matrix=self.matrix @ move)

    def along_x(matrix, grid, centre):
        shift = np.zeros_like(matrix)
        shift[0, -1] = 1.0
        return AlongX(matrix, (shift,))
"""


def test_a_family_of_transforms(pair, scratch, monkeypatch):
    """One class and one row: the alignment's descent finds the best transform of that family."""
    fixed, moving, _ = pair
    family = importlib.import_module(scratch(ALONG_X)).along_x
    monkeypatch.setitem(TRANSFORMS, "along x", family)
    volumes = [read_image(path).volume for path in (fixed, moving)]
    pictures = [Picture(volume, None, Volume(torch.ones_like(volume.data), volume.grid)) for volume in volumes]
    descent = Descent(*pictures, Layer)
    found = descent.descend(descent.begin("along x", np.eye(3)), 30, lambda *_: None)
    expected = np.eye(3)
    expected[0, -1] = 2.0
    np.testing.assert_allclose(found.matrix, expected, atol=0.05)


def test_a_format_of_points(run, scratch, monkeypatch, tmp_path):
    """One file and one row: apply moves the points of such a file, and landmarks and their names are read from it."""
    monkeypatch.setitem(POINTS.rows, "pts", PointRow(f"{scratch(LINES)}:LINES", ".pts"))
    sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, -2.0, 0.5)), str(tmp_path / "t.tfm"))
    (tmp_path / "a.pts").write_text("apex 1.0 2.0 3.0\ncarina -4.0 0.0 9.0\n")
    code, _, error = run("apply", tmp_path / "t.tfm", "-i", tmp_path / "a.pts", "-o", tmp_path / "b.pts", "-q")
    assert code == 0, error
    assert (tmp_path / "b.pts").read_text(encoding="utf-8") == "apex 2.0 0.0 3.5\ncarina -3.0 -2.0 9.5\n"
    landmarks = importlib.import_module("semreg.quality").read_landmarks([tmp_path / "a.pts"], [tmp_path / "b.pts"])
    assert landmarks.names == ("apex", "carina")
    np.testing.assert_allclose(landmarks.moving - landmarks.fixed, [[1.0, -2.0, 0.5]] * 2)


def test_a_quality_check(monkeypatch):
    """One row: the verdict has the check, with its level, its sentence, and what it says where nothing is known."""
    row = Check(
        name="far",
        title="Far away",
        unit="mm",
        value=lambda known: known.evidence.shift_mm,
        limits=(10.0, 20.0),
        passed="Nothing lies far away.",
        stopped="The best shift is {value:.0f} mm away.",
    )
    monkeypatch.setattr(verdict, "CHECKS", (*CHECKS, row))
    for shift, level in ((5.0, "PASS"), (15.0, "REVIEW"), (25.0, "FAIL"), (None, None)):
        evidence = Evidence(
            dimension=3, voxel_mm=2.0, diagonal_mm=100.0, spacing_mm=1.0, field_missing=0.0, shift_mm=shift
        )
        result = judge(evidence)
        check = result.to_dict()["checks"][-1]
        assert (check["name"], check["level"], check["value"]) == ("far", level, shift)
        assert ("The best shift is 25 mm away." in result.reasons) == (shift == 25.0)


def test_a_preset(run, pair, monkeypatch, tmp_path):
    """One TOML file: it is listed, shown and used by its name."""
    fixed, moving, out = pair
    shutil.copytree(ROOT / "src" / "semreg" / "presets", tmp_path / "presets")
    text = 'description = "Two textures."\nwhy = "A test."\n\n[refine]\ndistance = "cosine"\n'
    (tmp_path / "presets" / "textures.toml").write_text(text)
    monkeypatch.setattr(load, "_folder", lambda: tmp_path / "presets")
    code, listed, error = run("presets", "list")
    assert code == 0, error
    assert "textures" in listed
    assert "Two textures." in run("presets", "show", "textures")[1]
    code, _, error = run("register", fixed, moving, "-o", out, "--preset", "textures", *QUICK)
    assert code == 0, error
    assert record_of(out)["settings"]["refine"]["distance"] == "cosine"


BACKEND = """
    from semreg.core.kernels.reference.backend import Reference

    class Counting(Reference):
        calls = 0

        def spline_product(self, coefficients, matrices):
            Counting.calls += 1
            return super().spline_product(coefficients, matrices)

    COUNTING = Counting()
"""


def test_a_backend(run, pair, scratch, monkeypatch):
    """One object and one row: a registration on its device runs through it, and gives the same field."""
    fixed, moving, out = pair
    for name in [name for name in BACKENDS.rows if name != "reference"]:
        monkeypatch.delitem(BACKENDS.rows, name)
    assert run("register", fixed, moving, "-o", out / "before", *QUICK)[0] == 0
    monkeypatch.setitem(BACKENDS.rows, "counting", BackendRow(f"{scratch(BACKEND)}:COUNTING", ("cpu",)))
    assert kernels_for(torch.device("cpu")) is BACKENDS["counting"]
    code, _, error = run("register", fixed, moving, "-o", out / "after", *QUICK)
    assert code == 0, error
    assert type(BACKENDS["counting"]).calls > 10
    same = [(out / name / "transform.h5").read_bytes() for name in ("before", "after")]
    assert same[0] == same[1]
    monkeypatch.undo()
    assert spline_product(torch.ones(1, 2, 2), [torch.eye(2)] * 2).sum() == 4


HALF = """
    from dataclasses import replace

    from semreg.registration.stages import Stage

    def run(state):
        spline = state.deformed.spline
        halved = replace(spline, coefficients=0.5 * spline.coefficients)
        state.deformed = replace(state.deformed, spline=halved)

    HALF = Stage(name="half", run=run, wanted=lambda state: state.config.seed == 5)
"""


def test_a_stage(run, pair, scratch, monkeypatch):
    """One file and its place in the list: it runs where it is wanted; progress, timings and record know its name."""
    fixed, moving, out = pair
    stage = importlib.import_module(scratch(HALF)).HALF
    names = [each.name for each in STAGES]
    place = names.index("uncertainty")
    monkeypatch.setattr("semreg.registration.pipeline.STAGES", (*STAGES[:place], stage, *STAGES[place:]))
    found = {}
    for seed in ("4", "5"):
        code, _, error = run("register", fixed, moving, "-o", out / seed, "--seed", seed, *QUICK[:-1])
        assert code == 0, error
        assert bool(re.search(r"^half +0\.\d s", error, re.MULTILINE)) == (seed == "5")
        assert ("half" in record_of(out / seed)["timings"]) == (seed == "5")
        found[seed] = mean_field(out / seed)
    np.testing.assert_allclose(found["5"], found["4"] / 2, atol=1e-3)


def test_each_recipe_is_tested():
    """What CONTRIBUTING says how to add, and where a row is all that is added, has a test here; its files are there."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page[page.index("## How to add") : page.index("## Style")]
    recipes = set(re.findall(r"^\*\*(An? [^.*]+)\.\*\*", section, re.MULTILINE))
    tests = [name for name in globals() if name.startswith(("test_a_", "test_an_"))]
    tested = {name.removeprefix("test_").replace("_", " ") for name in tests}
    elsewhere = {"A feature model", "A verb", "A benchmark", "A dependency"}
    assert {recipe.lower() for recipe in recipes - elsewhere} == tested - {"a descriptor"}
    rooms = "distances|features|transforms|core|quality|registration|presets|cli"
    files = re.findall(rf"`((?:{rooms})/[\w/]*(?:\.py)?)`", section)
    assert files
    for name in files:
        assert (ROOT / "src" / "semreg" / name).exists(), name
