"""Whether the predicted uncertainty goes with the true error: phantoms with known truth, and pairs with landmarks.

    python uncertainty.py [--seeds 0 1 2 3 4] [--repeats 4] [--members 4] [--kinds 4] [--pairs FILE] [--report FILE]

Rank correlation (Spearman) over the voxels in the body and over the landmarks, for each part alone and for the sums;
a table of reliability: predicted mm against the mean true error. The columns with ``ensemble`` are of a second result,
the mean of ``--members`` registrations, and of its error; a table says which of the two is nearer. The factors were set
on the seeds 11 to 14.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import tools
import torch
from guidance import dices
from scipy.stats import spearmanr

import report
import semreg
from semreg import RegistrationConfig
from semreg.config import EnsembleConfig, UncertaintyConfig
from semreg.core.fields import Volume
from semreg.core.sampling import sample, transform_index
from semreg.io import files
from semreg.phantom import PhantomPair, make_pair, points_of
from semreg.registration.stages import uncertainty as stage
from semreg.registration.uncertainty import REPEATED, Uncertainty

Kind = tuple[int, str, float]
Runs = tuple[RegistrationConfig, RegistrationConfig]
KINDS: tuple[Kind, ...] = (
    (64, "oblique", 11.0),
    (96, "isotropic", 11.0),
    (96, "oblique", 20.0),
    (128, "isotropic", 11.0),
)
"""Voxels an axis, frames and largest displacement in mm of the phantoms."""
SMALL = 1 << 19
"""Voxels of a pair of which labels are compared."""
COLUMNS = {
    "window": ("window",),
    "searches": ("searches",),
    "refinements": ("refinements",),
    "repeats": ("repeats",),
    "one run": ("window", "searches", "refinements"),
    "with repeats": ("window", "searches", "refinements", "repeats"),
    "ensemble": ("ensemble",),
    "with ensemble": ("window", "searches", "refinements", "ensemble"),
}
"""What is compared: parts, and the sums of their squares."""
EDGES_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 20.0)


@dataclass(frozen=True)
class Case:
    """One registered pair: errors in mm, and each map in mm, at voxels (V,) and at landmarks (L,)."""

    name: str
    errors: dict[str, np.ndarray]
    of_mean: dict[str, np.ndarray]
    """The errors of the mean of the ensemble at the same places."""
    maps: dict[str, dict[str, np.ndarray]]


def main() -> None:
    """Register, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    add("--repeats", type=int, default=4)
    add("--members", type=int, default=4, help="of the ensemble")
    add("--kinds", type=int, default=len(KINDS), help="of the phantoms, the smallest first")
    add("--pairs", type=Path, default=tools.SHARED / "data" / "pairs.toml", help="real pairs with landmarks")
    add("--report", type=Path, help="write the tables to this Markdown file too")
    given = parser.parse_args()
    files.limit_threads(1)
    runs = settings(given.repeats, given.members)
    phantoms = list(phantom_cases(KINDS[: given.kinds], given.seeds, runs))
    real = list(real_cases(given.pairs, runs)) if given.pairs.exists() else []
    facts = report.machine(1) | {
        "semreg": report.versions_line(tools.semreg_versions()),
        "repeats": str(given.repeats),
        "members": str(given.members),
        "command": f"`python benchmarks/uncertainty.py --seeds {' '.join(map(str, given.seeds))} "
        f"--repeats {given.repeats} --members {given.members} --kinds {given.kinds} --report results/uncertainty.md`",
    }
    dice = overlaps(given.pairs, runs) if given.pairs.exists() else ""
    text = f"# Uncertainty against true error\n\n{report.bullets(facts)}\n{tables(phantoms, real)}{dice}"
    print(text)
    if given.report:
        given.report.write_text(text, encoding="utf-8")


def settings(repeats: int, members: int) -> tuple[RegistrationConfig, RegistrationConfig]:
    """Of one run with repeats, and of an ensemble."""
    return (
        RegistrationConfig(uncertainty=UncertaintyConfig(repeats=repeats)),
        RegistrationConfig(ensemble=EnsembleConfig(members=members)),
    )


