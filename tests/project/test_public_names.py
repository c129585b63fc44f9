"""Promises of ``import semreg``: its names are there, documented, and cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import semreg
from semreg.runtime import moved

OLD_MODULES = (Path(__file__).parent / "old_modules.txt").read_text(encoding="utf-8").split()
"""The modules that were there before each had its room."""


@pytest.mark.parametrize("name", semreg.__all__)
def test_public_names_can_be_imported(name):
    """Every name in ``__all__`` exists and says what it is for."""
    value = getattr(semreg, name)
    assert name == "__version__" or value.__doc__


def test_public_names_are_all_there_is():
    """``dir`` shows the public names and nothing else; an unknown one is an AttributeError."""
    assert dir(semreg) == sorted(semreg.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        semreg.nothing  # noqa: B018


def test_import_is_free():
    """``import semreg`` loads neither numpy nor torch nor SimpleITK."""
    code = (
        "import semreg, sys; sys.exit(bool({'numpy', 'torch', 'SimpleITK', 'itk', 'rich', 'typer'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_names_fit_on_a_page():
    """What ``semreg`` itself offers is little enough to be read: what else there is is reached through its room."""
    rooms = {name for name in semreg.__all__ if isinstance(getattr(semreg, name), ModuleType)}
    assert rooms == {"config", "errors", "quality", "report", "transforms"}
    assert len(semreg.__all__) - len(rooms) <= 32


@pytest.mark.parametrize("old", moved.NAMES)
def test_an_old_name_says_where_it_is(old):
    """A name that was public is no more, says the line that takes its place, and that line works."""
    package, _, name = f"semreg.{old}".rpartition(".")
    with pytest.raises((AttributeError, ImportError), match=rf"has moved: from semreg\.\S+ import {name}$") as caught:
        exec(f"from {package} import {name}")  # noqa: S102 - as a user writes it
    exec(str(caught.value).partition(": ")[2])  # noqa: S102 - the line that it names
    if package == "semreg":
        with pytest.raises(AttributeError, match=rf"semreg\.{name} has moved: from semreg\."):
            getattr(semreg, name)


@pytest.mark.parametrize("old", OLD_MODULES)
def test_an_old_module_says_where_it_is(old):
    """An import of a module that has moved says where to, and there is one."""
    with pytest.raises(ModuleNotFoundError, match=r"semreg\.\S+ has moved: import semreg\.\S+$"):
        import_module(f"semreg.{old}")
    assert find_spec(f"semreg.{moved.new_module(old)}") is not None


def test_each_line_of_the_table_is_of_use():
    """No line sends to where the line of its package sends anyhow, and each module was there before."""
    assert set(moved.MODULES) <= set(OLD_MODULES)
    for old, new in moved.MODULES.items():
        package, _, last = old.rpartition(".")
        assert not package or f"{moved.new_module(package)}.{last}" != new


def test_what_has_never_been_is_answered_as_python_does():
    """A name that nobody knows gets Python's own sentence."""
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'semreg\.nothing'$"):
        import_module("semreg.nothing")
