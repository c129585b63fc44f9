"""Promises of the extension for 3D Slicer, as far as they can be kept without it; docs/slicer.md says what is left."""

from __future__ import annotations

import ast
import json
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
from semreg.cli.execution_model import execution_model
from semreg.phantom import make_pair, write_pair
from semreg.transforms.points.reading import read_points

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "packaging" / "slicer"
SCRIPT, XML = PLACE / "SemRegCLI" / "SemRegCLI.py", PLACE / "SemRegCLI" / "SemRegCLI.xml"
MODULE, LIBRARY = PLACE / "SemReg" / "SemReg.py", PLACE / "SemReg" / "SemRegLib"
KNOW_SLICER = {"forms", "logic", "scene"}
"""Parts of the library that cannot run here."""
FLIP = np.array([-1.0, -1.0, 1.0])
"""RAS ⇄ LPS."""
COMMAND = typer.main.get_command(app).commands["slicer"]


@pytest.fixture(scope="module")
def library():
    """The library of the module, importable by its name."""
    sys.path.insert(0, str(MODULE.parent))
    import SemRegLib.job
    import SemRegLib.points
    import SemRegLib.process
    import SemRegLib.programs
    import SemRegLib.result

    yield SemRegLib
    sys.path.remove(str(MODULE.parent))


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


def test_the_description_is_that_of_the_command():
    """The file that Slicer reads is what ``semreg slicer --xml`` prints, so no flag and no preset is out of date."""
    assert XML.read_text(encoding="utf-8") == execution_model(COMMAND), f"semreg slicer --xml > {XML.relative_to(ROOT)}"


def test_the_parser_of_slicer_would_take_the_description():
    """What ModuleDescriptionParser refuses is not in it: names, places, attributes, and no index beside a flag."""
    root = ET.fromstring(XML.read_text(encoding="utf-8"))  # noqa: S314 - our own file
    assert XML.read_text(encoding="utf-8").startswith("<?xml")
    head = ["category", "title", "description", "version", "documentation-url", "license", "contributor"]
    assert [each.tag for each in root if each.tag != "parameters"] == head
    attributes = {
        "image": {"type", "reference"}, "pointfile": {"fileExtensions", "coordinateSystem"}, "file": set(),
        "transform": {"fileExtensions", "reference"}, "directory": set(), "string": set(), "boolean": set(),
        "string-enumeration": set(),
    }  # fmt: skip
    names, places = [], []
    for group in root.iter("parameters"):
        assert [each.tag for each in group[:2]] == ["label", "description"]
        for each in group[2:]:
            assert set(each.attrib) <= attributes[each.tag]
            assert {part.tag for part in each} >= {"name", "label", "description"}
            assert each.tag not in ("image", "transform", "pointfile") or each.findtext("channel") in (
                "input",
                "output",
            )
            assert (each.find("index") is None) or (each.find("longflag") is None)
            assert re.fullmatch(r"[A-Za-z_]\w*", each.findtext("name"))
            assert each.findtext("longflag") in (None, each.findtext("name"))
            assert each.attrib.get("coordinateSystem", "lps") == "lps"
            if each.tag.endswith("-enumeration"):
                assert each.findtext("default") in [value.text for value in each.iter("element")]
            names.append(each.findtext("name"))
            places += [] if each.find("index") is None else [int(each.findtext("index"))]
    assert len(set(names)) == len(names)
    assert sorted(places) == [0, 1]
    assert all(each.attrib.get("reference", "moving") in names for each in root.iter())


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


@pytest.mark.parametrize("path", sorted(PLACE.rglob("*.py")), ids=lambda path: path.stem)
def test_the_python_of_slicer_reads_the_module(path):
    """Python 3.9, that of Slicer before 5.10, parses it; only what says so imports Slicer, Qt or VTK."""
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    roots = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    roots |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    windowed = path == MODULE or (path.parent == LIBRARY and path.stem in KNOW_SLICER)
    assert bool(roots & {"slicer", "qt", "ctk", "vtk"}) == windowed
    assert roots <= {*sys.stdlib_module_names, "SemRegLib", "slicer", "qt", "ctk", "vtk", "semreg"}
    assert ("semreg" in roots) == (path == SCRIPT)


