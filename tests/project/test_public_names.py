"""Promises of ``import semreg``: its names are there, documented, and cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import semreg
from semreg.runtime import moved


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


@pytest.mark.parametrize("old", [*moved.NAMES, *moved.RENAMED])
def test_an_old_name_says_where_it_is(old):
    """A name that was public is no more, says the line that takes its place, and that line works."""
    with pytest.raises(AttributeError, match=rf"semreg\.{old} has moved: from semreg\.\S+ import \w+$") as caught:
        getattr(semreg, old)
    exec(str(caught.value).partition(": ")[2])  # noqa: S102 - the line that it names
