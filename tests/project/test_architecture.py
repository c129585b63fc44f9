"""The order of the house: what may import what, and what may happen where. Read from the source with ``ast``."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "semreg"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("runtime",),
    ("core",),
    ("distances",),
    ("config",),
    ("io", "presets"),
    ("preprocess",),
    ("features",),
    ("transforms",),
    ("registration",),
    ("itk", "nn", "quality"),
    ("report",),
    ("batch", "phantom"),
    ("cli",),
)
"""The rooms, from the bottom to the top; a module imports from its own room and from those of the floors before it."""

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


@cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of the syntax tree of a file."""
    return tuple(ast.walk(parse(path)))


def dotted(path: Path) -> str:
    """The module's name, ``semreg.registration.dense.coarse``."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, path: Path) -> Iterator[tuple[str, int]]:
    """The full names of all modules (or members) that are imported anywhere in ``tree``, and their lines."""
    package = dotted(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *(node.module or "").split(".")]).strip(".")
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and name_of(node.func) in ("import_module", "__import__"):
            yield from ((str(arg.value), node.lineno) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def name_of(node: ast.expr) -> str:
    """The last part of a called name: ``F.grid_sample`` is ``grid_sample``."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def unit(module: str) -> str:
    """The part of the package that a module belongs to: ``semreg.registration.dense.coarse`` belongs to ``dense``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def upward_imports(module: str, tree: ast.AST, path: Path) -> list[str]:
    """The imports of ``tree`` that point up or to a room of the same floor, or from ``dense`` to ``features``."""
    own, dense = unit(module), module.startswith("semreg.registration.dense")
    found = []
    for name, line in imports(tree, path):
        other = unit(name) if name.split(".")[0] == "semreg" else ""
        if own not in RANK or other not in RANK or own == other:
            continue
        if RANK[other] >= RANK[own] or (dense and other == "features"):
            found.append(f"{path.name}:{line} imports {name}")
    return found


def at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that run (or could run) when the module is imported; not functions, not TYPE_CHECKING blocks."""
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        yield node
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                todo.append(child)
            elif isinstance(child, ast.ExceptHandler | ast.match_case):
                todo += child.body


def relative(path: Path) -> str:
    """The path below the package."""
    return path.relative_to(PACKAGE).as_posix()


def calls(names: tuple[str, ...]) -> dict[str, list[int]]:
    """Files that use one of ``names`` (called, or only taken as a function), and the lines."""
    found: dict[str, list[int]] = {}
    for path in FILES:
        for node in nodes(path):
            named = isinstance(node, ast.Attribute | ast.Name) and name_of(node) in names
            taken = isinstance(node, ast.ImportFrom) and any(alias.name in names for alias in node.names)
            if named or taken:
                found.setdefault(relative(path), []).append(node.lineno)
    return found


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_down(path: Path) -> None:
    """A module knows only what is below it; ``dense`` does not know where its features come from."""
    assert upward_imports(dotted(path), parse(path), path) == []


def test_no_modules_import_each_other() -> None:
    """No module leads back to itself by its imports, within a room either; what only types need is no import."""
    known = {dotted(path): path for path in FILES}
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        graph[module] = set()
        for name, _ in imports(parse(path), path):
            target = name if name in known else name.rpartition(".")[0]
            inside = module == target or module.startswith(f"{target}.")  # a package loads what is in it
            if target in known and not inside and path.name != "__init__.py":
                graph[module].add(target)
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way[way.index(module) :], module))
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_root_shows_the_rooms() -> None:
    """A newcomer sees the whole house at once: at most 20 modules and rooms at the root."""
    entries = {path.relative_to(PACKAGE).parts[0] for path in FILES}
    assert len(entries) <= 20, sorted(entries)


def test_every_module_has_its_place() -> None:
    """No module escapes the order: each file of the package belongs to a layer, and each layer names what exists."""
    units = {unit(dotted(path)) for path in FILES} - {"", "__main__"}
    assert units == set(RANK)


def test_the_reader_of_imports_sees() -> None:
    """The test above would notice each way to write an upward import, and only those."""
    path = PACKAGE / "registration" / "dense" / "coarse.py"

    def found(code: str) -> bool:
        return bool(upward_imports("semreg.registration.dense.coarse", ast.parse(code), path))

    assert found("import semreg.features.extract")
    assert found("from semreg.quality.verdict import judge")
    assert found("from semreg import report")
    assert found("from ... import cli")
    assert found("from ...features import contract")
    assert found("def f():\n    from ...features.contract import Layer")
    assert found("import importlib\nimportlib.import_module('semreg.cli')")
    assert not found("from . import refine\nfrom ...core.fields import Field\nimport torch\nimport features")
    assert not found("from semreg.registration.dense.refine import refine")


