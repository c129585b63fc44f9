"""Promises of what 3D Slicer starts: real registrations by its words and through the library of its module."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import typer

from semreg.cli import app
from semreg.phantom import make_pair, write_pair
from semreg.transforms.points.reading import read_points

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "packaging" / "slicer"
SCRIPT, XML = PLACE / "SemRegCLI" / "SemRegCLI.py", PLACE / "SemRegCLI" / "SemRegCLI.xml"
FLIP = np.array([-1.0, -1.0, 1.0])
"""RAS ⇄ LPS."""
COMMAND = typer.main.get_command(app).commands["slicer"]


@pytest.fixture(scope="module")
def library():
    """The library of the module, importable by its name."""
    sys.path.insert(0, str(PLACE / "SemReg"))
    import SemRegLib.job
    import SemRegLib.points
    import SemRegLib.process
    import SemRegLib.programs
    import SemRegLib.result

    yield SemRegLib
    sys.path.remove(str(PLACE / "SemReg"))


@pytest.fixture(scope="module")
def program(library):
    """This Python as the one that semreg is run in, with one thread."""
    return library.programs.Program(sys.executable, {**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The files of a small pair on oblique grids with a known deformation, and its landmarks in Slicer's RAS."""
    folder = tmp_path_factory.mktemp("pair")
    made = make_pair(size=32, landmarks=60)
    write_pair(made, folder)
    ras = {
        name: np.loadtxt(folder / f"{name}_points.csv", delimiter=",", skiprows=1) * FLIP
        for name in ("fixed", "moving")
    }
    return folder, ras


def slicer_words(description, assigned):
    """The command line that Slicer makes of a description and of what the user has chosen (vtkSlicerCLIModuleLogic)."""
    words, last = [], {}
    for group in ET.fromstring(description).iter("parameters"):  # noqa: S314 - our own file
        for each in group:
            name, flag = each.findtext("name"), each.findtext("longflag")
            value = assigned.get(name, each.findtext("default") or "")
            if name is None or (each.findtext("channel") == "output" and each.tag == "string"):
                continue
            if each.findtext("index") is not None:
                last[int(each.findtext("index"))] = value
            elif each.tag == "boolean":
                words += [f"--{flag}"] if value == "true" else []
            elif value or each.tag.endswith("-enumeration"):
                words += [f"--{flag}", value]
    return [*words, *(last[n] for n in sorted(last))]


def to_parent(path, points):
    """Where Slicer shows points, RAS, that lie under the transform node that it makes of a file.

    The file is its transform *from* parent, in LPS; what lies under the node is seen through the inverse.
    """
    transform = sitk.ReadTransform(str(path))
    found = points * FLIP
    wanted = found.copy()
    for _ in range(60):
        found = found + wanted - np.array([transform.TransformPoint(each) for each in found])
    return found * FLIP


def apart(one, other):
    """The median distance in mm."""
    return float(np.median(np.linalg.norm(one - other, axis=1)))


def test_slicer_runs_the_command_line_module(pair, tmp_path):
    """With the words of Slicer the script writes what was asked for, tells how far it is, and returns the verdict."""
    folder, _ = pair
    wanted = {"output_transform": "t.h5", "output_volume": "w.nrrd", "uncertainty_volume": "u.nrrd"}
    files = {name: str(tmp_path / file) for name, file in wanted.items()}
    images = {name: str(folder / f"{name}.nii.gz") for name in ("fixed", "moving")}
    words = slicer_words(XML.read_text(encoding="utf-8"), {**images, **files, "fast": "true"})
    assert words[-2:] == list(images.values())
    assert {"--output_transform", "--preset", "default"} <= set(words)
    returned = tmp_path / "returned.txt"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--returnparameterfile", returned, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # Slicer shows it as an error
    shares = [float(text) for text in re.findall(r"<filter-progress>(.*?)</filter-progress>", done.stdout)]
    assert shares == sorted(shares)
    assert len(shares) > 10
    assert shares[-1] == 1
    assert {"align", "refine", "judge"} <= set(re.findall(r"<filter-comment>(.*?)</filter-comment>", done.stdout))
    # what Slicer shows is what is left without its tags
    inner = re.sub(r"<filter-(progress|name|comment|time)>[^<]*</filter-\1>\s*", "", done.stdout)
    assert "filter-" not in re.sub(r"<filter-(start|end)>[^<]*</filter-\1>\s*", "", inner)
    fixed, warped, unsure = (
        sitk.ReadImage(file) for file in (images["fixed"], files["output_volume"], files["uncertainty_volume"])
    )
    for image in (warped, unsure):
        assert image.GetSize() == fixed.GetSize()
        np.testing.assert_allclose(image.GetDirection(), fixed.GetDirection(), atol=1e-6)
    moving = sitk.ReadImage(images["moving"], sitk.sitkFloat32)
    again = sitk.Resample(moving, fixed, sitk.ReadTransform(files["output_transform"]), sitk.sitkLinear, -1024.0)
    found, expected = (sitk.GetArrayFromImage(image).astype(float) for image in (warped, again))
    inside = expected > -1000  # the rest has no voxel of the moving image
    assert inside.mean() > 0.5
    assert np.abs(found - expected)[inside].max() < 1  # whole numbers, and weights in single precision
    assert re.fullmatch(r"verdict = (PASS|(REVIEW|FAIL) .+)\n", returned.read_text(encoding="utf-8"))
    assert {path.name for path in tmp_path.iterdir()} == {*wanted.values(), "returned.txt"}


