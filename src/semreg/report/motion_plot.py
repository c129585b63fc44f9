"""The motion in a series over time as a figure: how far each frame is from the one before, and where all are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from semreg.registration.motion import FrameMotion
from semreg.report.panels import figure_of, plain, save

COLOURS = (("#0b5cad", "-"), ("#e8862a", "--"), ("#555b66", "-."))
"""Colours and kinds of line of x, y and z."""
SIZE_IN = (7.0, 6.0)


def write_motion_plot(frames: Sequence[FrameMotion], path: Path, *, dpi: int = 150) -> None:
    """Write the figure as PNG: framewise displacement, shift, rotation and deformation, one below the other."""
    figure = figure_of(SIZE_IN, "constrained")
    numbers = [each.frame for each in frames]
    axes = figure.subplots(4, 1, sharex=True)
    curves = (
        ("framewise, mm", [("", [each.framewise_mm for each in frames])]),
        ("shift, mm", _components([each.shift_mm for each in frames], "xyz")),
        ("rotation, °", _components([each.rotation_deg for each in frames], "xyz")),
        ("deformation, mm", [("", [each.deformation_mm for each in frames])]),
    )
    for axis, (title, lines) in zip(axes, curves, strict=True):
        for (colour, kind), (name, values) in zip(COLOURS, lines, strict=False):
            axis.plot(numbers, values, kind, color=colour, label=name, linewidth=1.2)
        plain(axis, "frame" if axis is axes[-1] else "", title)
        if len(lines) > 1:
            axis.legend(loc="upper right", ncols=len(lines), frameon=False)
    save(figure, path, dpi)


def _components(vectors: Sequence[tuple[float, ...]], names: str) -> list[tuple[str, list[float]]]:
    count = len(vectors[0])
    return [(names[i] if count > 1 else "", [vector[i] for vector in vectors]) for i in range(count)]
