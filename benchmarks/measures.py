"""Sets the measures of ``semreg.evaluate`` beside independent implementations, on random data and on real pairs.

    python measures.py [PAIRS.toml] [RESULTS] [--only NAME ...] [--report FILE]

Real pairs are registered with the defaults where RESULTS has none of them yet. Leaves with 1 where a difference is
larger than 1e-3.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pairs as real
import SimpleITK as sitk
import tools
import torch
from scipy import ndimage
from surface_distance import metrics

import report
from semreg.core.fields import Field
from semreg.core.geometry import Grid
from semreg.io.files import read_image
from semreg.quality import EvaluationConfig, evaluate, label_overlap, read_landmarks
from semreg.quality.deformation import JacobianStatistics, jacobian_statistics
from semreg.quality.landmarks import LandmarkErrors
from semreg.quality.overlap import LabelOverlaps, Overlap

BAR = 1e-3
TOLERANCE_MM = 2.0
MEASURES = ("TRE", "Dice", "HD95", "ASSD", "surface Dice", "SDlogJ", "minimum", "folded")
SOURCES = {
    "TRE": "SimpleITK, TransformPoint, and NumPy",
    "Dice": "SimpleITK, LabelOverlapMeasuresImageFilter on labels of its own resampler",
    "HD95": "DeepMind's surface-distance-based-measures 0.1, 95th percentile",
    "ASSD": "the same package, its distances and areas of both surfaces together",
    "surface Dice": f"the same package, at {TOLERANCE_MM:g} mm",
    "SDlogJ": "the published formula of Learn2Reg's evaluation in NumPy, on SimpleITK's field",
    "minimum": "SimpleITK, DisplacementFieldJacobianDeterminantFilter, without the outer layer",
    "folded": "the same filter, share of the voxels at 0 and below",
}
Differences = dict[str, list[float]]


def main() -> None:
    """Compare, print."""
    given = arguments()
    rows = {"random": random_data(given.seeds)}
    if given.pairs.exists():
        for pair in chosen(given):
            rows[pair["name"]] = real_pair(pair, given)
            print(f"{pair['name']}: done", flush=True)
    else:
        print(f"skipped the real pairs: {given.pairs} is not there")
    text, good = summary(rows)
    print(text)
    if given.report:
        facts = report.machine(1) | {"semreg": report.versions_line(tools.semreg_versions())}
        sources = report.markdown_table(["measure", "set beside"], [[name, SOURCES[name]] for name in MEASURES])
        given.report.write_text(f"# Agreement of the measures\n\n{report.bullets(facts)}\n{sources}\n{text}", "utf-8")
    sys.exit(0 if good else 1)


def arguments() -> argparse.Namespace:
    """What the command was given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("pairs", type=Path, nargs="?", default=tools.SHARED / "data" / "pairs.toml", help="list of the pairs")
    add("results", type=Path, nargs="?", default=tools.OUT / "measures", help="folder for the registrations")
    add("--only", nargs="+", default=[], metavar="NAME", help="these pairs alone")
    add("--seeds", type=int, default=20, help="sets of random data")
    add("--report", type=Path, help="write the tables to this Markdown file too")
    return parser.parse_args()


def chosen(given: argparse.Namespace) -> list[dict[str, Any]]:
    """The pairs to compare on."""
    listed = real.tomllib.loads(given.pairs.read_text(encoding="utf-8"))["pair"]
    return [pair for pair in listed if not given.only or pair["name"] in given.only]


def random_data(seeds: int) -> Differences:
    """Largest differences over random points, masks and fields, in 2-D and 3-D, anisotropic, oblique."""
    found: Differences = {name: [] for name in MEASURES}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        dimension = 2 + seed % 2
        grid = random_grid(rng, dimension)
        masks = [blobs(rng, grid.shape) for _ in range(2)]
        compare_masks(found, masks[0], masks[1], grid.spacing)
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(*[sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks])
        dice = label_overlap(*masks, grid.spacing, TOLERANCE_MM).dice
        found["Dice"].append(abs(dice - overlap.GetDiceCoefficient(1)))
        field = Field(torch.from_numpy(rng.normal(size=(dimension, *grid.shape)) * 0.5), grid)
        transform = sitk.DisplacementFieldTransform(vectors_of(field))
        compare_jacobian(found, jacobian_statistics(field), transform, reference_image(grid))
        share = rng.uniform(0.1, 0.9, size=(50, dimension)) * (np.array(grid.shape) - 1)
        points = (np.c_[share, np.ones(50)] @ grid.index_to_point().T)[:, :-1]
        compare_points(found, evaluate(transform, landmarks=(points, points[::-1])).landmarks, transform)
    return found