def test_the_script_describes_itself():
    """``--xml`` of the script prints the description, as Slicer asks for where there is no file."""
    done = subprocess.run([sys.executable, SCRIPT, "--xml"], capture_output=True, text=True, check=True)
    assert done.stdout == XML.read_text(encoding="utf-8")


def test_moving_landmarks_come_to_the_fixed_ones(library, program, pair, tmp_path):
    """A run of the module: markups in RAS guide it, and under Slicer's transform node they lie where they belong."""
    folder, ras = pair
    lists = {}
    for name, places in ras.items():
        points = [library.points.Point(f"F-{n}", tuple(place)) for n, place in enumerate(places)]
        library.points.write_markups(points, tmp_path / f"{name}.mrk.json")
        lists[f"{name}_landmarks"] = tmp_path / f"{name}.mrk.json"
    job = library.job.Job(
        fixed=folder / "fixed.nii.gz", moving=folder / "moving.nii.gz", folder=tmp_path / "result", fast=True, **lists
    )
    process = library.process.Process(program.words(*job.words()), program.environment)
    assert process.wait(300) == 0, [said.text for said in process.news()]
    news = process.news()
    shares = [said.share for said in news if said.share is not None]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert "refine" in {said.stage for said in news}
    result = library.result.Result.read(tmp_path / "result")
    assert result.level in ("PASS", "REVIEW", "FAIL")
    assert len(result.checks) > 5
    assert all(check.sentence for check in result.checks)
    for path in (result.transform, result.warped, result.uncertainty, result.report):
        assert path.is_file()
    before, after = apart(ras["fixed"], ras["moving"]), apart(ras["fixed"], to_parent(result.transform, ras["moving"]))
    assert before > 4  # mm
    assert after < before / 3
    assert apart(ras["moving"], to_parent(result.transform, ras["fixed"])) > before  # the other way they part


def test_markups_say_their_system(library, tmp_path):
    """Semreg reads a file of the module as LPS: x and y of Slicer's RAS change their sign, z and the labels stay."""
    points = [library.points.Point("nose", (10.0, 20.5, -3.0)), library.points.Point("tip, ä", (-1.0, 2.0, 4.0))]
    library.points.write_markups(points, tmp_path / "a.mrk.json")
    found = read_points(tmp_path / "a.mrk.json")
    np.testing.assert_allclose(found.points.T, [[-10.0, -20.5, -3.0], [1.0, -2.0, 4.0]])
    assert found.names == ("nose", "tip, ä")
    with pytest.raises(ValueError, match="got 2 in the fixed and 1"):
        library.points.check_pairs(points, points[:1])
    with pytest.raises(ValueError, match="got 0 in the fixed and 0"):
        library.points.check_pairs([], [])


def test_a_cancelled_run_leaves_nothing(library, program, pair, tmp_path):
    """Cancel ends the process while it works, and no file of a result is left."""
    folder, _ = pair
    job = library.job.Job(fixed=folder / "fixed.nii.gz", moving=folder / "moving.nii.gz", folder=tmp_path / "result")
    process = library.process.Process(program.words(*job.words()), program.environment)
    seen = []
    while not any(said.stage == "align" for said in seen):
        seen += process.news()
        assert process.code() is None, seen
    process.cancel()
    assert process.wait(60) not in (0, None)
    assert process.cancelled
    assert list(tmp_path.rglob("*.*")) == []


