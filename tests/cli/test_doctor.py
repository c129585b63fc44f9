"""Promises of ``semreg doctor``: it says what is there, what is broken and what to do, and survives what is broken."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import semreg
from conftest import PATIENCE_SECONDS
from semreg.cli.environment import PACKAGES, BridgeFacts, Package, examine_bridge, examine_package, installed, probe

ROOT = Path(__file__).parents[2]
CHATTY = "import atexit\nprint('hello')\natexit.register(print, 'bye\\nbye')\n"
GOOD_BRIDGE = "SUPPORTED = '5.4'\ndef check(): pass\n"


def install(folder, name, number, code=None, module=None):
    """What an installed package leaves behind: its metadata and, with ``code``, a module."""
    info = folder / f"{name.replace('-', '_')}-{number}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n", encoding="utf-8")
    if code is not None:
        (folder / f"{module or name}.py").write_text(code, encoding="utf-8")


def before(folder):
    """A PYTHONPATH that starts with ``folder``."""
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


def doctor(folder, *arguments):
    """Run the command in its own process, with the packages in ``folder`` before those that are installed."""
    code = (
        "import sys\nfrom semreg.cli import main\n"
        f"try:\n    main(['doctor', *{list(arguments)!r}])\n"
        "finally:\n    assert not {'torch', 'itk', 'SimpleITK', 'numpy', 'semreg_itkv4'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": before(folder), "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, cwd=folder
    )


@pytest.fixture
def first(tmp_path, monkeypatch):
    """A folder whose packages come before those that are installed, here and in processes started from here."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", before(tmp_path))
    return tmp_path


def test_a_healthy_environment(tmp_path):
    """One line a part with what is there and what it is for, exit code 0, and nothing heavy loaded to say so."""
    install(tmp_path, "semreg-itkv4", "0.9.1", GOOD_BRIDGE, "semreg_itkv4")
    models = tmp_path / ".cache" / "semreg" / "models"
    (models / "TS").mkdir(parents=True)
    (models / "TS" / "M730.pt").touch()
    done = doctor(tmp_path, "--wait", str(PATIENCE_SECONDS))
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in done.stdout.splitlines()[1:]}
    assert rows["semreg"] == ["ok", semreg.__version__, "this package"]
    for name in ("torch", "numpy", "scipy", "pydicom", "SimpleITK"):
        assert rows[name][:2] == ["ok", version(name)]
    assert rows["semreg-itkv4"] == ["ok", "0.9.1, for itk 5.4", "metrics inside itk.ImageRegistrationMethodv4"]
    assert rows["models"][:2] == ["ok", f"1 in {models}"]
    assert rows["cpu"][2] == "--device cpu"
    assert int(rows["cores"][1]) >= 1
    assert float(rows["memory"][1].split()[0]) > 0
    assert {state for state, *_ in rows.values()} <= {"ok", "missing"}
    assert all(len(row) == 3 and row[2] for row in rows.values())


