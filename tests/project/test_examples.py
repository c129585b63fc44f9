"""Every example runs as it is written, on small images, and does what it says."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk

from moved_pair import write_network, write_pair
from semreg.phantom import make_pair

EXAMPLES = Path(__file__).parents[2] / "examples"
WITH_ITK = ("itk_dense.py", "itk_metric.py")
STILL = sitk.Transform(3, sitk.sitkIdentity)


def test_every_example_is_run():
    """There is no example that no test runs."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"own_network.py", "train_network.py", *WITH_ITK}


def test_notebook(tmp_path, monkeypatch):
    """A kernel runs the notebook, in a folder of its own: it shows three planes, and landmarks come nearer."""
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    nbformat = pytest.importorskip("nbformat")
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "TMPDIR"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    work = tmp_path / "work"
    work.mkdir()
    notebook = nbformat.read(EXAMPLES / "first_steps.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(work)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"stream", "execute_result"}
    (shown,) = [output.data for output in outputs if output.output_type == "execute_result"]
    page = shown["text/html"]
    assert page.count("<figure") == 3
    assert page.count('<input type="range"') == 4
    assert "<script" not in page
    assert shown["text/plain"].startswith("Registration(")
    assert {output.name for output in outputs if output.output_type == "stream"} == {"stdout"}
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    before, after = map(float, re.search(r"landmark error ([\d.]+) mm before, ([\d.]+) mm after", said).groups())
    assert after < 0.6 * before
    assert len(said.splitlines()[0]) < 200
    assert list(work.iterdir()) == []


def test_own_network(monkeypatch, capsys):
    """A network of one's own brings landmarks nearer; on a smaller phantom."""
    monkeypatch.setattr("semreg.phantom.make_pair", lambda size: make_pair(size=size // 2))
    runpy.run_path(str(EXAMPLES / "own_network.py"), run_name="__main__")
    before, after = map(float, re.findall(r"landmark error \w+: +([\d.]+) mm", capsys.readouterr().out))
    assert after < before


def test_train_network(capsys):
    """A network that was trained with the loss alone brings landmarks of unseen phantoms nearer; a short course."""
    names = runpy.run_path(str(EXAMPLES / "train_network.py"))
    before, after = names["main"](names["Course"](seen=16, unseen=4, steps=200, batch=2))
    assert after < 0.95 * before
    assert f"before: {before:.2f} mm, after: {after:.2f} mm" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "most_mm"), [("itk_dense.py", 1.0), ("itk_metric.py", 0.2)])
def test_examples_with_itk(name, most_mm, tmp_path, monkeypatch, capsys):
    """Both scripts find a known rigid motion, 5.5 mm in the mean, and write what they say, for SimpleITK to read.

    In this process: ITK takes 10 s to load. The dense one ends its 100 short steps a little early on steep places.
    """
    pytest.importorskip("itk", reason="needs the package itk")
    if name == "itk_metric.py":
        pytest.importorskip("semreg_itkv4", reason="needs the package semreg-itkv4: make native")
    pair, network = write_pair(tmp_path), write_network(tmp_path / "net.pt")
    output = tmp_path / "output"
    monkeypatch.setattr(sys, "argv", [name, str(pair.fixed), str(pair.moving), str(network), str(output)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert pair.error(STILL) > 5
    assert pair.error(sitk.ReadTransform(str(output / "transform.h5"))) < most_mm
    (said,) = re.findall(r"^wrote (.*) to ", capsys.readouterr().out, flags=re.MULTILINE)
    assert set(re.split(r", | and ", said)) == {path.name for path in output.iterdir()}
    fixed, moved = (sitk.ReadImage(str(path)) for path in (pair.fixed, output / "moved.nii.gz"))
    near, far = (sitk.GetArrayViewFromImage(image)[6:-6, 6:-6, 6:-6] for image in (fixed, moved))
    assert moved.GetSize() == fixed.GetSize()
    assert float(((near - far) ** 2).mean()) < 0.05 * float(near.var())
    if name == "itk_metric.py":
        assert sitk.ReadImage(str(output / "features.mha")).GetNumberOfComponentsPerPixel() == 3
