"""Promises of the metric for programs in C++ (``native/cpp``): it is built, found by CMake, and registers.

Built against ITK's own C++ libraries, with this Python inside; skipped where one of them is not there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semreg.errors import ConfigError, DeviceError
from semreg.itk.embedded import make_target
from semreg.phantom import make_brains, write_pair

ROOT = Path(__file__).parents[2]
CMAKE = shutil.which("cmake")
SHIFT_MM = np.array([7.0, -5.0, 4.0])
"""More than a voxel of the images along each axis but one."""


def missing() -> str:
    """What is not there to build with, or nothing."""
    if CMAKE is None or shutil.which("c++") is None:
        return "needs cmake and a C++ compiler"
    places = [path for base in ("/usr", "/usr/local") for path in Path(base).glob("lib*/**/cmake/ITK-5.*")]
    if not places and "ITK_DIR" not in os.environ:
        return "needs ITK's C++ libraries, 5.2 or later: libinsighttoolkit5-dev of Debian"
    library = Path(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("LDLIBRARY") or "")
    if not sysconfig.get_config_var("Py_ENABLE_SHARED") or not library.is_file():
        return "needs a Python that was built with a shared library"
    return ""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the programs, built against the installed package."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cpp")

    def cmake(*arguments):
        done = subprocess.run([CMAKE, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]

    cmake("-S", ROOT / "native/cpp", "-B", folder / "package", "--install-prefix", folder / "installed")
    cmake("--install", folder / "package")
    cmake(
        "-S", Path(__file__).parent / "cpp", "-B", folder / "build", f"-DPython_EXECUTABLE={sys.executable}",
        f"-DCMAKE_PREFIX_PATH={folder / 'installed'}",
    )  # fmt: skip
    cmake("--build", folder / "build", "--parallel", "2")
    return folder / "build"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with a head and the same head, on another grid, moved by ``SHIFT_MM``; voxels of about 5 mm."""
    folder = tmp_path_factory.mktemp("images")
    motion = np.eye(4)
    motion[:3, 3] = SHIFT_MM
    pair = make_brains(size=40, displacement_mm=0.0).moved(motion)
    write_pair(pair, folder)
    np.savetxt(folder / "points.txt", pair.fixed_points.numpy())
    return folder


def run(program, *arguments, **environment):
    """The program as users start it, with the environment of this Python."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SEMREG"))}
    limits = {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    return subprocess.run(
        [program, *arguments], env={**plain, **limits, **environment}, capture_output=True, text=True, check=False
    )


def test_a_program_registers(built, images, tmp_path):
    """The shift is found within half a voxel, the metric falls, and no second ITK is loaded by Python."""
    out = tmp_path / "out.tfm"
    program = built / "example/register_rigid"
    done = run(program, images / "fixed.nii.gz", images / "moving.nii.gz", out, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = (float(value) for value in re.findall(r"^metric \w+: (\S+)$", done.stdout, flags=re.MULTILINE))
    assert after < 0.7 * before
    transform = sitk.ReadTransform(str(out))
    points = np.loadtxt(images / "points.txt")
    found = np.array([transform.TransformPoint(point) for point in points.tolist()])
    half_a_voxel = min(sitk.ReadImage(str(images / "fixed.nii.gz")).GetSpacing()) / 2
    assert np.linalg.norm(found - (points + SHIFT_MM), axis=1).max() < half_a_voxel
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "torch" in loaded  # the list is that of the embedded Python
    assert not loaded & {"itk", "SimpleITK"}


def test_derivatives_are_those_of_the_value(built, images):
    """By central differences, for a rigid transform and for a B-spline, whose way through ITK differs."""
    done = run(built / "derivatives", images / "fixed.nii.gz", images / "moving.nii.gz")
    assert done.returncode == 0, done.stderr[-2000:]
    slopes = {name: (float(a), float(b)) for name, a, b in map(str.split, done.stdout.splitlines())}
    assert set(slopes) == {"Euler", "BSpline"}
    for found, expected in slopes.values():
        assert abs(expected) > 1e-4
        assert found == pytest.approx(expected, rel=0.01)


def test_mistakes_end_in_a_sentence(built, images, tmp_path):
    """An environment without semreg, a python that is not there, an image of NaN: exit code 2, and no file."""
    program, out = built / "example/register_rigid", tmp_path / "out.tfm"
    fixed, moving = images / "fixed.nii.gz", images / "moving.nii.gz"
    venv.create(tmp_path / "empty", with_pip=False)
    for python in (tmp_path / "empty/bin/python", tmp_path / "nowhere/python"):
        done = run(program, fixed, moving, out, SEMREG_PYTHON=str(python))
        assert done.returncode == 2, done.stderr[-2000:]
        assert re.search(r"expected the package semreg for Python 3\.\d+ in the environment of ", done.stderr)
        assert str(python) in done.stderr
        assert "set SEMREG_PYTHON to the python of an environment that has it" in done.stderr
    nothing = sitk.ReadImage(str(moving), sitk.sitkFloat32) * float("nan")
    sitk.WriteImage(nothing, str(tmp_path / "nan.nrrd"))
    done = run(program, fixed, tmp_path / "nan.nrrd", out)
    assert done.returncode == 2
    assert "ImageError: expected finite voxels in the moving image" in done.stderr
    assert not out.exists()


def test_settings_are_checked():
    """Settings and devices that there are not, and the mode that only the package itk's metric has."""
    with pytest.raises(ConfigError, match="modls"):
        make_target("[[modls]]\nmodel = 'mind'", "cpu")
    with pytest.raises(ConfigError, match="static"):
        make_target("mode = 'jacobian'\n[[models]]\nmodel = 'mind'", "cpu")
    with pytest.raises(DeviceError, match="tpu"):
        make_target("[[models]]\nmodel = 'mind'", "tpu")