def test_a_broken_environment(tmp_path):
    """What is broken is said as JSON and in a sentence each, with what to do; the exit code is 2."""
    install(tmp_path, "itk", "4.13.1")
    install(tmp_path, "semreg-itkv4", "0.1.0", "raise ImportError('expected itk 5.4.x,\\ngot 4.13.1')", "semreg_itkv4")
    (tmp_path / "torch.py").write_text("raise OSError('libtorch.so: no such file')", encoding="utf-8")
    done = doctor(tmp_path, "--json", "--wait", str(PATIENCE_SECONDS))
    assert done.returncode == 2
    report = json.loads(done.stdout)
    assert report["healthy"] is False
    found = {finding["name"]: finding for finding in report["findings"]}
    assert {name for name, finding in found.items() if finding["state"] == "broken"} == {
        "torch", "itk", "semreg-itkv4", "models",
    }  # fmt: skip
    assert found["itk"]["advice"] == "expected 5.4.3 or later, below 5.5, got 4.13.1: pip install 'itk>=5.4.3,<5.5'"
    assert "OSError: libtorch.so: no such file" in found["torch"]["advice"]
    assert found["semreg-itkv4"]["advice"] == "expected itk 5.4.x, got 4.13.1"
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert (
        "broken: itk, for images of the itk package, and ITK's own registration: expected 5.4.3 or later" in done.stderr
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ImportError('expected itk beside it')", "expected itk beside it"),
        ("SUPPORTED = '5.4'\ndef check(): raise ImportError('built for another itk')", "built for another itk"),
        ("import os; os.abort()", "ended by signal 6"),
        ("1 / 0", "got ZeroDivisionError: division by zero"),
        (
            "raise OSError('no library\\n  in: /lib\\n\\nlook there')",
            "got OSError: no library in: /lib look there:",
        ),
        ("import os; os._exit(0)", "expected it to load and answer, it ended without an answer"),
        ("print('semreg-facts:{', flush=True); import os; os._exit(0)", "it ended without an answer"),
    ],
    ids=["refuses", "check refuses", "crashes", "fails", "fails in lines", "leaves", "is cut short"],
)
def test_a_binary_part_that_does_not_load(first, code, words):
    """A binary part that refuses or crashes is broken, and the one who looks is not."""
    install(first, "semreg-itkv4", "0.1.0", code, "semreg_itkv4")
    finding = examine_bridge(PATIENCE_SECONDS)
    assert finding.state == "broken"
    assert words in finding.advice
    assert "\n" not in finding.advice


def test_what_is_slow_is_not_broken(tmp_path):
    """Parts that do not load in the time there is are ended and called slow, all at once; the exit code is 0."""
    install(tmp_path, "semreg-itkv4", "0.1.0", "import signal; signal.pause()", "semreg_itkv4")
    (tmp_path / "torch.py").write_text("import signal; signal.pause()", encoding="utf-8")
    done = doctor(tmp_path, "--wait", "0.5")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in done.stdout.splitlines()}
    assert [rows[name][0] for name in ("torch", "semreg-itkv4", "models")] == ["slow"] * 3
    assert "it has not loaded within 0.5 s: --wait 120 waits longer" in rows["torch"][2]


def test_output_of_what_is_loaded_does_not_matter(first):
    """A part that prints while it loads, and at the end, is read all the same."""
    install(first, "semreg-itkv4", "0.1.0", CHATTY + GOOD_BRIDGE, "semreg_itkv4")
    assert probe(BridgeFacts, 30.0) == BridgeFacts("5.4", "")
    assert examine_bridge(30.0).state == "ok"


def test_what_is_not_installed(monkeypatch, tmp_path):
    """A part that is not there is missing, with the way to get it; one that nothing works without is broken."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert installed("torch") == ""
    assert examine_bridge(1.0).state == "missing"
    findings = {package.name: examine_package(package) for package in PACKAGES}
    assert findings["torch"].state == "broken"
    assert findings["torch"].advice == "pip install 'torch>=2.6,<3'"
    assert findings["nibabel"].state == "missing"
    assert findings["nibabel"].advice == "pip install 'nibabel>=5'"


@pytest.mark.parametrize(
    ("number", "state"),
    [
        ("2.3.9", "broken"),
        ("2.4", "ok"),
        ("2.4.0", "ok"),
        ("2.13.0+cpu", "ok"),
        ("10.0", "broken"),
        ("3.0.0", "broken"),
        ("2.10rc1", "ok"),
    ],
)
def test_versions_are_compared_as_numbers(first, number, state):
    """2.13 is later than 2.4, and a suffix does not matter; the bound above is not accepted itself."""
    install(first, "some-package", number)
    assert examine_package(Package("some-package", "trial", "2.4.0", "3")).state == state


def test_bounds_are_those_of_the_metadata():
    """The versions that the doctor accepts are those that the projects' own metadata ask for."""
    stated = "\n".join(
        (ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "native/pyproject.toml")
    )
    asked = {re.sub(r"\s", "", words) for words in re.findall(r'"([A-Za-z0-9_-]+>=[^";]+)"', stated)}
    assert {package.requirement.strip("'") for package in PACKAGES} <= asked