def phantom_cases(kinds: Sequence[Kind], seeds: Sequence[int], runs: Runs) -> Iterator[Case]:
    """The phantoms of all kinds and seeds."""
    for size, frames, largest in kinds:
        for seed in seeds:
            pair = make_pair(size=size, seed=seed, frames=frames, displacement_mm=largest)
            one, ensemble = (registered(pair.fixed, pair.moving, config) for config in runs)
            grid = pair.fixed.grid
            body = torch.from_numpy(pair.anatomy.region.share(points_of(grid).flatten(1).numpy()) < 1).reshape(
                grid.shape
            )
            missed = partial(errors_of, pair, body)

            places = points_of(grid)[:, body][:, ::5]
            maps = {
                where: read(one[1], at) | read(ensemble[1], at)
                for where, at in (("voxels", places), ("landmarks", pair.fixed_points.T))
            }
            name = f"{size}³ {frames}, {largest:g} mm, seed {seed}"
            print(f"{name}: done", file=sys.stderr, flush=True)
            yield Case(name, missed(one[0]), missed(ensemble[0]), maps)


def errors_of(pair: PhantomPair, body: torch.Tensor, result: semreg.Registration) -> dict[str, np.ndarray]:
    """The errors in mm over the voxels in the ``body`` and over the landmarks."""
    error = torch.linalg.vector_norm(result.field.mm() - pair.true_field().mm(), dim=0)[body]
    return {"voxels": error[::5].numpy(), "landmarks": miss(result, pair.fixed_points, pair.moving_points)}


def real_cases(path: Path, runs: Runs) -> Iterator[Case]:
    """The 3-D pairs of a list that have landmarks."""
    for pair in tomllib.loads(path.read_text(encoding="utf-8"))["pair"]:
        if "fixed_landmarks" not in pair:
            continue
        fixed, moving = (files.read_image(path.parent / pair[name]).volume for name in ("fixed", "moving"))
        if fixed.grid.dimension != 3:
            continue
        points = [landmarks(path.parent, pair[f"{name}_landmarks"]) for name in ("fixed", "moving")]
        one, ensemble = (registered(fixed, moving, config) for config in runs)
        print(f"{pair['name']}: done", file=sys.stderr, flush=True)
        maps = read(one[1], points[0].T) | read(ensemble[1], points[0].T)
        errors = ({"landmarks": miss(result, *points)} for result, _ in (one, ensemble))
        yield Case(pair["name"], *errors, {"landmarks": maps})


def overlaps(path: Path, runs: Runs) -> str:
    """The mean Dice of one run and of the mean of the ensemble, of small 3-D pairs with labels."""
    rows = []
    for pair in tomllib.loads(path.read_text(encoding="utf-8"))["pair"]:
        if "fixed_labels" not in pair or files.read_grid(path.parent / pair["fixed"]).voxels > SMALL:
            continue
        images = {name: path.parent / pair[name] for name in ("fixed", "moving", "fixed_labels", "moving_labels")}
        labels = [sitk.ReadImage(str(images[f"{side}_labels"]), sitk.sitkInt32) for side in ("fixed", "moving")]
        numbers = [set(np.unique(sitk.GetArrayFromImage(image)).tolist()) - {0} for image in labels]
        shared = sorted(numbers[0] & numbers[1])
        if labels[0].GetDimension() != 3 or not shared:
            continue
        off = replace(runs[0].uncertainty, repeats=0)
        means = []
        for config in (replace(runs[0], uncertainty=off), runs[1]):
            result = semreg.register(images["fixed"], images["moving"], config=config, device="cpu")
            means.append(float(np.mean(list(dices(result.transform(), *labels, shared).values()))))
        rows.append([pair["name"], *(f"{mean:.4f}" for mean in means), f"{means[1] - means[0]:+.4f}"])
        print(f"{pair['name']}: done", file=sys.stderr, flush=True)
    header = ["pair", "Dice of one run", "of the mean of the ensemble", "change"]
    return f"\n## Small pairs with labels\n\n{report.markdown_table(header, rows)}" if rows else ""


def landmarks(root: Path, names: Sequence[str]) -> torch.Tensor:
    """The points of several files, (N, 3) in mm."""
    parts = [np.loadtxt(root / name, delimiter=",", skiprows=1, ndmin=2) for name in names]
    return torch.from_numpy(np.concatenate(parts))