def real_pair(pair: Mapping[str, Any], given: argparse.Namespace) -> Differences:
    """Differences on one pair, before (where there is a before) and after its registration with the defaults."""
    root, folder = given.pairs.parent, given.results / pair["name"]
    fixed, moving = root / pair["fixed"], root / pair["moving"]
    if not (folder / "transform.h5").exists():
        real.run_pair(tools.semreg_command(fixed, moving, folder, 1), folder, 1)
    transform = sitk.ReadTransform(str(folder / "transform.h5"))
    landmarks = None
    if "fixed_landmarks" in pair:
        landmarks = read_landmarks(
            *[[root / name for name in pair[f"{side}_landmarks"]] for side in ("fixed", "moving")]
        )
    maps = [root / pair[f"{side}_labels"] for side in ("fixed", "moving")] if "fixed_labels" in pair else None
    config = EvaluationConfig(tolerance_mm=TOLERANCE_MM, similarity=False)
    result = evaluate(folder / "transform.h5", fixed=fixed, landmarks=landmarks, labels=maps, config=config)
    found: Differences = {name: [] for name in MEASURES}
    compare_jacobian(found, result.jacobian, transform, reference_image(read_image(fixed).volume.grid))
    if landmarks is not None:
        compare_points(found, result.landmarks, transform)
    if maps is not None:
        compare_labels(found, result.labels, maps, transform)
    return found


def compare_points(found: Differences, table: LandmarkErrors, transform: sitk.Transform) -> None:
    """Errors of single points, and the mean, before and after."""
    identity = sitk.Transform(transform.GetDimension(), sitk.sitkIdentity)
    for side, way in (("before", identity), ("after", transform)):
        errors = [np.linalg.norm(np.subtract(way.TransformPoint(p.fixed), p.moving)) for p in table.points]
        found["TRE"] += [abs(getattr(p, side) - error) for p, error in zip(table.points, errors, strict=True)]
        spread = getattr(table, side)
        found["TRE"] += [abs(spread.mean - np.mean(errors)), abs(spread.p95 - np.percentile(errors, 95))]


def compare_labels(found: Differences, table: LabelOverlaps, maps: Sequence[Path], transform: sitk.Transform) -> None:
    """All labels, before and after, on labels that SimpleITK resampled."""
    fixed, moving = (sitk.ReadImage(str(path)) for path in maps)
    target = sitk.GetArrayFromImage(fixed)
    for side, way in (("before", sitk.Transform(3, sitk.sitkIdentity)), ("after", transform)):
        read = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, way, sitk.sitkNearestNeighbor, 0))
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(*[sitk.GetImageFromArray(labels.astype(np.int32)) for labels in (target, read)])
        for row in table.each:
            measured = getattr(row, side)
            if measured.dice is None:
                continue
            found["Dice"].append(abs(measured.dice - overlap.GetDiceCoefficient(row.label)))
            if measured.hd95_mm is not None:
                masks = target == row.label, read == row.label
                compare_surfaces(found, measured, *masks, fixed.GetSpacing()[::-1])


def compare_masks(found: Differences, first: np.ndarray, second: np.ndarray, spacing: Sequence[float]) -> None:
    """The distances between two masks."""
    compare_surfaces(found, label_overlap(first, second, spacing, TOLERANCE_MM), first, second, spacing)


