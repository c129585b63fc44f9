"""What docs/itk.md says is so: its scripts run and find the motion, the names and options it tells of are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import SimpleITK as sitk

from moved_pair import MovedPair, write_network, write_pair
from pages import blocks

itk = pytest.importorskip("itk", reason="needs the package itk")
pytest.importorskip("semreg_itkv4", reason="needs the package semreg-itkv4: make native")

PAGE = (Path(__file__).parents[2] / "docs" / "itk.md").read_text(encoding="utf-8")
DENSE, RIGID, OWN, TENSORS = blocks("python", PAGE)


@pytest.fixture
def pair(tmp_path, monkeypatch) -> MovedPair:
    """The current folder, with the images and the network that the page names."""
    monkeypatch.chdir(tmp_path)
    write_network(tmp_path / "net.pt")
    return write_pair(tmp_path)


def run(block: str) -> dict[str, object]:
    """The names that a block has made."""
    names: dict[str, object] = {}
    exec(compile(block, "docs/itk.md", "exec"), names)  # noqa: S102 - the page is ours
    return names


@pytest.mark.parametrize(
    ("block", "file", "most_mm"),
    [(DENSE, "dense.h5", 0.8), (RIGID, "rigid.h5", 0.2), (OWN, "own.h5", 0.5)],
    ids=["dense", "rigid", "own"],
)
def test_the_scripts_find_the_motion(pair, block, file, most_mm):
    """Each script runs as it stands and finds a known rigid motion of 5.5 mm; a spline and few steps come less near."""
    run(block)
    assert pair.error(sitk.Transform(3, sitk.sitkIdentity)) > 5
    assert pair.error(sitk.ReadTransform(file)) < most_mm


@pytest.mark.usefixtures("pair")
def test_images_and_tensors():
    """What is written into the tensor is seen in the image; the image made of a tensor has its channels and grid."""
    names = run(TENSORS)
    assert itk.array_view_from_image(names["image"]).min() == 0
    slopes, fixed = sitk.ReadImage("slopes.nrrd"), sitk.ReadImage("fixed.nii.gz")
    assert slopes.GetNumberOfComponentsPerPixel() == 3
    assert slopes.GetSize() == fixed.GetSize()
    assert slopes.GetOrigin() == pytest.approx(fixed.GetOrigin())


def test_the_names_exist():
    """Every class and function of ``itk`` and every method that the page names is there."""
    from semreg.itk.api.impact_metric import ImpactImageToImageMetricv4
    from semreg.itk.api.metricv4 import PythonMetricv4

    for name in set(re.findall(r"`itk\.(\w+)", PAGE)):
        assert hasattr(itk, name), name
    image_type = itk.Image[itk.F, 3]
    metric = itk.ImpactImageToImageMetricv4[image_type, image_type]
    homes = (metric, ImpactImageToImageMetricv4, itk.ImpactFineRegistration,
             itk.ImpactCoarseRegistration, itk.ImageRegistrationMethodv4[image_type, image_type],
             itk.ImageToFeaturesMap, itk.RegularStepGradientDescentOptimizerv4[itk.D], itk.ExhaustiveOptimizerv4[itk.D],
             itk.CompositeTransform[itk.D, 3])  # fmt: skip
    for name in set(re.findall(r"`(?:metric\.)?((?:Get|Set|Update|Metric|Normalize)\w+)\(", PAGE)) - {"SetName"}:
        assert any(hasattr(home, name) for home in homes), name
    table = re.findall(r"^\| `(\w+)` \| (?:in each|at the|after|instead)", PAGE, flags=re.MULTILINE)
    assert table == ["evaluate", "initialize", "place", "evaluate_rows"]
    assert all(hasattr(PythonMetricv4, name) for name in table)
    assert {"fixed", "moving", "virtual", "moving_points"} <= set(PythonMetricv4.__annotations__)
