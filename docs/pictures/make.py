# ruff: noqa: INP001 - a script, no package
"""Draws the pictures of the documentation from the built-in phantoms: nothing in them was made by hand.

    python docs/pictures/make.py

``hero.png``: a registration at a glance, the pair of ``semreg demo``. ``features.png``: where one place of the CT-like
image would be looked for in the MR-like one, by intensities and by features. Takes about half a minute.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

import semreg
from semreg.core.geometry import canonical_order
from semreg.phantom import PhantomPair, make_pair
from semreg.preprocess.body import body_mask
from semreg.report.planes import Plane, planes_of
from semreg.report.stacks import Map, Stacks, make_stacks

CARD, INK, ORANGE = "#12161c", "#f2f4f7", "#ff9a2e"
"""Light letters on a dark card: it looks the same on a light and on a dark page."""
WIDTH_IN, DPI = 9.0, 144
COLOURS = 256
"""Of the palette: more of them only make the file larger."""
REACH = 14
"""How many voxels around its place a point is looked for, along each axis."""
NEAR = 2
"""How many voxels off counts as right."""
PATCH = 7
"""Edge in voxels of the neighbourhood over which costs are averaged, of intensities and features alike."""

Bytes = npt.NDArray[np.uint8]


def main(arguments: list[str] | None = None) -> None:
    """Draw both pictures."""
    parser = argparse.ArgumentParser(description="Draw the pictures of the documentation.")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent, help="folder")
    parser.add_argument("--size", type=int, default=120, help="voxels an axis of the phantom")
    parser.add_argument("--dpi", type=int, default=DPI, help="dots per inch")
    given = parser.parse_args(arguments)
    save(hero(make_pair(size=given.size)), given.output / "hero.png", given.dpi)
    save(
        features(make_pair(size=2 * given.size, dimension=2, frames="isotropic")),
        given.output / "features.png",
        given.dpi,
    )


def hero(pair: PhantomPair) -> Figure:
    """Fixed, moving and both before; both after, the change of volume and the uncertainty."""
    result = semreg.register(pair.fixed, pair.moving)
    stacks = make_stacks(semreg.report.Case.of(result, pair.fixed, pair.moving))
    plane = planes_of(stacks.grid)[1]
    number = stacks.shape[plane.across] // 2
    fixed, before, after = (
        stacks.cut(name, plane, number) for name in ("fixed", stacks.states[0].key, stacks.states[-1].key)
    )
    body = plane.cut(
        body_mask(pair.fixed, 0.0).reordered(canonical_order(pair.fixed.grid)).on(stacks.grid).data[0].numpy(), number
    )
    errors = errors_mm(pair, result.field)
    figure, axes = panels(2, 3, ratio=stacks.shape[0] * stacks.spacing[0] / (stacks.shape[2] * stacks.spacing[2]))
    titles = (
        "fixed: CT-like",
        f"moving: MR-like, {errors[0]:.1f} mm off",
        f"moving, registered: {errors[1]:.1f} mm off",
    )
    for each, picture, title in zip(axes[0], (fixed, before, after), titles, strict=True):
        show(each, picture, title)
        outline(each, fixed)
    show(axes[1, 0], fixed, "displacement")
    arrows(axes[1, 0], stacks, plane, number)
    show(axes[1, 1], fixed, "change of volume")
    shown = over(axes[1, 1], stacks.jacobian, plane, "PuOr_r", body)
    key(axes[1, 1], shown, [-2, 0, 2], ["¼", "1", "4"])
    show(axes[1, 2], fixed, "how far it may be off: an estimate")
    if stacks.uncertainty is not None:
        high = stacks.uncertainty.high
        shown = over(axes[1, 2], stacks.uncertainty, plane, "viridis", body)
        key(axes[1, 2], shown, [0, high], ["0", f"{high:.0f} mm"])
    return figure


def features(pair: PhantomPair) -> Figure:
    """One place of the fixed image, and how well each place near it in the moving image goes with it, two ways."""
    kept = inner(pair)
    costs = {model: costs_of(pair, model, kept) for model in ("intensity", "mind")}
    found = {model: hits(each) for model, each in costs.items()}
    figure, axes = panels(1, 4, ratio=1.0)
    chosen = telling(costs)
    for each, volume, points, title in (
        (axes[0, 0], pair.fixed, pair.fixed_points, "fixed: one place"),
        (axes[0, 1], pair.moving, pair.moving_points, "moving: where it is"),
    ):
        low, high = np.percentile(volume.data, [0.5, 99.5])
        grey = np.clip((volume.data[0].numpy() - low) / (high - low) * 255, 0, 255).astype(np.uint8)
        row, column = index_of(volume, points)[kept][chosen]
        show(each, grey, title)
        half = 2.5 * REACH
        each.set(xlim=(column - half, column + half), ylim=(row + half, row - half))
        window(each, row, column)
    for each, (model, title) in zip(axes[0, 2:], (("intensity", "by intensity"), ("mind", "by MIND-SSC")), strict=True):
        cost = costs[model][chosen].numpy()
        each.imshow(cost, cmap="viridis_r", interpolation="nearest")
        each.set_axis_off()
        each.set_title(f"{title}: right for {100 * found[model]:.0f} %", color=INK, fontsize=10.5, pad=4, loc="left")
        each.plot(REACH, REACH, "+", color=ORANGE, markersize=16, markeredgewidth=2)
        row, column = divmod(int(cost.argmin()), cost.shape[1])
        each.plot(column, row, "o", markeredgecolor="white", markerfacecolor="none", markersize=11, markeredgewidth=2)
    return figure


def hits(costs: torch.Tensor) -> float:
    """The share of the places whose best match lies within ``NEAR`` voxels of where they are."""
    best = costs.flatten(1).argmin(1)
    rows, columns = best // costs.shape[2] - REACH, best % costs.shape[2] - REACH
    return float(((rows**2 + columns**2) <= NEAR**2).float().mean())


def telling(costs: dict[str, torch.Tensor]) -> int:
    """The first place that features find and intensities do not."""
    pairs = zip(costs["mind"].split(1), costs["intensity"].split(1), strict=True)
    return next((number for number, (mind, grey) in enumerate(pairs) if hits(mind) > hits(grey)), 0)


def window(axes: Any, row: float, column: float) -> None:
    """A cross on a place and the box in which it is looked for."""
    x = [column - REACH, column + REACH, column + REACH, column - REACH, column - REACH]
    y = [row - REACH, row - REACH, row + REACH, row + REACH, row - REACH]
    axes.plot(x, y, color="white", linewidth=0.8)
    axes.plot(column, row, "+", color=ORANGE, markersize=12, markeredgewidth=2)


def index_of(volume: semreg.Volume, points: torch.Tensor) -> npt.NDArray[np.int64]:
    """The voxels (N, 2), row and column, nearest to points (N, 2) in mm."""
    matrix = np.asarray(volume.grid.point_to_index())
    return np.rint(points.double().numpy() @ matrix[:2, :2].T + matrix[:2, 2]).astype(np.int64)


def inner(pair: PhantomPair) -> npt.NDArray[np.bool_]:
    """Which landmarks lie so far inside of both images that all that is compared exists, (N,)."""
    kept = np.ones(len(pair.fixed_points), dtype=bool)
    for volume, points in ((pair.fixed, pair.fixed_points), (pair.moving, pair.moving_points)):
        index, margin = index_of(volume, points), REACH + PATCH // 2
        kept &= ((index >= margin) & (index < np.array(volume.grid.shape) - margin)).all(1)
    return kept


def costs_of(pair: PhantomPair, model: str, kept: npt.NDArray[np.bool_]) -> torch.Tensor:
    """What each landmark costs at each place within ``REACH`` of where it is, (N, 2·REACH + 1, 2·REACH + 1)."""
    fixed, moving = (semreg.extract(volume, model)[0].features.data for volume in (pair.fixed, pair.moving))
    here, there = index_of(pair.fixed, pair.fixed_points)[kept], index_of(pair.moving, pair.moving_points)[kept]
    half, wide = PATCH // 2, REACH + PATCH // 2
    costs = []
    for (row, column), (down, right) in zip(here, there, strict=True):
        own = fixed[:, row - half : row + half + 1, column - half : column + half + 1]
        near = moving[:, down - wide : down + wide + 1, right - wide : right + wide + 1]
        patches = near.unfold(1, PATCH, 1).unfold(2, PATCH, 1)
        costs.append((patches - own[:, None, None]).square().sum(0).mean((-2, -1)))
    return torch.stack(costs)


def errors_mm(pair: PhantomPair, field: semreg.Field) -> tuple[float, float]:
    """The mean distance of the landmarks in mm, before and after."""
    moved = field.point_map()(pair.fixed_points.T).T
    before, after = ((points - pair.moving_points).norm(dim=1).mean() for points in (pair.fixed_points, moved))
    return float(before), float(after)


def panels(rows: int, columns: int, ratio: float) -> tuple[Figure, Any]:
    """A card of panels, each ``ratio`` times as high as it is wide, with room for a title above each."""
    gap, title = 0.09, 0.27
    width = (WIDTH_IN - gap * (columns + 1)) / columns
    height = rows * (width * ratio + title + gap) + gap
    figure = Figure(figsize=(WIDTH_IN, height), facecolor=CARD)
    FigureCanvasAgg(figure)
    axes = np.empty((rows, columns), dtype=object)
    for row in range(rows):
        for column in range(columns):
            left, bottom = gap + column * (width + gap), height - (row + 1) * (width * ratio + title + gap)
            box = (left / WIDTH_IN, bottom / height, width / WIDTH_IN, width * ratio / height)
            axes[row, column] = figure.add_axes(box)
    return figure, axes


def show(axes: Any, picture: Bytes, title: str) -> None:
    """A picture that fills its panel, under its title."""
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="lanczos")
    axes.set_axis_off()
    axes.set_title(title, color=INK, fontsize=10.5, pad=4, loc="left")


def outline(axes: Any, picture: Bytes) -> None:
    """The borders of what is bright and of what is very bright in a picture."""
    smooth = gaussian_filter(picture.astype(float), 1.2)
    axes.contour(smooth, levels=[70, 215], colors=[ORANGE], linewidths=0.9)


def arrows(axes: Any, stacks: Stacks, plane: Plane, number: int) -> None:
    """From points of the fixed image to where they lie in the moving one, to scale."""
    vectors = stacks.vectors  # mm along z, y, x on a coarser lattice
    counts = vectors.shape[1:]
    chosen = min(round(number * counts[plane.across] / stacks.shape[plane.across]), counts[plane.across] - 1)
    down, right = (np.take(vectors[k], chosen, axis=plane.across)[::2, ::2] for k in (plane.rows, plane.columns))
    steps = [stacks.shape[k] / counts[k] for k in (plane.rows, plane.columns)]
    rows, columns = ((np.arange(n) * 2 + 0.5) * step - 0.5 for n, step in zip(down.shape, steps, strict=True))
    if plane.upwards:
        rows, down = stacks.shape[plane.rows] - 1 - rows, -down
    down, right = down / stacks.spacing[plane.rows], right / stacks.spacing[plane.columns]
    options = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "width": 0.006, "color": ORANGE}
    axes.quiver(*np.meshgrid(columns, rows), right, down, **options)


def over(axes: Any, chosen: Map, plane: Plane, colours: str, body: npt.NDArray[np.float32]) -> Any:
    """A map over the picture of its panel, within the body and where it is known."""
    levels = plane.cut(chosen.stack, chosen.stack.shape[plane.across] // 2)
    values = chosen.low + (np.maximum(levels, 1) - 1.0) / 254 * (chosen.high - chosen.low)
    fine = zoom(
        values, [n / m for n, m in zip(body.shape, values.shape, strict=True)], order=1, grid_mode=True, mode="nearest"
    )
    values = np.where(body > 0.5, fine, np.nan)
    return axes.imshow(values, cmap=colours, vmin=chosen.low, vmax=chosen.high, alpha=0.75, aspect="auto")


def key(axes: Any, shown: Any, ticks: list[float], words: list[str]) -> None:
    """The scale of a map, inside of its panel."""
    inset = axes.inset_axes((0.06, 0.05, 0.3, 0.03))
    bar = axes.figure.colorbar(shown, cax=inset, orientation="horizontal", ticks=ticks)
    bar.ax.xaxis.set_ticks_position("top")
    bar.ax.set_xticklabels(words, color=INK, fontsize=9)
    bar.ax.tick_params(length=0, pad=1)
    bar.outline.set_visible(False)


def save(figure: Figure, path: Path, dpi: int) -> None:
    """As PNG with a palette, a quarter of the size and hardly to be told from all colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    picture = Image.open(buffer).convert("RGB").quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


if __name__ == "__main__":
    main()
