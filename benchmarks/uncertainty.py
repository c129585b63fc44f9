"""Whether the predicted uncertainty goes with the true error: phantoms with known truth, and pairs with landmarks.

    python uncertainty.py [--seeds 0 1 2 3 4] [--repeats 4] [--pairs PAIRS.toml] [--report FILE]

Rank correlation (Spearman) over the voxels in the body and over the landmarks, for each part alone and for the sums;
a table of reliability: predicted mm against the mean true error. The factors were set on the seeds 11 to 14.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tools
import torch
from scipy.stats import spearmanr

import report
import semreg
from semreg import RegistrationConfig
from semreg.core.fields import Volume
from semreg.core.sampling import sample, transform_index
from semreg.io import files
from semreg.phantom import make_pair, points_of
from semreg.phantom.anatomy import share_of_body
from semreg.registration import pipeline as registration
from semreg.registration.uncertainty import REPEATED, Uncertainty

KINDS = ((64, "oblique", 11.0), (96, "isotropic", 11.0), (96, "oblique", 20.0), (128, "isotropic", 11.0))
"""Voxels an axis, frames and largest displacement in mm of the phantoms."""
COLUMNS = {
    "window": ("window",),
    "searches": ("searches",),
    "refinements": ("refinements",),
    "repeats": ("repeats",),
    "one run": ("window", "searches", "refinements"),
    "with repeats": ("window", "searches", "refinements", "repeats"),
}
"""What is compared: parts, and the sums of their squares."""
EDGES_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 20.0)


@dataclass(frozen=True)
class Case:
    """One registered pair: errors in mm, and each map in mm, at voxels (V,) and at landmarks (L,)."""

    name: str
    errors: dict[str, np.ndarray]
    maps: dict[str, dict[str, np.ndarray]]


def main() -> None:
    """Register, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    add("--repeats", type=int, default=4)
    add("--pairs", type=Path, default=tools.SHARED / "data" / "pairs.toml", help="real pairs with landmarks")
    add("--report", type=Path, help="write the tables to this Markdown file too")
    given = parser.parse_args()
    files.limit_threads(1)
    phantoms = list(phantom_cases(given.seeds, given.repeats))
    real = list(real_cases(given.pairs, given.repeats)) if given.pairs.exists() else []
    facts = report.machine(1) | {
        "semreg": report.versions_line(tools.semreg_versions()),
        "repeats": str(given.repeats),
        "command": "`python benchmarks/uncertainty.py --report benchmarks/results/uncertainty.md`",
    }
    text = f"# Uncertainty against true error\n\n{report.bullets(facts)}\n{tables(phantoms, real)}"
    print(text)
    if given.report:
        given.report.write_text(text, encoding="utf-8")


def phantom_cases(seeds: Sequence[int], repeats: int) -> Iterator[Case]:
    """The phantoms of all kinds and seeds."""
    for size, frames, largest in KINDS:
        for seed in seeds:
            pair = make_pair(size=size, seed=seed, frames=frames, displacement_mm=largest)
            result, doubt = registered(pair.fixed, pair.moving, repeats)
            grid = pair.fixed.grid
            body = torch.from_numpy(share_of_body(points_of(grid).flatten(1).numpy()) < 1).reshape(grid.shape)
            error = torch.linalg.vector_norm(result.field.mm() - pair.true_field().mm(), dim=0)[body]
            found = {"voxels": error[::5].numpy(), "landmarks": miss(result, pair.fixed_points, pair.moving_points)}
            places = points_of(grid)[:, body][:, ::5]
            maps = {"voxels": read(doubt, places), "landmarks": read(doubt, pair.fixed_points.T)}
            name = f"{size}³ {frames}, {largest:g} mm, seed {seed}"
            print(f"{name}: done", file=sys.stderr, flush=True)
            yield Case(name, found, maps)


def real_cases(path: Path, repeats: int) -> Iterator[Case]:
    """The 3-D pairs of a list that have landmarks."""
    for pair in tomllib.loads(path.read_text(encoding="utf-8"))["pair"]:
        if "fixed_landmarks" not in pair:
            continue
        fixed, moving = (files.read_image(path.parent / pair[name]).volume for name in ("fixed", "moving"))
        if fixed.grid.dimension != 3:
            continue
        points = [landmarks(path.parent, pair[f"{name}_landmarks"]) for name in ("fixed", "moving")]
        result, doubt = registered(fixed, moving, repeats)
        print(f"{pair['name']}: done", file=sys.stderr, flush=True)
        yield Case(pair["name"], {"landmarks": miss(result, *points)}, {"landmarks": read(doubt, points[0].T)})


