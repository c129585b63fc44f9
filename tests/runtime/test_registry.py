"""Promises of the tables: what they name is there, they are read without anything heavy, and unknown names are told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from semreg.core.kernels import BACKENDS
from semreg.core.kernels.contract import Kernels
from semreg.core.kernels.reference.backend import Reference
from semreg.distances import DISTANCES
from semreg.distances.contract import Distance
from semreg.errors import ConfigError
from semreg.features.descriptors import DESCRIPTORS
from semreg.features.descriptors.kind import Kind
from semreg.runtime.registry import Row, Table
from semreg.transforms.formats import FORMATS
from semreg.transforms.formats.contract import Format
from semreg.transforms.points import POINTS
from semreg.transforms.points.contract import PointFormat

TABLES = [
    (DISTANCES, Distance), (DESCRIPTORS, Kind), (FORMATS, Format), (POINTS, PointFormat), (BACKENDS, Reference),
]  # fmt: skip


@pytest.mark.parametrize(("table", "kind"), TABLES, ids=lambda value: getattr(value, "kind", ""))
def test_each_row_is_what_its_table_holds(table, kind):
    """Every name of a table leads to a thing of its kind, and no two names to the same one."""
    assert list(table)
    assert all(isinstance(table[name], kind) for name in table)
    assert len({id(table[name]) for name in table}) == len(table)


def test_a_backend_has_all_functions_of_the_contract():
    """No function of the contract is missing from a backend."""
    functions = {name for name in vars(Kernels) if not name.startswith("_")}
    assert len(functions) == 13
    for backend in BACKENDS.values():
        assert functions <= set(dir(backend))


def test_tables_are_read_without_anything_heavy():
    """The names that settings and the command line offer are listed without torch and SimpleITK."""
    code = (
        "import sys\n"
        "from semreg.distances import DISTANCES\nfrom semreg.features.descriptors import DESCRIPTORS\n"
        "from semreg.transforms.formats import FORMATS\nfrom semreg.transforms.points import POINTS\n"
        "print(*DISTANCES, *DESCRIPTORS, *FORMATS, *POINTS)\n"
        "assert not {'torch', 'SimpleITK', 'scipy'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [*DISTANCES, *DESCRIPTORS, *FORMATS, *POINTS]


def test_unknown_names():
    """A check names the setting, all that is known, what came and the nearest one; a look-up is that of a dict."""
    table: Table[Row, object] = Table("colour", {"red": Row("builtins:int"), "green": Row("builtins:str")})
    assert (table["green"], len(table), "blue" in table, table.get("blue")) == (str, 2, False, None)
    assert table.check("red") == "red"
    with pytest.raises(ConfigError, match=r"^expected a colour to be one of red, green, got 'gren': .*'green'"):
        table.check("gren")
    with pytest.raises(ConfigError, match=r"^expected paint\.colour to be one of red, green, got 'Red'"):
        table.check("Red", "paint.colour")
    with pytest.raises(KeyError):
        table["blue"]
