"""A pair whose picture tells left from right: oblique storage order, unequal spacings, a bright mark in one corner."""

from __future__ import annotations

import numpy as np
import torch

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.report import Case

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


def _errors(mean: float) -> dict[str, float]:
    words = ("mean", "sd", "minimum", "median", "p75", "p90", "p95", "maximum")
    return {word: mean + 0.1 * k for k, word in enumerate(words)}


def _overlap(dice: float) -> dict[str, float | None]:
    return {"dice": dice, "hd95_mm": 3.5, "assd_mm": 1.25, "surface_dice": None}


EVALUATION = {
    "landmarks": {
        "count": 15,
        "before": _errors(7.5),
        "after": _errors(1.25),
        "points": [
            {"name": f"P{k}", "fixed": [1.0, 2.0, 3.0], "moving": [4.0, 5.0, 6.0], "before": 7.0, "after": 0.1 * k}
            for k in range(14)
        ]
        + [{"name": "lost", "fixed": [0.0, 0.0, 0.0], "moving": [0.0, 0.0, 0.0], "before": 3.0, "after": None}],
    },
    "labels": {
        "tolerance_mm": 2.0,
        "each": [
            {"label": 1, "name": "liver", "before": _overlap(0.71), "after": _overlap(0.93)},
            {"label": 2, "name": "spleen", "before": _overlap(0.44), "after": _overlap(0.52)},
        ],
        "mean": {"before": _overlap(0.575), "after": _overlap(0.725)},
    },
    "overlap": {"before": 0.9, "after": 0.97},
    "displacement": {"mean_mm": 7.07, "median_mm": 7.0, "p95_mm": 7.1, "maximum_mm": 7.2},
    "jacobian": {"minimum": 0.98, "folded_share": 0.0},
}

VERDICT = {
    "level": "LOOK",
    "gates": [
        {"name": "folding", "title": "Folded voxels", "level": "PASS", "value": 0.0, "unit": "%", "look": 0.1,
         "fail": 1.0, "better": "lower", "sentence": "Nothing is folded."},
        {"name": "overlap", "title": "Overlap", "level": "LOOK", "value": 51.0, "unit": "%", "look": 60.0,
         "fail": 30.0, "better": "higher", "sentence": "Half of the fixed image lies beyond the moving one."},
    ],
}  # fmt: skip

RECORD = {
    "device": "cpu",
    "background": 0.0,
    "similarity": {"distance": "l2", "before": 1.2, "after": 0.4},
    "jacobian": {"minimum": 0.98, "folded_share": 0.0, "unfolding_passes": 0},
    "timings": {"coarse": {"seconds": 1.5, "cpu_seconds": 1.5}, "refine": {"seconds": 2.5, "cpu_seconds": 2.5}},
    "convergence": [
        {"spacing_mm": 6.0, "objective": [0.5, 0.4, 0.35], "reason": "reached the largest number of iterations, 2"},
        {"spacing_mm": 3.0, "objective": [0.45, 0.41], "reason": "nothing changed any more"},
        {"spacing_mm": 1.5, "objective": [], "reason": "left out"},
    ],
    "plan": {"reasons": [{"about": "frame", "sentence": "The fixed image is small."}], "memory_bytes": 1},
    "settings": {"seed": 7, "refine": {"iterations": 3}},
    "uncertainty": {"mean_mm": 1.5, "median_mm": 1.25, "p95_mm": 3.0},
}  # fmt: skip