def defined(tree):
    """What a module or a class defines or imports at its top."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return names


def test_the_window_uses_names_that_exist():
    """What is imported from the library is there; each ``self.name`` is set or defined in its class, or is Slicer's."""
    inherited = {
        "SemReg": {"parent"}, "SemRegWidget": {"layout"}, "SemRegLogic": set(),
        "SemRegTest": {"assertEqual", "assertIs", "assertIsNotNone", "assertLess"},
    }  # fmt: skip
    seen = set()
    for path in (MODULE, *(LIBRARY / f"{name}.py" for name in sorted(KNOW_SLICER))):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("SemRegLib."):
                there = defined(ast.parse((LIBRARY / f"{node.module.split('.')[1]}.py").read_text(encoding="utf-8")))
                assert {alias.name for alias in node.names} <= there, node.module
        for each in (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in inherited):
            own = [
                node for node in ast.walk(each) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"
            ]
            written = {node.attr for node in own if isinstance(node.ctx, ast.Store)} | defined(each)
            assert {node.attr for node in own} - written <= inherited[each.name], each.name
            seen.add(each.name)
    assert seen == set(inherited)
    assert {"SemReg", "SemRegWidget", "SemRegLogic", "SemRegTest"} <= defined(
        ast.parse(MODULE.read_text(encoding="utf-8"))
    )


def test_the_build_names_every_file():
    """CMake copies each file of the module, and builds both modules; the icon is there."""
    text = (PLACE / "SemReg" / "CMakeLists.txt").read_text(encoding="utf-8")
    scripts = re.search(r"set\(MODULE_PYTHON_SCRIPTS(.*?)\)", text, re.DOTALL)[1].split()
    assert [name.replace("${MODULE_NAME}", "SemReg") for name in scripts] == [
        "SemReg.py", *sorted(f"SemRegLib/{path.name}" for path in LIBRARY.glob("*.py"))
    ]  # fmt: skip
    icon = (PLACE / "SemReg" / "Resources" / "Icons" / "SemReg.png").read_bytes()
    assert icon.startswith(b"\x89PNG")
    extension = (PLACE / "CMakeLists.txt").read_text(encoding="utf-8")
    assert re.findall(r"add_subdirectory\((\w+)\)", extension) == ["SemReg", "SemRegCLI"]
    assert re.search(r"(?m)^project\(SemReg\)$", extension)
    assert SCRIPT.read_text(encoding="utf-8").startswith("#!")  # by which Slicer tells it from a module with a window
    assert "NAME SemRegCLI" in (SCRIPT.parent / "CMakeLists.txt").read_text(encoding="utf-8")


def test_the_entry_of_the_index_has_its_keys():
    """The keys and types that Slicer's schema of catalogue entries (1.0.1) asks for, and no other."""
    entry = json.loads((PLACE / "SemReg.json").read_text(encoding="utf-8"))
    kinds = {
        "$schema": str, "category": str, "scm_url": str, "scm_revision": str, "scm_type": str, "enabled": bool,
        "build_dependencies": list, "build_subdirectory": str, "tier": int,
    }  # fmt: skip
    assert {"$schema", "category", "scm_url"} <= set(entry) <= set(kinds)
    assert all(isinstance(value, kinds[name]) for name, value in entry.items())
    assert entry["scm_type"] in ("git", "local")
    assert entry["tier"] in (1, 3, 5)
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.1.json#")


def test_the_pages_name_flags_that_exist():
    """Each flag in the page and the README of the extension is one of semreg slicer, or of pip, CMake and git."""
    others = {"--target", "--build", "--prefix"}
    own = {name for each in COMMAND.params for name in (*each.opts, *each.secondary_opts)}
    for path in (ROOT / "docs" / "slicer.md", PLACE / "README.md"):
        flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", path.read_text(encoding="utf-8")))
        assert {flag.replace("_", "-") for flag in flags} <= own | others, path.name
