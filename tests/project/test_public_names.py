"""Promises of ``import semreg``: its names are there, documented, and cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import semreg


@pytest.mark.parametrize("name", semreg.__all__)
def test_public_names_can_be_imported(name):
    """Every name in ``__all__`` exists and says what it is for."""
    value = getattr(semreg, name)
    assert name == "__version__" or value.__doc__


def test_public_names_are_all_there_is():
    """``dir`` shows the public names and nothing else; an unknown one is an AttributeError."""
    assert dir(semreg) == sorted(semreg.__all__)
    assert sorted(semreg._HOMES) == list(semreg._HOMES)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        semreg.nothing  # noqa: B018


def test_import_is_free():
    """``import semreg`` loads neither numpy nor torch nor SimpleITK."""
    code = (
        "import semreg, sys; sys.exit(bool({'numpy', 'torch', 'SimpleITK', 'itk', 'rich', 'typer'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
