"""Does the alignment that ``register`` begins with ever make the start worse? On random phantoms and on real pairs.

    python alignment.py [--number 200] [--first 0] [--only KIND ...] [--pairs PAIRS.toml] [--report FILE]

The phantoms are those of ``misplaced.py``: the map that is right is known, the headers are right, near or far off. The
error of a start is the mean distance between where it brings points of the fixed image and where they belong; of a real
pair: of landmarks, or of the centres of labels. Leaves with 1 if a start got worse by more than a voxel.

In 3-D rotations up to 25° are searched, in 2-D all; with ``--full`` 45°, the default, which takes five times as long.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import tools
import torch
from misplaced import KINDS, misplaced
from pairs import tomllib
from pictures import dimension
from undoing import read_points

import report
from semreg import RegistrationConfig, read_image
from semreg.config import AlignConfig
from semreg.preprocess.image_pair import prepare_pair
from semreg.registration.alignment import aligned_start
from semreg.registration.plan.defaults import resolve

SEARCHED_DEG = 25.0
"""Of the phantoms in 3-D, whose headers are turned by no more."""
HALF = 0.5
"""A start whose error is reduced to less than this share counts as mended."""


def main() -> None:
    """Align, and print the tables."""
    given = arguments()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows = []
    for row in measured(given):
        rows.append(row)
        print(f"{row['kind']} {row['name']}: {row['before']:.1f} → {row['after']:.1f} mm, {row['family']}", flush=True)
        if given.rows:
            given.rows.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    text = summary(rows)
    print(text)
    if given.report:
        facts = report.machine(1) | {"semreg": report.versions_line(tools.semreg_versions())}
        title = f"# Starts before and after the alignment\n\n{report.bullets(facts)}\n"
        given.report.write_text(title + text, encoding="utf-8")
    sys.exit(1 if any(verdict(row) == "worse" for row in rows) else 0)


def arguments() -> argparse.Namespace:
    """What the command was given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--number", type=int, default=200, help="of phantoms")
    add("--first", type=int, default=0, help="number of the first phantom of each kind: others than those looked at")
    add("--only", nargs="+", default=list(KINDS), choices=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    add("--full", action="store_true", help="search rotations up to 45° in 3-D, as register does")
    add("--pairs", type=Path, nargs="?", const=tools.SHARED / "data" / "pairs.toml", help="real pairs, too")
    add("--names", nargs="+", default=[], metavar="NAME", help="these of the real pairs alone")
    add("--rows", type=Path, help="write what was measured to this JSON file")
    add("--report", type=Path, help="write the tables to this Markdown file")
    return parser.parse_args()


def measured(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a pair."""
    for number in range(given.first, given.first + given.number // len(KINDS)):
        for kind in given.only:
            pair = misplaced(kind, number)
            n = pair.fixed.grid.dimension
            turn = None if given.full or n == 2 else SEARCHED_DEG
            matrix, said = start(pair.fixed, pair.moving, turn)
            errors = {"before": pair.error(np.eye(n + 1)), "after": pair.error(matrix)}
            voxel = max(pair.fixed.grid.spacing)
            yield {"kind": kind, "name": f"{number} {n}-D {pair.header}", "voxel": voxel, **errors, **said}
    if given.pairs and given.pairs.exists():
        yield from real(given.pairs, given.names)


def start(fixed: Any, moving: Any, rotation_deg: float | None) -> tuple[np.ndarray, dict[str, Any]]:
    """What ``register`` would start from, as a matrix, and what is said of it."""
    config = RegistrationConfig(align=AlignConfig(rotation_deg=rotation_deg))
    pair = prepare_pair(fixed, moving, None, None, config)
    config = resolve(config, pair.grids[0])
    began = time.process_time()
    _, found = aligned_start(pair, None, config, torch.device("cpu"), None)
    seconds = time.process_time() - began
    if found is None:
        return np.eye(pair.grids[0].dimension + 1), {"family": "not looked", "CPU s": seconds}
    said = {"family": found.family, "evidence": found.evidence, "decisions": found.decisions, "CPU s": seconds}
    return found.matrix, said


def real(listed: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The pairs of a list."""
    root = listed.parent
    for pair in tomllib.loads(listed.read_text(encoding="utf-8"))["pair"]:
        if names and pair["name"] not in names:
            continue
        images = [read_image(root / pair[role]) for role in ("fixed", "moving")]
        points, partners = corresponding(pair, root)
        matrix, said = start(*images, None)
        n = points.shape[1]
        after = np.linalg.norm(points @ matrix[:n, :n].T + matrix[:n, n] - partners, axis=1).mean()
        before = np.linalg.norm(points - partners, axis=1).mean()
        voxel = max(images[0].volume.grid.spacing)
        yield {"kind": "real", "name": pair["name"], "voxel": voxel, "before": before, "after": after, **said}


def corresponding(pair: Mapping[str, Any], root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of both images (N, D) in mm; where there are none, the centres of the labels that both have."""
    if "fixed_landmarks" in pair:
        sides = [
            (read_points(*(root / path for path in pair[f"{role}_landmarks"])), sitk.ReadImage(str(root / pair[role])))
            for role in ("fixed", "moving")
        ]
        flat = dimension(root / pair["fixed"]) == 2
        first, second = (p * image.GetSpacing() + image.GetOrigin() if flat else p for p, image in sides)
        return first, second
    centres = []
    for role in ("fixed", "moving"):
        shapes = sitk.LabelShapeStatisticsImageFilter()
        shapes.Execute(sitk.ReadImage(str(root / pair[f"{role}_labels"]), sitk.sitkUInt16))
        centres.append({label: shapes.GetCentroid(label) for label in shapes.GetLabels()})
    both = sorted(centres[0].keys() & centres[1].keys())
    return np.array([centres[0][label] for label in both]), np.array([centres[1][label] for label in both])


def verdict(row: Mapping[str, Any]) -> str:
    """``worse`` or ``better`` by more than a voxel, else ``same``."""
    change = (row["after"] - row["before"]) / row["voxel"]
    return "worse" if change > 1 else "better" if change < -1 else "same"


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """The tables: each kind, and each real pair."""
    header = ["kind", "pairs", "worse", "better", "headers stand", "off by > 2 voxels", "of these mended", "CPU s each"]
    phantoms = [row for row in rows if row["kind"] != "real"]
    groups = {kind: [row for row in phantoms if row["kind"] == kind] for kind in KINDS} | {"all": phantoms}
    cells = []
    for name, group in groups.items():
        if not group:
            continue
        off = [row for row in group if row["before"] > 2 * row["voxel"]]
        counts = [len(group), *(sum(verdict(row) == word for row in group) for word in ("worse", "better"))]
        counts += [sum(row["family"] == "none" for row in group), len(off)]
        counts += [sum(row["after"] < HALF * row["before"] for row in off)]
        cells.append([name, *map(str, counts), report.number(np.mean([row["CPU s"] for row in group]), 1)])
    text = report.markdown_table(header, cells) if cells else ""
    real_cells = [
        [row["name"], report.number(row["before"], 2), report.number(row["after"], 2), row["family"], verdict(row)]
        for row in rows
        if row["kind"] == "real"
    ]
    if real_cells:
        text += "\n" + report.markdown_table(["pair", "mm before", "mm after", "applied", "start"], real_cells)
    return text


if __name__ == "__main__":
    main()