def test_one_place_reads_between_samples() -> None:
    """``grid_sample`` and the pooling of torch, with their conventions, occur in core/sampling.py only."""
    names = ("grid_sample", "avg_pool1d", "avg_pool2d", "avg_pool3d", "AvgPool2d", "AvgPool3d", "affine_grid")
    assert set(calls(names)) <= {"core/sampling.py"}
    assert calls(("grid_sample",))  # the test sees what it looks for


def test_one_door_to_itk() -> None:
    """ITK and SimpleITK are imported in the modules that are doors only, and itk never when a module is imported."""
    doors = (
        "io/bridge/simpleitk.py", "io/bridge/itk.py", "itk/tensor.py", "io/files.py", "io/images.py", "io/dicom.py",
        "io/transform_files/building.py",
        "transforms/chain.py", "transforms/images.py", "transforms/labels.py", "transforms/formats/elastix.py",
    )  # fmt: skip
    for path in FILES:
        tree = parse(path)
        foreign = [(n, line) for n, line in imports(tree, path) if n.split(".")[0] in ("itk", "SimpleITK")]
        assert not foreign or relative(path) in doors, f"{relative(path)}: {foreign}"
        for statement in at_import(tree):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                names = [n.split(".")[0] for n, _ in imports(statement, path)]
                assert "itk" not in names, f"{relative(path)}:{statement.lineno} imports itk at import"


def test_the_library_does_not_print() -> None:
    """Only the command line and the demo talk to the terminal; the library logs."""
    printing = {
        relative(path)
        for path in FILES
        for node in nodes(path)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert {p for p in printing if not p.startswith(("cli/", "phantom/demo"))} == set()


def test_no_hidden_inputs() -> None:
    """Nothing in the package reads the environment or sets global filters of warnings.

    What the command line tells OpenMP goes through the environment; there is no other way.
    """
    assert set(calls(("environ", "environb", "getenv", "putenv"))) == {"runtime/threads.py"}
    assert set(calls(("sleep_when_idle",))) == {"cli/__init__.py"}
    assert calls(("filterwarnings", "simplefilter")) == {}


def test_no_hidden_state() -> None:
    """No random numbers but from a generator that is passed on, and only the command line sets the C library."""
    doors = {"runtime/memory.py", "cli/infer.py", "cli/models.py", "cli/register.py"}
    assert set(calls(("return_freed_memory",))) <= doors
    assert set(calls(("mallopt",))) == {"runtime/memory.py"}
    assert calls(("initial_seed", "seed_all", "manual_seed_all", "set_rng_state", "fork_rng", "RandomState")) == {}
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, ast.Attribute) and node.attr in ("manual_seed", "seed"):
                of = ast.unparse(node.value)
                hidden = of in ("torch", "random", "np.random", "numpy.random", "torch.cuda", "torch.random")
                assert not hidden, f"{relative(path)}:{node.lineno} seeds what all share: {of}.{node.attr}"


def test_no_catching_of_everything() -> None:
    """No ``except Exception`` and no bare except: an error that nobody expected is seen."""
    allowed = {
        ("itk/target.py", "BaseException"),  # an exception of any kind has to cross C++ as a text
        ("cli/way_out.py", "Exception"),  # what nobody foresaw, in one sentence and a file with the trace
    }
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler):
                caught = "everything" if node.type is None else ast.unparse(node.type)
                bad = ("everything", "Exception", "BaseException")
                if (relative(path), caught) in allowed:
                    continue
                assert caught not in bad, f"{relative(path)}:{node.lineno} catches {caught}"


@pytest.mark.parametrize("module", ["semreg", "semreg.errors", "semreg.core.geometry", "semreg.batch"])
def test_heavy_imports_are_paid_by_who_needs_them(module: str) -> None:
    """``import semreg`` and the process that starts those of a batch load neither torch nor SimpleITK nor itk."""
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import {module}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert module in loaded
    assert not loaded & {"torch", "SimpleITK", "itk", "matplotlib", "scipy"}


def test_the_drawing_of_the_imports_is_current() -> None:
    """docs/architecture_imports.svg shows the imports of today: run its script after a change."""
    path = ROOT / "docs" / "architecture_imports.py"
    spec = importlib.util.spec_from_file_location("architecture_imports", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.layers() == list(LAYERS)
    assert script.DRAWING.read_text(encoding="utf-8") == script.drawing(), f"run python {path.relative_to(ROOT)}"


def test_conventions_name_tests_that_exist() -> None:
    """Every test that docs/conventions.md names is a test of this suite."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")))
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert named <= set(re.findall(r"^def (test_\w+)", tests, flags=re.MULTILINE))