def landmarks(root: Path, names: Sequence[str]) -> torch.Tensor:
    """The points of several files, (N, 3) in mm."""
    parts = [np.loadtxt(root / name, delimiter=",", skiprows=1, ndmin=2) for name in names]
    return torch.from_numpy(np.concatenate(parts))


def registered(fixed: Volume, moving: Volume, repeats: int) -> tuple[semreg.Registration, Uncertainty]:
    """The result and the uncertainty with its parts, which ``register`` only sums up."""
    seen: list[Uncertainty] = []
    estimate = registration.estimate

    def listening(*given: Any, **named: Any) -> Uncertainty:
        seen.append(estimate(*given, **named))
        return seen[-1]

    config = RegistrationConfig()
    config = replace(config, uncertainty=replace(config.uncertainty, repeats=repeats))
    registration.estimate = listening
    try:
        result = semreg.register(fixed, moving, config=config, device="cpu")
    finally:
        registration.estimate = estimate
    return result, seen[0]


def miss(result: semreg.Registration, fixed: torch.Tensor, moving: torch.Tensor) -> np.ndarray:
    """The landmark error in mm, (N,), of points (N, 3)."""
    return np.asarray(torch.linalg.vector_norm(result.field.point_map()(fixed.T) - moving.T, dim=0).numpy())


def read(doubt: Uncertainty, points: torch.Tensor) -> dict[str, np.ndarray]:
    """Every column at ``points`` (3, N), in mm as one run gives it; parts that there are."""
    index = transform_index(doubt.map.grid.point_to_index(), points.double())
    squares = {name: sample(part.data.double(), index)[0].square() for name, part in doubt.parts.items()}
    result = {}
    for column, names in COLUMNS.items():
        there = [squares[name] for name in names if name in squares]
        if there:
            share = 1.0 if "repeats" in names or "repeats" not in squares else 1 / REPEATED
            result[column] = (share * torch.stack(there).sum(0)).sqrt().numpy()
    return result


def tables(phantoms: Sequence[Case], real: Sequence[Case]) -> str:
    """All tables as Markdown."""
    parts = [
        "## Phantoms: rank correlation over the voxels in the body\n",
        ranks(phantoms, "voxels"),
        "## Phantoms: rank correlation over the landmarks\n",
        ranks(phantoms, "landmarks"),
        "## Phantoms: reliability of one run\n",
        reliability(phantoms, "voxels", "one run"),
        "## Phantoms: reliability with repeats\n",
        reliability(phantoms, "voxels", "with repeats"),
    ]
    if real:
        parts += [
            "## Real pairs: rank correlation over the landmarks\n",
            ranks(real, "landmarks"),
            "## Real pairs: reliability of one run\n",
            reliability(real, "landmarks", "one run"),
        ]
    return "\n".join(parts)


def ranks(cases: Sequence[Case], where: str) -> str:
    """One case a line, and the mean."""
    rows = [
        (
            case,
            {name: float(spearmanr(values, case.errors[where]).statistic) for name, values in case.maps[where].items()},
        )
        for case in cases
    ]
    lines = [
        [case.name, str(len(case.errors[where])), f"{case.errors[where].mean():.2f}", *cells(row)] for case, row in rows
    ]
    means: dict[str, float] = {}
    for name in COLUMNS:
        values = [row[name] for _, row in rows if name in row]
        if values:
            means[name] = float(np.mean(values))
    lines.append(["mean", "", "", *cells(means)])
    return report.markdown_table(["pair", "points", "error, mm", *COLUMNS], lines)


def cells(row: Mapping[str, float]) -> list[str]:
    """The columns of a line."""
    return [report.number(row.get(name), 2) for name in COLUMNS]


def reliability(cases: Sequence[Case], where: str, column: str) -> str:
    """Predicted mm in bins against the mean, the median and the 95th percentile of the true error."""
    predicted = np.concatenate([case.maps[where][column] for case in cases])
    errors = np.concatenate([case.errors[where] for case in cases])
    lines = []
    for low, high in itertools.pairwise(EDGES_MM):
        there = (predicted >= low) & (predicted < high)
        if there.any():
            e = errors[there]
            figures = [predicted[there].mean(), e.mean(), np.median(e), np.percentile(e, 95)]
            share = f"{100 * there.mean():.1f}"
            lines.append([f"{low:g} to {high:g}", share, *(f"{figure:.2f}" for figure in figures)])
    header = ["predicted, mm", "% of points", "its mean", "mean error, mm", "median error", "p95 of the error"]
    return report.markdown_table(header, lines)


if __name__ == "__main__":
    main()