def registered(fixed: Volume, moving: Volume, config: RegistrationConfig) -> tuple[semreg.Registration, Uncertainty]:
    """The result and the uncertainty with its parts, which ``register`` only sums up."""
    seen: list[Uncertainty] = []
    estimate = stage.estimate

    def listening(*given: Any, **named: Any) -> Uncertainty:
        seen.append(estimate(*given, **named))
        return seen[-1]

    stage.estimate = listening
    try:
        result = semreg.register(fixed, moving, config=config, device="cpu")
    finally:
        stage.estimate = estimate
    return result, seen[0]


def miss(result: semreg.Registration, fixed: torch.Tensor, moving: torch.Tensor) -> np.ndarray:
    """The landmark error in mm, (N,), of points (N, 3)."""
    return np.asarray(torch.linalg.vector_norm(result.field.point_map()(fixed.T) - moving.T, dim=0).numpy())


def read(doubt: Uncertainty, points: torch.Tensor) -> dict[str, np.ndarray]:
    """Every column at ``points`` (3, N), in mm as one run gives it; of an ensemble those with its spread."""
    index = transform_index(doubt.map.grid.point_to_index(), points.double())
    squares = {name: sample(part.data.double(), index)[0].square() for name, part in doubt.parts.items()}
    result = {}
    for column, names in COLUMNS.items():
        there = [squares[name] for name in names if name in squares]
        asked = {"ensemble", "repeats"} & set(names)
        if there and asked <= set(squares) and ("ensemble" in names) == ("ensemble" in squares):
            share = 1.0 if "repeats" in names or "repeats" not in squares else 1 / REPEATED
            result[column] = (share * torch.stack(there).sum(0)).sqrt().numpy()
    return result


def tables(phantoms: Sequence[Case], real: Sequence[Case]) -> str:
    """All tables as Markdown."""
    parts: list[str] = []
    if phantoms:
        parts += [
            "## Phantoms: rank correlation over the voxels in the body\n",
            ranks(phantoms, "voxels"),
            "## Phantoms: rank correlation over the landmarks\n",
            ranks(phantoms, "landmarks"),
            "## Phantoms: reliability of one run\n",
            reliability(phantoms, "voxels", "one run"),
            "## Phantoms: reliability with an ensemble\n",
            reliability(phantoms, "voxels", "with ensemble"),
            "## Phantoms: reliability with repeats\n",
            reliability(phantoms, "voxels", "with repeats"),
        ]
    if real:
        parts += [
            "## Real pairs: rank correlation over the landmarks\n",
            ranks(real, "landmarks"),
            "## Real pairs: reliability with an ensemble\n",
            reliability(real, "landmarks", "with ensemble"),
            "## Real pairs: reliability of one run\n",
            reliability(real, "landmarks", "one run"),
        ]
    parts += ["## One run and the mean of an ensemble\n", gains([*phantoms, *real])]
    return "\n".join(parts)


def ranks(cases: Sequence[Case], where: str) -> str:
    """One case a line, and the mean."""
    rows = [
        (
            case,
            {
                name: float(spearmanr(values, of(case, name)[where]).statistic)
                for name, values in case.maps[where].items()
            },
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


def of(case: Case, column: str) -> dict[str, np.ndarray]:
    """The errors that a column is to order: of one run, or of the mean of the ensemble."""
    return case.of_mean if "ensemble" in column else case.errors


def gains(cases: Sequence[Case]) -> str:
    """The mean error of one run and of the mean of the ensemble."""
    rows = []
    for case in cases:
        for where, errors in case.errors.items():
            one, mean = float(errors.mean()), float(case.of_mean[where].mean())
            rows.append([f"{case.name}, {where}", f"{one:.3f}", f"{mean:.3f}", f"{100 * (mean / one - 1):+.1f} %"])
    return report.markdown_table(["pair", "one run, mm", "mean of the ensemble, mm", "change"], rows)


def cells(row: Mapping[str, float]) -> list[str]:
    """The columns of a line."""
    return [report.number(row.get(name), 2) for name in COLUMNS]


def reliability(cases: Sequence[Case], where: str, column: str) -> str:
    """Predicted mm in bins against the mean, the median and the 95th percentile of the true error."""
    if not all(column in case.maps[where] for case in cases):
        return "not asked for\n"
    predicted = np.concatenate([case.maps[where][column] for case in cases])
    errors = np.concatenate([of(case, column)[where] for case in cases])
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
