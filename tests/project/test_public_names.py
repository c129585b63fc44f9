"""Promises of ``import semreg``: its names are there, documented, and cost nothing until they are used."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from types import ModuleType

import pytest

import semreg
from semreg.runtime import moved

ROOMS = ("semreg", "semreg.transforms", "semreg.quality", "semreg.report", "semreg.core.consistency", "semreg.nn")
SECTION = re.compile(r"^(Args|Returns|Raises):\n((?: {4}.*\n?|\n)*)", re.MULTILINE)


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
    assert rooms == {"config", "errors", "nn", "quality", "report", "transforms"}
    assert len(semreg.__all__) - len(rooms) <= 32


@pytest.mark.parametrize("old", [*moved.NAMES, *moved.RENAMED])
def test_an_old_name_says_where_it_is(old):
    """A name that was public is no more, says the line that takes its place, and that line works."""
    with pytest.raises(AttributeError, match=rf"semreg\.{old} has moved: from semreg\.\S+ import \w+$") as caught:
        getattr(semreg, old)
    exec(str(caught.value).partition(": ")[2])  # noqa: S102 - the line that it names


def offered(room):
    """What a room offers (its ``__all__``, or else all that it defines), and the public methods of its classes."""
    module = importlib.import_module(room)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == room and name[0] != "_"]
    for name in getattr(module, "__all__", own):
        value = getattr(module, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            yield f"{room}.{name}", value
        if inspect.isclass(value):
            for method, function in inspect.getmembers(value, lambda x: inspect.isfunction(x) or inspect.ismethod(x)):
                if method[0] != "_" and function.__module__.startswith("semreg"):
                    yield f"{room}.{name}.{method}", function


def missing(value):
    """What the sections of a docstring lack, or have too much."""
    sections = dict(SECTION.findall(inspect.getdoc(value) or ""))
    if inspect.isclass(value) and "Args" not in sections:  # its fields may have their docstrings beside them
        return []
    signature = inspect.signature(value)
    names = [name for name in signature.parameters if name != "self"]
    if len(names) < 2 and not sections:  # one sentence says it
        return []
    found = re.findall(r"^ {4}\*{0,2}(\w+): \S", sections.get("Args", ""), flags=re.MULTILINE)
    wrong = [] if found == names else [f"Args: {found} for {names}"]
    if ("Returns" in sections) != (signature.return_annotation not in (None, "None")):
        wrong.append(f"Returns: {signature.return_annotation}")
    if ":" in sections.get("Returns", ""):
        wrong.append("Returns: what is before a colon would be shown as a type")
    return wrong


def test_docstrings_name_all_arguments():
    """Each public function and method of two or more arguments says what each one is, and what it returns."""
    seen = dict(each for room in ROOMS for each in offered(room))
    assert len(seen) > 100
    assert {name: found for name, value in seen.items() if (found := missing(value))} == {}
