# ruff: noqa: INP001 - a script, no package
"""Draws docs/architecture_imports.svg: which part of semreg imports which, layer by layer, read from the source.

    python docs/architecture_imports.py

The layers are the table of tests/project/test_architecture.py; a test there fails where the drawing is not current. A
line that longer ways say too is left out, so what is left is what a part rests on.
"""

from __future__ import annotations

import ast
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "semreg"
DRAWING = Path(__file__).with_suffix(".svg")

WIDTH, ROW, BOX, GAP, LETTER, EDGE = 1360, 74, 30, 78, 8.2, 46
SWEEPS = 12
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1b2733}"
    ".layer{fill:#6b7a89;font-size:12px}"
    ".box{fill:#eef3f8;stroke:#4a6b8a}"
    ".way{fill:none;stroke:#8aa2b8;stroke-width:1}"
)


def layers() -> list[tuple[str, ...]]:
    """The parts from the bottom to the top, from the table of the test."""
    tree = ast.parse((ROOT / "tests" / "project" / "test_architecture.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "LAYERS" and node.value is not None:
            return list(ast.literal_eval(node.value))
    raise LookupError("expected LAYERS in tests/project/test_architecture.py, found none: say where the table is now")


def imports(parts: set[str]) -> dict[str, set[str]]:
    """Part → the parts that any of its files imports, at the top or within a function."""
    found: dict[str, set[str]] = {part: set() for part in parts}
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own not in parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("semreg"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            others = {name.split(".")[1] for name in names if name.startswith("semreg.")}
            found[own] |= (others & parts) - {own}
    return found


def without_detours(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that no longer way says too."""
    reach: dict[str, set[str]] = {}

    def below(part: str, path: frozenset[str]) -> set[str]:
        if part not in reach:
            open_ways = graph[part] - path
            reach[part] = open_ways.union(*(below(other, path | {part}) for other in open_ways))
        return reach[part]

    for part in graph:
        below(part, frozenset({part}))
    return {
        part: {other for other in others if not any(other in reach[way] for way in others - {other})}
        for part, others in graph.items()
    }


def places(rows: list[tuple[str, ...]]) -> dict[str, tuple[float, float, float]]:
    """Part → left edge, top edge and width of its box; the first layer is the lowest row."""
    found = {}
    for number, names in enumerate(rows):
        widths = [LETTER * len(name) + 20 for name in names]
        gap = min(GAP, (WIDTH - 2 * EDGE - sum(widths)) / (len(names) + 1))
        left = EDGE + (WIDTH - 2 * EDGE - sum(widths) - gap * (len(names) - 1)) / 2
        for name, width in zip(names, widths, strict=True):
            found[name] = (left, EDGE / 2 + (len(rows) - 1 - number) * ROW, width)
            left += width + gap
    return found


def sorted_by_neighbours(
    rows: list[tuple[str, ...]], arrows: dict[str, set[str]], boxes: dict[str, tuple[float, float, float]]
) -> list[tuple[str, ...]]:
    """The rows with each part near what it is connected with, which leaves fewer crossings."""
    ways = [(a, b) for a, others in arrows.items() for b in others]
    near = {part: {b for a, b in ways if a == part} | {a for a, b in ways if b == part} for part in boxes}
    middle = {part: left + width / 2 for part, (left, _, width) in boxes.items()}

    def wish(part: str) -> tuple[float, str]:
        return sum(middle[other] for other in near[part]) / max(1, len(near[part])), part

    return [tuple(sorted(names, key=wish)) for names in rows]


def way(upper: tuple[float, float, float], lower: tuple[float, float, float]) -> str:
    """A line from one box down to another, or an arc between boxes of one row."""
    x, y = upper[0] + upper[2] / 2, upper[1] + BOX
    u, v = lower[0] + lower[2] / 2, lower[1]
    if upper[1] == lower[1]:
        return f"M{x:.0f},{y:.0f} C{x:.0f},{y + 22:.0f} {u:.0f},{y + 22:.0f} {u:.0f},{y:.0f}"
    middle = (y + v) / 2
    return f"M{x:.0f},{y:.0f} C{x:.0f},{middle:.0f} {u:.0f},{middle:.0f} {u:.0f},{v:.0f}"


def drawing() -> str:
    """The drawing as SVG."""
    rows = layers()
    parts = {name for names in rows for name in names}
    arrows = without_detours(imports(parts))
    boxes = places(rows)
    for _ in range(SWEEPS):
        rows = sorted_by_neighbours(rows, arrows, boxes)
        boxes = places(rows)
    height = EDGE + len(rows) * ROW - ROW + BOX
    pairs = [(a, b) for a, b in product(sorted(parts), repeat=2) if b in arrows[a]]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>What each part of semreg imports: lines lead down to what a part rests on</title>",
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" rx="8" fill="#ffffff"/>',
        *(f'<path class="way" d="{way(boxes[a], boxes[b])}"><title>{a} imports {b}</title></path>' for a, b in pairs),
    ]
    for number, names in enumerate(rows):
        for name in names:
            left, top, width = boxes[name]
            lines += [
                f'<rect class="box" x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{BOX}" rx="5"/>',
                f'<text x="{left + width / 2:.0f}" y="{top + 20:.0f}" text-anchor="middle">{name}</text>',
            ]
        lines.append(f'<text class="layer" x="6" y="{boxes[names[0]][1] + 20:.0f}">{number + 1}</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    DRAWING.write_text(drawing(), encoding="utf-8")
