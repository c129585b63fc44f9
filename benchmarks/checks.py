"""Shows what the verdict says of good and of deliberately bad results, on phantoms and on real pairs.

    python checks.py [PAIRS.toml] [RESULTS] [--report FILE]

Good: what ``semreg.register`` finds with the defaults. Bad: the same results spoiled in ways of known harm, results
of mirrored images, and results of images that do not belong together. Transforms and records are kept in RESULTS and
used again.
Leaves with 1 if a good result fails, or a way to spoil results is not noticed in most of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tools
import torch
from pairs import tomllib

from report import bullets, machine, markdown_table, versions_line
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.core.sampling import base_index, smooth, transform_index
from semreg.io.bridge import field_of_transform
from semreg.io.files import read_image, write_transform
from semreg.io.records import record_of, stable_json
from semreg.phantom import make_pair
from semreg.quality import Evidence, Verdict, collect_evidence, judge
from semreg.registration.pipeline import register
from semreg.registration.result import Record
from semreg.transforms import read_transform

SEEDS = (21, 22, 23, 24, 25)
"""Of the phantoms; the thresholds were set while looking at 11 to 14."""
SIZES = {3: 64, 2: 128}
WRONG = (
    ("hippocampus_006_007", "liver_18_cyc_1_10"), ("liver_18_cyc_1_10", "hippocampus_006_007"),
    ("spine_t2_t1", "liver_18_cyc_1_10"), ("liver_18_cyc_1_10", "oasis"), ("hippocampus_006_007", "spine_t2_t1"),
)  # fmt: skip
"""Pairs whose fixed image is registered with the moving one of another, of another body part."""
MIRRORED = ("hippocampus_006_007", "liver_18_cyc_1_10", "spine_t2_t1")
"""Pairs that are registered with the moving image mirrored in its file."""
GATES = ("match", "gain", "residual", "mismatch", "unfinished", "elsewhere", "mirror", "bending", "uncertainty")
"""Values in the table of the good results."""
Bad = Callable[["Case"], "tuple[Volume, Field]"]


@dataclass(frozen=True)
class Case:
    """Two images and a transform between them."""

    name: str
    fixed: Volume
    moving: Volume
    field: Field
    record: Record | None = None
    """What ``register`` says of it."""


def moved_by(case: Case, matrix: np.ndarray, shift_mm: float = 0.0) -> tuple[Volume, Field]:
    """The result after a wrong linear map (D, D) about the centre of the fixed image, and a shift along x."""
    grid = case.fixed.grid
    n = grid.dimension
    centre = grid.corners_xyz().mean(0)
    points = transform_index(grid.index_to_point(), base_index(grid.shape, like=torch.zeros(1, dtype=torch.float64)))
    column = torch.as_tensor(centre).reshape(-1, *[1] * n)
    wrong = torch.einsum("ij,j...->i...", torch.as_tensor(matrix), points - column) + column - points
    wrong[0] += shift_mm
    return case.moving, Field.from_mm(wrong.float(), grid).then(case.field)


def turn(dimension: int, degrees: float) -> np.ndarray:
    """A rotation in the plane of x and y."""
    angle = np.radians(degrees)
    matrix = np.eye(dimension)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def identity(case: Case) -> tuple[Volume, Field]:
    """Nothing was done."""
    return case.moving, Field.zeros(case.fixed.grid)


def wrong_way(case: Case) -> tuple[Volume, Field]:
    """The inverse in place of the transform."""
    return case.moving, case.field.inverse(case.moving.grid).on(case.fixed.grid)


def partly(case: Case) -> tuple[Volume, Field]:
    """Three tenths of the way."""
    return case.moving, Field(0.3 * case.field.vox, case.fixed.grid)


def mirrored(axis: int) -> Bad:
    """The moving image mirrored in its file, the transform that of the image as it should be."""
    return lambda case: (Volume(case.moving.data.flip(axis + 1), case.moving.grid), case.field)


def folded(case: Case) -> tuple[Volume, Field]:
    """Short waves that fold: as a registration without regularity leaves them."""
    generator = torch.Generator().manual_seed(0)
    waves = smooth(torch.randn(case.field.vox.shape, generator=generator), radius=1)
    return case.moving, Field(case.field.vox + 2 * waves / waves.std(), case.fixed.grid)


def wavy(case: Case) -> tuple[Volume, Field]:
    """Long waves of a tenth of the shortest extent."""
    grid = case.fixed.grid
    generator = torch.Generator().manual_seed(1)
    coarse = Volume(torch.randn((grid.dimension, *[6] * grid.dimension), generator=generator), _box(grid, 6))
    waves = coarse.on(grid).data
    return case.moving, Field.from_mm(case.field.mm() + 0.1 * min(_thick(grid)) * waves / waves.std(), grid)


def torn(case: Case) -> tuple[Volume, Field]:
    """One half shifted by a tenth of the image along the cut."""
    vox = case.field.vox.clone()
    vox[0, :, : vox.shape[2] // 2] += 0.1 * vox.shape[1]
    return case.moving, Field(vox, case.fixed.grid)


def lost(case: Case) -> tuple[Volume, Field]:
    """A shift by twice the image."""
    return moved_by(case, np.eye(case.fixed.grid.dimension), 2 * max(case.fixed.grid.extent_mm))


def broken(case: Case) -> tuple[Volume, Field]:
    """Some vectors are NaN."""
    vox = case.field.vox.clone()
    vox[:, vox.shape[1] // 2] = torch.nan
    return case.moving, Field(vox, case.fixed.grid)


def _thick(grid: Grid) -> list[float]:
    return [extent for extent, count in zip(grid.extent_mm, grid.shape, strict=True) if count > 1]


def _box(grid: Grid, count: int) -> Grid:
    """``count`` samples an axis over the box of a grid."""
    step = [n / count for n in grid.shape]
    return grid.lattice([(s - 1) / 2 for s in step], step, [count] * grid.dimension)


def bad_ways(dimension: int) -> dict[str, Bad]:
    """What spoils a result, by name."""
    flat = np.diag([-1.0] + [1.0] * (dimension - 1))
    return {
        "identity": identity,
        "inverse in its place": wrong_way,
        "30 % of the way": partly,
        "shifted by 20 mm": lambda case: moved_by(
            case, np.eye(dimension), min(20.0, 0.2 * max(_thick(case.fixed.grid)))
        ),
        "turned by 15°": lambda case: moved_by(case, turn(dimension, 15)),
        "turned by 90°": lambda case: moved_by(case, turn(dimension, 90)),
        "turned by 180°": lambda case: moved_by(case, turn(dimension, 180)),
        "scaled by 1.2": lambda case: moved_by(case, 1.2 * np.eye(dimension)),
        **{f"mirrored image, axis {'zyx'[-dimension:][axis]}": mirrored(axis) for axis in range(dimension)},
        "mirrored transform": lambda case: moved_by(case, flat),
        "folded": folded,
        "long waves": wavy,
        "torn": torn,
        "overlap lost": lost,
        "NaN": broken,
    }


def phantom_cases(results: Path) -> Iterator[Case]:
    """Registered phantoms, CT and MR, in 3-D and 2-D."""
    for dimension, size in SIZES.items():
        for seed in SEEDS:
            pair = make_pair(size=size, seed=seed, dimension=dimension)
            yield registered(f"phantom {dimension}-D, seed {seed}", pair.fixed, pair.moving, results)


def registered(name: str, fixed: Volume, moving: Volume, results: Path) -> Case:
    """The pair with the transform that was found before, or is found now."""
    path = results / name.replace(" ", "-").replace(",", "") / "transform.h5"
    beside = path.with_name("record.json")
    if not beside.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        result = register(fixed, moving)
        write_transform(result.field, path)
        beside.write_text(stable_json(result.record), encoding="utf-8")
    record = record_of(Record, json.loads(beside.read_text(encoding="utf-8")), beside)
    return Case(name, fixed, moving, field_of_transform(read_transform(path), fixed.grid), record)


def real_pairs(path: Path) -> dict[str, tuple[Volume, Volume]]:
    """The images of all pairs."""
    listed = tomllib.loads(path.read_text(encoding="utf-8"))["pair"]
    root = path.parent
    return {p["name"]: (read_image(root / p["fixed"]).volume, read_image(root / p["moving"]).volume) for p in listed}


def wrong_cases(images: dict[str, tuple[Volume, Volume]], results: Path) -> Iterator[Case]:
    """Images that do not belong together, and mirrored ones, registered all the same."""
    for fixed, moving in WRONG:
        yield registered(f"{fixed} with {moving}", images[fixed][0], images[moving][1], results)
    for name in MIRRORED:
        near, far = images[name]
        for axis in range(3):
            flipped = Volume(far.data.flip(axis + 1), far.grid)
            yield registered(f"{name} mirrored {'zyx'[axis]}", near, flipped, results)


def judged(case: Case) -> tuple[Evidence, Verdict, float]:
    """The verdict with what the record tells, as the command has it, and its CPU seconds."""
    started = time.process_time()
    evidence = collect_evidence(case.fixed, case.moving, case.field)
    return evidence, judge(evidence, record=case.record), time.process_time() - started


def row_of(case: Case) -> tuple[str, list[str]]:
    """The level and the cells of one result."""
    evidence, verdict, seconds = judged(case)
    values = {check.name: check for check in verdict.checks}
    cells = ["-" if (v := values[name].value) is None else f"{v:.1f}" for name in GATES]
    stopped = ", ".join(check.name for check in verdict.checks if check.level in ("REVIEW", "FAIL"))
    return verdict.level, [case.name, verdict.level, *cells, f"{evidence.voxel_mm:.1f}", f"{seconds:.1f}", stopped]


def spoiled(cases: list[Case]) -> Iterator[tuple[str, str, Verdict]]:
    """The way, the case and the verdict of every good result after each way to spoil it."""
    for case in cases:
        for way, spoil in bad_ways(case.fixed.grid.dimension).items():
            moving, field = spoil(case)
            yield way, case.name, judge(collect_evidence(case.fixed, moving, field))


def tables(pairs: Path, results: Path) -> tuple[str, bool]:
    """All tables as Markdown, and whether the bars hold."""
    cases = list(phantom_cases(results))
    wrong: list[Case] = []
    if pairs.exists():
        images = real_pairs(pairs)
        cases += [registered(name, fixed, moving, results) for name, (fixed, moving) in images.items()]
        wrong = list(wrong_cases(images, results))
    header = ["result", "verdict", *GATES, "voxel mm", "CPU s", "not passed"]
    good = [row_of(case) for case in cases]
    bad = [row_of(case) for case in wrong]
    passed = sum(level == "PASS" for level, _ in good)
    noticed = sum(level != "PASS" for level, _ in bad)
    ways, holds = ways_table(cases)
    text = [
        "# The verdict on good and on deliberately bad results\n",
        bullets({**machine(1), "semreg": versions_line(tools.semreg_versions())}),
        f"## Good results: {passed} of {len(good)} pass\n",
        "Registered with the defaults. Values in the units of the checks: `docs/verdict.md`.\n",
        markdown_table(header, [cells for _, cells in good]),
        f"## Wrong and mirrored images, registered all the same: {noticed} of {len(bad)} noticed\n",
        markdown_table(header, [cells for _, cells in bad]) if bad else "No real pairs are there.\n",
        "## The good results spoiled\n",
        ways,
    ]
    return "\n".join(text), holds and all(level != "FAIL" for level, _ in good) and noticed == len(bad)


def ways_table(cases: list[Case]) -> tuple[str, bool]:
    """For each way to spoil a result how many fail, how many are to be looked at, and which pass all the same."""
    found: dict[str, list[tuple[str, str]]] = {}
    for way, name, verdict in spoiled(cases):
        found.setdefault(way, []).append((name, verdict.level))
    rows, holds = [], True
    for way, levels in found.items():
        missed = [name for name, level in levels if level == "PASS"]
        holds &= len(missed) <= len(levels) // 2
        counts = [str(sum(level == wanted for _, level in levels)) for wanted in ("FAIL", "REVIEW", "PASS")]
        rows.append([way, *counts, ", ".join(missed)])
    return markdown_table(["spoiled by", "FAIL", "REVIEW", "PASS", "not noticed"], rows), holds


def main() -> None:
    """Judge all, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, nargs="?", default=tools.SHARED / "data" / "pairs.toml")
    parser.add_argument("results", type=Path, nargs="?", default=tools.OUT / "checks")
    parser.add_argument("--report", type=Path, help="write the tables to this Markdown file too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    text, good = tables(given.pairs, given.results)
    print(text)
    if given.report:
        given.report.write_text(text, encoding="utf-8")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
