"""All measures of one transform: what is given is measured, the rest is left out. Does not know how it was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semreg.core.fields import Field
from semreg.core.geometry import Grid
from semreg.errors import ConfigError
from semreg.io.bridge import LabelMap
from semreg.quality.config import EvaluationConfig
from semreg.quality.deformation import (
    Region,
    consistency,
    displacement_statistics,
    jacobian_statistics,
    moved_by,
    share_inside,
)
from semreg.quality.image_similarity import similarity_table
from semreg.quality.landmarks import LandmarkErrors, outside, table_of_landmarks
from semreg.quality.overlap import notes_on_labels, table_of_labels
from semreg.quality.result import Evaluation, Share
from semreg.quality.subject import Subject, check_dimension, labels_of, prepare
from semreg.transforms import Outside
from semreg.transforms.pointwise import checked_points


def evaluate(  # noqa: PLR0913 - a transform and all that it can be held against
    transform: Any,
    *,
    fixed: Any | None = None,
    moving: Any | None = None,
    landmarks: Sequence[Any] | None = None,
    labels: Sequence[Any] | None = None,
    fixed_mask: Any | None = None,
    initial: Any | None = None,
    inverse: Any | None = None,
    label_names: Mapping[int, str] | None = None,
    config: EvaluationConfig | None = None,
) -> Evaluation:
    """Measure how good a transform is, before (``initial``) and after, side by side.

    What is not given is not measured. The measures and their sources: ``docs/measures.md``.

    Args:
        transform: fixed → moving in mm: a SimpleITK transform, a Field, a result of ``register`` or ``align``, a file
            of any tool, or a list of these, the first applied first.
        fixed: the fixed image: anything ``semreg.to_volume`` takes, or a file.
        moving: the moving image.
        landmarks: fixed and moving points (N, D) in mm, LPS, the n-th ones corresponding, and their names if they have
            any.
        labels: the label maps of the fixed and of the moving image, objects or files.
        fixed_mask: the voxels of the fixed image that count for the deformation and the similarity; None: all.
        initial: what to compare with, given as ``transform`` is; None: the identity.
        inverse: the way back, moving → fixed, given as ``transform`` is; None: that of a result of ``register``.
        label_names: label → name.
        config: what may be chosen of the measures. None: the defaults.

    Returns:
        The measures; lengths in mm, None for what could not be measured.

    Raises:
        ImageError: for an image, mask or label map that cannot be used, and for label maps without a common label.
        GeometryError: for what has another dimension than the transform, for numbers of landmarks that differ, and for
            a fixed image outside of the box of the transform.
        ConfigError: for landmarks or labels that are not two, a mask without its image, and an inverse without a grid.
    """
    maps = None if labels is None else _two(labels, "label maps")
    volumes = None if maps is None else (labels_of(maps[0], "fixed"), labels_of(maps[1], "moving"))
    subject = prepare(
        transform, fixed=fixed, moving=moving, fixed_mask=fixed_mask, initial=initial, inverse=inverse,
        grid=None if volumes is None else volumes[0].grid,
        outside=Outside((config or EvaluationConfig()).outside),
    )  # fmt: skip
    return measure(subject, landmarks=landmarks, labels=volumes, label_names=label_names, config=config)


def measure(
    subject: Subject,
    *,
    landmarks: Sequence[Any] | None = None,
    labels: tuple[LabelMap, LabelMap] | None = None,
    label_names: Mapping[int, str] | None = None,
    config: EvaluationConfig | None = None,
) -> Evaluation:
    """The measures of what ``prepare`` returned; see ``evaluate``.

    Args:
        subject: the transform, the images and the mask.
        landmarks: fixed and moving points (N, D) in mm, LPS, and their names if they have any.
        labels: the label maps of the fixed and of the moving image.
        label_names: label → name.
        config: what may be chosen of the measures. None: the defaults.

    Returns:
        The measures; lengths in mm, None for what could not be measured.

    Raises:
        GeometryError: for landmarks or label maps of another dimension, and for numbers of landmarks that differ.
        ImageError: for label maps without a common label.
        ConfigError: for landmarks that are not two sets.
    """
    config = config or EvaluationConfig()
    field, counted = subject.field, subject.counted
    region: Region = "image" if subject.mask is None else "mask"
    notes: list[str] = []
    if subject.left_out is not None:
        share = 100 * float(subject.left_out.double().mean())
        notes.append(
            f"{share:.3g} % of the voxels are left out: they lie outside of the box of the transform or beside it."
        )
    points = None if landmarks is None else _landmarks(subject, landmarks, notes)
    overlaps = None
    if labels is not None:
        for volume, name in zip(labels, ("fixed", "moving"), strict=True):
            check_dimension(subject.way, volume.grid, f"{name} label map")
        overlaps = table_of_labels(
            *labels, _fields_on(subject, labels[0].grid), names=label_names, tolerance_mm=config.tolerance_mm,
            left_out=subject.way.coverage(labels[0].grid).beyond,
        )  # fmt: skip
        notes += notes_on_labels(overlaps)
    shares = None
    if field is not None and subject.moving is not None:
        before, after = (
            share_inside(field.grid, each, subject.moving.grid, counted) for each in (subject.before, field)
        )
        shares = Share(before=before, after=after)
    likeness = None
    if config.similarity and field is not None and subject.fixed is not None and subject.moving is not None:
        likeness = similarity_table(subject.fixed, subject.moving, (subject.before, field), counted, config)
        if likeness is None:
            notes.append("The moving image shows nothing of what counts of the fixed image after the transform.")
    return Evaluation(
        landmarks=points,
        labels=overlaps,
        jacobian=None if field is None else jacobian_statistics(field, counted, region),
        displacement=None if field is None else displacement_statistics(field, counted),
        deformation=None
        if field is None or (linear := subject.way.linear) is None
        else displacement_statistics(moved_by(field, np.asarray(np.linalg.inv(linear))), counted),
        overlap=shares,
        similarity=likeness,
        consistency=None if field is None or subject.inverse is None else consistency(field, subject.inverse),
        notes=tuple(notes),
    )


def _two(given: Sequence[Any], what: str) -> tuple[Any, Any]:
    if isinstance(given, (str, bytes)) or len(given) != 2:
        raise ConfigError(f"expected two {what}, of the fixed and of the moving image, got {len(given)}: give both")
    return given[0], given[1]


def _landmarks(subject: Subject, landmarks: Sequence[Any], notes: list[str]) -> LandmarkErrors:
    fixed, moving = _two(landmarks[:2], "sets of landmarks")
    names = landmarks[2] if len(landmarks) > 2 else None
    beyond = subject.way.beyond(checked_points(fixed, "fixed", subject.way.dimension))
    if beyond.any():
        left_out = subject.way.outside is Outside.BACKGROUND
        told = "are left out" if left_out else "are counted all the same"
        notes.append(f"{int(beyond.sum())} fixed landmarks lie outside of the box of the transform and {told}.")
        if left_out and len(fixed) == len(moving):
            fixed, moving = (np.asarray(points)[~beyond] for points in (fixed, moving))
            names = names and [name for name, lost in zip(names, beyond, strict=True) if not lost]
    table = table_of_landmarks(subject.way, subject.initial, (fixed, moving), names)
    sides = (
        ("fixed", subject.grid, [point.fixed for point in table.points]),
        ("moving", None if subject.moving is None else subject.moving.grid, [point.moving for point in table.points]),
    )
    for name, grid, points in sides:
        lost = 0 if grid is None else outside(points, grid)
        if lost:
            notes.append(f"{lost} of {table.count} {name} landmarks lie outside of the {name} image.")
    return table


def _fields_on(subject: Subject, grid: Grid) -> tuple[Field | None, Field | None]:
    """The initial transform and the transform on ``grid``."""
    if subject.field is not None and subject.field.grid == grid:
        return subject.before, subject.field
    return (None if subject.initial is None else subject.initial.on(grid)), subject.way.on(grid)
