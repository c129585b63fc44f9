"""A pair whose picture tells left from right: oblique storage order, unequal spacings, a bright mark in one corner."""

from __future__ import annotations

import numpy as np
import torch

from run_records import make_run
from semreg.config import RegistrationConfig
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.io.bridge import LabelMap, to_labels
from semreg.quality import CheckResult, Evaluation, Verdict
from semreg.quality.deformation import DisplacementStatistics, JacobianStatistics
from semreg.quality.landmarks import Landmark, LandmarkErrors, Spread
from semreg.quality.overlap import LabelOverlap, LabelOverlaps, MeanOverlap, Overlap
from semreg.quality.result import Share
from semreg.registration.dense.refine import LevelReport
from semreg.registration.parts.report import PartReport, PartsReport
from semreg.registration.plan.reasons import Reason
from semreg.registration.result import PlanReport
from semreg.registration.sliding.report import SlidingReport
from semreg.registration.uncertainty import UncertaintySummary
from semreg.report import Case
from semreg.runtime.events import StageTime
from semreg.runtime.settings import override
from semreg.transforms.pointwise import ErrorSummary

# stored as (P, S, R): x runs to posterior, y to superior, z to the right
STORED = ((0.0, 0.0, -1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
SIZE, SPACING, ORIGIN = (30, 22, 26), (1.5, 2.5, 2.0), (-20.0, 11.0, 37.0)


def phantom(grid: Grid, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Volume:
    """Three blobs of unequal place, size and height in mm, moved by ``shift``; the brightest is right, anterior, up."""
    centre = grid_centre()
    z, y, x = np.indices(grid.shape)
    points = np.einsum("ij,jzyx->izyx", grid.index_to_point()[:3, :3], np.stack([z, y, x]))
    points += grid.index_to_point()[:3, 3].reshape(3, 1, 1, 1)
    image = np.zeros(grid.shape)
    for offset, width, height in (((-17, -14, 18), 4.5, 250.0), ((12, 3, -6), 7.0, 130.0), ((2, 15, 9), 5.0, 80.0)):
        place = np.asarray(centre) + offset + np.asarray(shift)
        image += height * np.exp(-((points - place.reshape(3, 1, 1, 1)) ** 2).sum(0) / (2 * width**2))
    return Volume(torch.from_numpy(image.astype(np.float32))[None], grid)


def grid_centre() -> np.ndarray:
    """The middle of the fixed image in mm."""
    return fixed_grid().corners_xyz().mean(0)


def fixed_grid() -> Grid:
    """Stored along posterior, superior and right."""
    return Grid(SIZE, SPACING, ORIGIN, STORED)


def moving_grid() -> Grid:
    """Oblique, of other voxels, large enough to hold the fixed image."""
    angle = 0.2
    c, s = float(np.cos(angle)), float(np.sin(angle))
    rows = ((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0))
    frame = Grid((40, 36, 34), (2.0, 2.2, 2.4), (0.0, 0.0, 0.0), rows)
    origin = grid_centre() - frame.corners_xyz().mean(0)
    return Grid(frame.size_xyz, frame.spacing_xyz, tuple(origin), rows)


SHIFT = (4.0, -3.0, 5.0)
"""What lies at p in the fixed image lies at p + SHIFT in the moving one, mm, LPS."""


def make_case(**more: object) -> Case:
    """The pair with its true field and everything else a page can show."""
    grid = fixed_grid()
    mm = torch.tensor(SHIFT).reshape(3, 1, 1, 1).expand(3, *grid.shape)
    uncertainty = torch.linspace(0.5, 4.0, grid.voxels).reshape(1, *grid.shape).clone()
    uncertainty[0, :3] = torch.nan
    given = {
        "fixed": phantom(grid),
        "moving": phantom(moving_grid(), SHIFT),
        "field": Field.from_mm(mm, grid),
        "title": "A pair",
        "uncertainty": Volume(uncertainty, grid),
        "evaluation": EVALUATION,
        "verdict": VERDICT,
        "record": RECORD,
        "names": {"fixed": "fixed.nii.gz", "moving": "moving.nii.gz"},
    }
    return Case(**{**given, **more})  # type: ignore[arg-type]


def errors_of(mean: float) -> Spread:
    """Errors of landmarks in mm around ``mean``."""
    words = ("mean", "sd", "minimum", "median", "p75", "p90", "p95", "maximum")
    return Spread(**{word: mean + 0.1 * k for k, word in enumerate(words)})


def _overlap(dice: float) -> Overlap:
    return Overlap(dice=dice, hd95_mm=3.5, assd_mm=1.25)


def check_of(level: str | None = "PASS", **more: object) -> CheckResult:
    """A check of that level."""
    given = {
        "name": "folding", "title": "Folded voxels", "level": level, "value": 0.0, "unit": "%", "review": 0.1,
        "fail": 1.0, "better": "lower", "sentence": "Nothing is folded.",
    }  # fmt: skip
    return CheckResult(**{**given, **more})  # type: ignore[arg-type]


EVALUATION = Evaluation(
    landmarks=LandmarkErrors(
        count=15, worse=1, before=errors_of(7.5), after=errors_of(1.25),
        points=(
            *(Landmark(name=f"P{k}", fixed=(1.0, 2.0, 3.0), moving=(4.0, 5.0, 6.0), before=7.0, after=0.1 * k)
              for k in range(1, 14)),
            Landmark(name="found", fixed=(0.0, 0.0, 0.0), moving=(0.0, 0.0, 0.0), before=3.0, after=0.0),
            Landmark(name="worse", fixed=(0.0, 0.0, 0.0), moving=(0.0, 0.0, 0.0), before=0.01, after=0.02),
        ),
    ),
    labels=LabelOverlaps(
        tolerance_mm=2.0,
        each=(
            LabelOverlap(label=1, name="liver", before=_overlap(0.71), after=_overlap(0.93)),
            LabelOverlap(label=2, name="spleen", before=_overlap(0.44), after=_overlap(0.52)),
        ),
        mean=MeanOverlap(before=_overlap(0.575), after=_overlap(0.725)),
    ),
    overlap=Share(before=0.9, after=0.97),
    displacement=DisplacementStatistics(mean_mm=7.07, median_mm=7.0, p95_mm=7.1, maximum_mm=7.2),
    jacobian=JacobianStatistics(region="image", voxels=17160, minimum=0.98, folded_share=0.0),
)  # fmt: skip

VERDICT = Verdict.of((
    check_of(),
    check_of("REVIEW", name="overlap", title="Overlap", value=51.0, review=60.0, fail=30.0, better="higher",
            sentence="Half of the fixed image lies beyond the moving one."),
))  # fmt: skip


def _level(spacing_mm: float, objective: tuple[float, ...], reason: str) -> LevelReport:
    return LevelReport(
        spacing_mm=spacing_mm, iterations=len(objective), reason=reason, distance_before=1.0, distance_after=0.5,
        objective=objective, returned=0,
    )  # fmt: skip


RECORD = make_run(
    timings={name: StageTime(seconds=s, cpu_seconds=s) for name, s in (("coarse", 1.5), ("refine", 2.5))},
    convergence=(
        _level(6.0, (0.5, 0.4, 0.35), "reached the largest number of iterations, 2"),
        _level(3.0, (0.45, 0.41), "nothing changed any more"),
        _level(1.5, (), "left out"),
    ),
    plan=PlanReport(reasons=(Reason("frame", "The fixed image is small."),), memory_bytes=1),
    settings=override(override(RegistrationConfig(), "seed=7"), "refine.iterations=3"),
    uncertainty=UncertaintySummary(mean_mm=1.5, median_mm=1.25, p95_mm=3.0, maximum_mm=4.0, parts={}),
)


def _part(label: int, name: str, **more: object) -> PartReport:
    given = {
        "volume_mm3": 900.0, "rotation_deg": 7.125, "translation_mm": (3.0, -4.0, 0.0), "matrix": ((1.0,),),
        "from_rigid_mm": ErrorSummary(mean_mm=0.25, p95_mm=0.5, maximum_mm=0.75), "refined_mm": None,
        "held_share": 1.0, "residual_mm": 1e-6,
    }  # fmt: skip
    return PartReport(label=label, name=name, **{**given, **more})  # type: ignore[arg-type]


PARTS = PartsReport(
    parts=(_part(3, "tibia <1>"), _part(8, "", held_share=0.5, notes=("lies beside another part",))),
    outside=(9,), passes=0,
)  # fmt: skip
SLIDING = SlidingReport(
    labels=(4, 5), area=100.0, slide_mm=ErrorSummary(mean_mm=10.5, p95_mm=13.25, maximum_mm=14.75),
    most_at=tuple(grid_centre().tolist()), gap_mm=ErrorSummary(mean_mm=0.125, p95_mm=3.5, maximum_mm=4.5),
    unmatched_share=0.03, across_share=0.002, voxel_mm=1.5,
)  # fmt: skip


def structure_of(**boxes: tuple[slice, ...]) -> LabelMap:
    """Labels of the fixed image with a box for each, ``l3=(slices…)``."""
    data = torch.zeros(1, *fixed_grid().shape)
    for name, box in boxes.items():
        data[0][box] = int(name[1:])
    return to_labels(Volume(data, fixed_grid()))


BOXES = {
    "l3": (slice(4, 12), slice(3, 11), slice(5, 17)), "l5": (slice(14, 18), slice(12, 18), slice(3, 9)),
    "l8": (slice(8, 22), slice(13, 20), slice(12, 26)),
}  # fmt: skip