def compare_surfaces(
    found: Differences, row: Overlap, first: np.ndarray, second: np.ndarray, spacing: Sequence[float]
) -> None:
    """HD95, ASSD and surface Dice beside those of DeepMind's package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it uses names that SciPy is about to drop
        surfaces = metrics.compute_surface_distances(first, second, spacing)
    there, area, back, area_back = (
        surfaces[name]
        for name in ("distances_gt_to_pred", "surfel_areas_gt", "distances_pred_to_gt", "surfel_areas_pred")
    )
    average = ((there * area).sum() + (back * area_back).sum()) / (area.sum() + area_back.sum())
    found["HD95"].append(abs(row.hd95_mm - metrics.compute_robust_hausdorff(surfaces, 95.0)))
    found["ASSD"].append(abs(row.assd_mm - average))
    share = metrics.compute_surface_dice_at_tolerance(surfaces, TOLERANCE_MM)
    found["surface Dice"].append(abs(row.surface_dice - share))


def compare_jacobian(
    found: Differences, table: JacobianStatistics, transform: sitk.Transform, reference: sitk.Image
) -> None:
    """SDlogJ, smallest determinant and folded share."""
    n = reference.GetDimension()
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, reference.GetSize(), reference.GetOrigin(), reference.GetSpacing(),
        reference.GetDirection(),
    )  # fmt: skip
    # along the axes of the array, as ITK's filter ignores the direction
    turned = sitk.GetArrayFromImage(field) @ np.reshape(reference.GetDirection(), (n, n))
    voxels = np.moveaxis(turned / np.array(reference.GetSpacing()), -1, 0)[::-1]
    found["SDlogJ"].append(abs(table.sd_log - learn2reg(voxels)))
    image = sitk.GetImageFromArray(turned, isVector=True)
    image.SetSpacing(reference.GetSpacing())
    determinant = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image))[(slice(1, -1),) * n]
    found["minimum"].append(abs(table.minimum - determinant.min()))
    found["folded"].append(abs(table.folded_share - (determinant <= 0).mean()))


def learn2reg(voxels: np.ndarray) -> float:
    """SDlogJ of displacements (D, *S) in voxels along the array axes, by the published formula."""
    n = len(voxels)
    core = (slice(2, -2),) * n
    jacobian = np.empty((*voxels[0][core].shape, n, n))
    for i in range(n):
        for axis in range(n):
            kernel = np.reshape([-0.5, 0.0, 0.5], [3 if a == axis else 1 for a in range(n)])
            jacobian[..., i, axis] = ndimage.correlate(voxels[i], kernel, mode="constant")[core] + (i == axis)
    return float(np.log((np.linalg.det(jacobian) + 3).clip(1e-9, 1e9)).std())


def random_grid(rng: np.random.Generator, dimension: int) -> Grid:
    """Sizes, spacings and origins that all differ, and an oblique direction."""
    direction, _ = np.linalg.qr(rng.normal(size=(dimension, dimension)) + 3 * np.eye(dimension))
    size, spacing = rng.integers(18, 34, dimension), rng.uniform(0.5, 3.0, dimension)
    return Grid(tuple(size), tuple(spacing), tuple(rng.normal(size=dimension) * 50), tuple(map(tuple, direction)))


def blobs(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """A random mask."""
    values = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0.5, 3.0))
    return values > np.quantile(values, 0.75)


def reference_image(grid: Grid) -> sitk.Image:
    """An image with the header of ``grid``."""
    image = sitk.Image(list(grid.size_xyz), sitk.sitkUInt8)
    image.SetSpacing(grid.spacing_xyz)
    image.SetOrigin(grid.origin_xyz)
    image.SetDirection([value for row in grid.direction for value in row])
    return image


def vectors_of(field: Field) -> sitk.Image:
    """The displacements in mm as SimpleITK stores them."""
    image = sitk.GetImageFromArray(field.mm().movedim(0, -1).numpy(), isVector=True)
    image.CopyInformation(reference_image(field.grid))
    return image


def summary(rows: Mapping[str, Differences]) -> tuple[str, bool]:
    """The largest differences as Markdown, and whether all are below the bar."""
    cells = []
    for name, found in rows.items():
        cells.append([name, *(f"{max(found[m]):.1e} ({len(found[m])})" if found[m] else "-" for m in MEASURES)])
    largest = max(max(values) for found in rows.values() for values in found.values() if values)
    table = report.markdown_table(["largest difference (numbers)", *MEASURES], cells)
    good = largest <= BAR
    return f"{table}\nLargest of all: {largest:.1e}; at most {BAR:g}: {report.holds(good)}.\n", good


if __name__ == "__main__":
    main()