def test_errors_reach_the_user_as_one_sentence(library, program, tmp_path):
    """What semreg says of bad input is the last line of the standard error; a Python without semreg is named."""
    job = library.job.Job(fixed=tmp_path / "none.nrrd", moving=tmp_path / "none.nrrd", folder=tmp_path / "result")
    process = library.process.Process(program.words(*job.words()), program.environment)
    assert process.wait(120) == 2
    (error,) = [said.text for said in process.news() if said.error]
    assert error.startswith("error: expected")
    alone = library.programs.Program(sys.executable, {**os.environ, "PYTHONPATH": str(tmp_path)})
    (tmp_path / "semreg.py").write_text("raise ImportError('no semreg here')\n", encoding="utf-8")
    with pytest.raises(library.programs.NoSemreg, match=r"got .*no semreg here; install semreg there, or choose"):
        alone.describe()
    with pytest.raises(library.programs.NoSemreg, match="expected a Python that runs"):
        library.programs.Program(str(tmp_path / "python")).describe()
    with pytest.raises(ValueError, match="expected a result of semreg"):
        library.result.Result.read(tmp_path)


def test_the_module_gives_flags_that_there_are(library, program, tmp_path):
    """With everything chosen each flag is a parameter of the installation, which names its presets itself."""
    description = program.describe()
    assert {"default", "ct-mr-abdomen"} <= set(description.choices["preset"])
    assert {"default", "none", "rigid"} <= set(description.choices["align"])
    paths = ("fixed_mask", "moving_mask", "fixed_landmarks", "moving_landmarks", "models")
    job = library.job.Job(
        fixed=tmp_path, moving=tmp_path, folder=tmp_path, model="mind", fast=True, **dict.fromkeys(paths, tmp_path)
    )
    own = {name for each in COMMAND.params for name in each.opts}
    flags = [word for word in job.words() if word.startswith("--")]
    assert len(flags) == 13
    assert {flag.replace("_", "-") for flag in flags} <= own


def test_slicers_python_takes_semreg_from_its_own_folder(library, tmp_path, monkeypatch):
    """Both modules look for semreg in one folder beside Slicer's packages, before these."""
    assert runpy.run_path(str(SCRIPT), run_name="read")["PACKAGES"] == library.programs.packages_folder()
    folder = tmp_path / "semreg-packages"
    folder.mkdir()
    (folder / "semreg").symlink_to(ROOT / "src" / "semreg", target_is_directory=True)
    monkeypatch.setattr(library.programs, "packages_folder", lambda: folder)
    own = library.programs.Program.own(sys.executable, {**os.environ, "PYTHONPATH": "elsewhere"})
    done = subprocess.run(
        [own.python, "-c", "import semreg; print(semreg.__file__)"],
        env=own.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0] == str(folder / "semreg" / "__init__.py")
    assert own.environment["PYTHONPATH"] == f"{folder}{os.pathsep}elsewhere"
    assert library.programs.install_words("a.whl") == ["--target", str(folder), "--upgrade", "a.whl"]


def test_vtk_sees_the_transform_as_itk_does(program, pair, tmp_path):
    """A file with a field and a matrix, its parts concatenated in VTK as Slicer does, maps RAS points as ITK maps LPS.

    What lies under it, seen through VTK's inverse, comes near where it belongs: moving landmarks to the fixed ones.
    """
    vtk = pytest.importorskip("vtk", reason="VTK is not installed (pip install vtk)")
    from vtk_transforms import vtk_part

    folder, ras = pair
    turn = sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.05, 0.1, 0.2, (12.0, 5.0, -8.0))
    image = sitk.ReadImage(str(folder / "moving.nii.gz"))
    matrix = np.reshape(turn.GetMatrix(), (3, 3)) @ np.reshape(image.GetDirection(), (3, 3))
    image.SetOrigin(turn.TransformPoint(image.GetOrigin()))
    image.SetDirection(matrix.ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / "turned.nii.gz"))
    words = ["--fast", "--align", "rigid", "--output_transform", tmp_path / "t.h5", folder / "fixed.nii.gz"]
    subprocess.run(
        program.words(*map(str, words), str(tmp_path / "turned.nii.gz")), env=program.environment, check=True
    )
    read = sitk.CompositeTransform(sitk.ReadTransform(str(tmp_path / "t.h5")))
    node = vtk.vtkGeneralTransform()
    parts = [read.GetNthTransform(n) for n in range(read.GetNumberOfTransforms())]
    assert [part.GetName() for part in parts] == ["AffineTransform", "DisplacementFieldTransform"]
    for part in parts:
        node.Concatenate(vtk_part(part))
    seen = np.array([node.TransformPoint(point) for point in ras["fixed"]])
    known = np.array([read.TransformPoint(point) for point in ras["fixed"] * FLIP]) * FLIP
    assert np.linalg.norm(seen - known, axis=1).max() < 1e-3  # mm; VTK's grids are read in single precision
    node.Inverse()
    turned = np.array([turn.TransformPoint(point) for point in ras["moving"] * FLIP]) * FLIP
    back = np.array([node.TransformPoint(point) for point in turned])
    assert apart(ras["fixed"], back) < apart(ras["fixed"], turned) / 3
