"""Promises of the extension for 3D Slicer, as far as they can be kept without it; docs/slicer.md says what is left."""

from __future__ import annotations

import ast
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import typer

from semreg.cli import app
from semreg.cli.execution_model import execution_model

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "packaging" / "slicer"
SCRIPT, XML = PLACE / "SemRegCLI" / "SemRegCLI.py", PLACE / "SemRegCLI" / "SemRegCLI.xml"
MODULE, LIBRARY = PLACE / "SemReg" / "SemReg.py", PLACE / "SemReg" / "SemRegLib"
KNOW_SLICER = {"forms", "logic", "scene"}
"""Parts of the library that cannot run here."""
FLIP = np.array([-1.0, -1.0, 1.0])
"""RAS ⇄ LPS."""
COMMAND = typer.main.get_command(app).commands["slicer"]


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
