"""The reasons of a plan as data: what was chosen and why, a sentence each, lengths in mm. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from semreg.config import RegistrationConfig
from semreg.core.geometry import Grid, canonical_order
from semreg.preprocess.preparation import CUBIC, MOST_VOXELS, Frame
from semreg.registration.dense.coarse import Level
from semreg.registration.dense.held_out import DIFFUSION
from semreg.registration.dense.keypoints import MOST_POINTS
from semreg.registration.dense.refine import LONG
from semreg.registration.matching import Pairing
from semreg.registration.plan.defaults import MOST_PIXELS, control_spacing, distances, is_small
from semreg.registration.plan.image_facts import ImageFacts, shares

KINDS = {
    "ct": "looks like CT in Hounsfield units, with air near −1000",
    "mask": "looks like a mask, two values",
    "labels": "looks like labels, few values in pieces",
    "picture": "looks like a picture of 8 bits",
    "grey": "is of grey values, neither CT nor labels",
}
MODALITIES = {"ct": "CT", "mr": "MR", "other": "neither CT nor MR"}
THICK = 2.5
"""Ratio of spacings from which slices are called thick."""
COARSER = 1.5
"""Ratio of the spacings of two images along one axis from which one is called coarser."""
LITTLE = 0.5
"""Share of an image's box below which the overlap is called little."""
TINY = 20
"""Voxels an axis below which an image tells little."""


Topic: TypeAlias = Literal["images", "align", "frame", "features", "keypoints", "coarse", "refine", "fine", "memory"]
"""What a reason is about: the images, the stage of that name, the working grids, or the memory."""


@dataclass(frozen=True)
class Reason:
    """One decision: what it is about, and the sentence that says what was chosen and why."""

    about: Topic
    sentence: str


@dataclass(frozen=True)
class FurtherPair:
    """One contrast beside the first pair."""

    images: tuple[ImageFacts, ImageFacts]
    weight: float
    pairings: tuple[Pairing, ...]


@dataclass(frozen=True)
class Story:
    """All that the sentences are about."""

    fixed: ImageFacts
    moving: ImageFacts
    given: RegistrationConfig
    chosen: RegistrationConfig
    """What was decided from ``given``."""
    ample: RegistrationConfig
    """What would have been decided with memory in plenty."""
    frame: Frame
    levels: tuple[Level, ...]
    initial: bool
    further: tuple[FurtherPair, ...] = ()


def of_images(story: Story) -> Iterator[Reason]:
    """What the images are and how their headers put them together."""
    return (Reason("images", sentence) for sentence in _of_images(story))


def _of_images(story: Story) -> Iterator[str]:
    fixed, moving = story.fixed, story.moving
    for name, image in (("fixed", fixed), ("moving", moving)):
        kind = "" if image.kind is None else f" and {_kind(image)}"
        grid = image.grid
        yield f"The {name} image has {_size(grid)} {_elements(image)} of {_lengths(grid.spacing_xyz)} mm{kind}."
    yield from _consequences(fixed, moving)
    if story.given.intensities.body:
        yield "What lies around the body, as table and air, does not count, as set."
    if fixed.spacing_xyz == moving.spacing_xyz:
        yield from _thickness("Both images'", fixed)
    else:
        yield from _thickness("The fixed image's", fixed)
        yield from _thickness("The moving image's", moving)
    yield from _coarser_axes(fixed, moving)
    yield from _overlap(story)
    yield from _further(story)


def _kind(image: ImageFacts) -> str:
    """What the image is, and who says so."""
    known = image.recognised
    if known is None or known.source == "values":
        return KINDS[image.kind or "grey"]
    what = MODALITIES[known.modality]
    return f"is {what} {'as set' if known.source == 'settings' else 'by its DICOM header'}"


def _consequences(fixed: ImageFacts, moving: ImageFacts) -> Iterator[str]:
    kinds = {fixed.kind, moving.kind}
    if kinds <= {"mask", "labels"} and None not in kinds:
        yield (
            "Both images hold labels: only their borders can be matched, and inside them the displacement is smooth; "
            "the images they were drawn on would tell more."
        )
    elif kinds & {"mask", "labels"}:
        yield "One image holds labels and the other does not: only borders can be matched; is it the right file?"


def _thickness(whose: str, image: ImageFacts) -> Iterator[str]:
    spacing = image.spacing_xyz
    ratio = max(spacing) / min(spacing)
    if ratio >= THICK:
        axis = "xyz"[spacing.index(max(spacing))]
        yield (
            f"{whose} voxels are {ratio:.1f} times longer along {axis} ({max(spacing):.3g} mm) than across "
            f"({min(spacing):.3g} mm): values between them are interpolated, and what is thinner than "
            f"{max(spacing):.3g} mm along {axis} cannot be matched."
        )


def _coarser_axes(fixed: ImageFacts, moving: ImageFacts) -> Iterator[str]:
    """Axes along which the moving image tells much less than the fixed one; the other way round nothing is lost."""
    for axis, ours, theirs in zip("xyz", fixed.spacing_xyz, moving.spacing_xyz, strict=False):
        if theirs >= COARSER * ours:
            yield (
                f"The moving image is coarser along {axis} ({theirs:.3g} mm against {ours:.3g} mm): along {axis} the "
                f"displacement is known to a part of {theirs:.3g} mm only."
            )


def _overlap(story: Story) -> Iterator[str]:
    if story.initial:
        yield "The images lie as the initial transform says."
        return
    ours, theirs = shares(story.fixed.grid, story.moving.grid)
    if not ours:
        yield "By their headers the images do not overlap at all: only an alignment can bring them together."
    elif min(ours, theirs) > 1 - 1e-9:
        yield "By their headers both images show the same box."
    else:
        where = f"the boxes share {100 * ours:.0f} % of the fixed and {100 * theirs:.0f} % of the moving image"
        little = max(ours, theirs) < LITTLE
        if little:
            yield f"By their headers {where}, which is little: look at the result."
        elif ours < LITTLE:
            yield f"By their headers {where}: in the rest of the fixed image the displacement is only continued."
        else:
            yield f"By their headers {where}."


def _further(story: Story) -> Iterator[str]:
    """What is compared beside the first pair."""
    for number, pair in enumerate(story.further, start=1):
        near, far = (f"{_size(image.grid)} {_elements(image)}" for image in pair.images)
        names = " and ".join(dict.fromkeys(pairing.name for pairing in pair.pairings))
        yield (
            f"Contrast {number}, a fixed image of {near} and a moving one of {far}, is compared by {names}, and counts "
            f"{pair.weight:.3g} where the first pair counts 1."
        )


def of_settings(story: Story) -> Iterator[Reason]:
    """The grids, the search and the refinement."""
    yield Reason("align", _alignment(story))
    yield Reason("frame", _reading(story))
    yield Reason("features", _features(story))
    yield from (Reason("refine", sentence) for sentence in _axes(story))
    yield from (Reason("refine", sentence) for sentence in _ensemble(story))
    yield from (Reason("keypoints", sentence) for sentence in _keypoints(story))
    searched = "There is no search, as set: the refinement starts where the images lie."
    yield Reason("coarse", _search(story) if story.chosen.coarse.enabled else searched)
    yield Reason("refine", _refinement(story) if story.chosen.refine.enabled else "There is no refinement, as set.")
    yield from (Reason("fine", sentence) for sentence in _fine(story))
    if min(n for n in story.fixed.grid.shape if n > 1 or story.fixed.grid.voxels == 1) < TINY:
        yield Reason(
            "images",
            f"The fixed image has fewer than {TINY} {_elements(story.fixed)} along an axis: "
            "there is little to go by, look at the result.",
        )


def _alignment(story: Story) -> str:
    align = story.chosen.align
    if align.transform == "none":
        return "There is no alignment, as set."
    if story.initial:
        stands = ", which stands where nothing near it matches clearly better" if align.transform == "auto" else ""
        return (
            f"The alignment is not searched for but starts from the initial transform{stands}; one that is not linear "
            "is taken as it is."
        )
    turned = f"turned by up to {align.largest_rotation_deg(story.fixed.grid.dimension):.3g}°, "
    if align.transform == "auto":
        return (
            f"First an alignment is looked for, {turned}rigid or, where that matches clearly better, affine; "
            "one that is not clearly better than the headers is left out."
        )
    turned = "" if align.transform == "translation" else turned
    return f"First an alignment is looked for, {turned}{align.transform}, as set."


def _reading(story: Story) -> str:
    spacing = story.chosen.features.spacing_mm or 0.0
    best = story.ample.features.spacing_mm or 0.0
    fixed = story.fixed.grid
    finest = min(fixed.spacing)
    if story.given.features.spacing_mm is not None:
        why = "as set"
    elif spacing > CUBIC * best:
        why = f"coarser than the {best:.3g} mm that this image deserves, to fit in memory"
    elif spacing <= CUBIC * finest:
        why = "the fixed image's smallest spacing"
    elif fixed.dimension == 2:
        why = f"so that the fixed image has no more than {MOST_PIXELS / 1e6:.1f} million pixels"
    elif fixed.voxels >= MOST_VOXELS / 4:
        why = f"so that the fixed image has no more than {MOST_VOXELS / 1e6:.0f} million voxels"
    else:
        why = f"a compromise: {finest:.3g} mm along all axes would be many more voxels than were measured"
    elements = "square pixels" if fixed.dimension == 2 else "cubic voxels"
    sizes = f"{_size(story.frame.fixed)} of the fixed and {_size(story.frame.moving)} of the moving image"
    return f"Both images are read in {elements} of {spacing:.3g} mm, {sizes}: {why}."


def _features(story: Story) -> str:
    chosen, given, fixed = story.chosen, story.given, story.fixed.grid
    pooling, spacing = chosen.features.pooling or 1, chosen.features.spacing_mm or 0.0
    names = " and ".join(dict.fromkeys(model.model for model in chosen.models))
    if given.features.pooling is not None:
        why = "as set"
    elif pooling != story.ample.features.pooling:
        why = "less dense than usual, to fit in memory"
    elif is_small(fixed, spacing):
        why = "the image is small, so they are kept at full resolution"
    else:
        why = "at full resolution so large an image would take several times as long for little"
    return f"Features of {names} are averaged over blocks of {pooling * spacing:.3g} mm: {why}."


def _axes(story: Story) -> Iterator[str]:
    """Along which axes alone points move."""
    axes = story.chosen.refine.axes
    if not axes:
        return
    grid = story.fixed.grid
    columns = canonical_order(grid).order[::-1]  # in the order x, y, z
    named = []
    for name in axes:
        column = grid.dimension - 1 - columns["xyz".index(name)]
        direction = ", ".join(f"{row[column]:.2f}" for row in grid.direction)
        named.append(f"{name} ({'ijk'[column]} of the fixed image's array, direction {direction})")
    only = " and ".join(named)
    yield f"The deformation moves points along {only} alone, as set; an alignment is free of that."


def _ensemble(story: Story) -> Iterator[str]:
    """What several registrations cost."""
    config = story.chosen.ensemble
    if config.count > 1:
        by = f", {len(config.models)} of them by {' and '.join(config.models)} alone" if config.models else ""
        yield (
            f"{config.count} registrations on shifted lattices{by} are averaged, as set: search and refinement take "
            f"about {config.count} times as long."
        )


def _keypoints(story: Story) -> Iterator[str]:
    """How far points that correspond are looked for."""
    chosen, given = story.chosen.keypoints, story.given.keypoints
    if chosen.enabled:
        why = "half as far again as the search" if given.reach_mm is None else "as set"
        yield (
            f"Up to {MOST_POINTS} distinctive points of the fixed image are looked for within {chosen.reach_mm:.3g} mm "
            f"{_along(story)} ({why}) in the moving one; those that the way back confirms lead the search, as set."
        )


def _along(story: Story) -> str:
    """Where points are free to move."""
    axes = story.chosen.refine.axes
    return f"along {' and '.join(axes)}" if axes else "along each axis"


def _search(story: Story) -> str:
    levels = story.levels
    reach = sum(level.reach_mm for level in levels)
    given = story.given.coarse
    extent = min(story.fixed.grid.extent_mm)
    where = _along(story)
    apart = f"on nodes {', then '.join(f'{level.spacing_mm:.3g}' for level in levels)} mm apart"
    both = "in both directions " if story.chosen.coarse.inverse_consistency else ""
    if given.levels is not None:
        why = "as the levels that were set reach"
    elif given.reach_mm is not None:
        rounded = f", rounded up to whole nodes: {reach:.3g} mm" if reach > given.reach_mm + 1e-6 else ""
        return f"The search {both}goes up to {given.reach_mm:.3g} mm {where} as set{rounded}, {apart}."
    elif story.fixed.grid.dimension == 2 and not is_small(story.fixed.grid, story.chosen.features.spacing_mm or 1.0):
        why = f"a twelfth of the shortest extent, {extent:.3g} mm, in whole nodes"
    elif extent < 60:
        why = f"half the shortest extent, {extent:.3g} mm, in whole nodes"
    else:
        why = "30 mm, about what breathing and posture do, in whole nodes"
    return f"The search {both}goes up to {reach:.3g} mm {where} ({why}), {apart}."


def _refinement(story: Story) -> str:
    refine = story.chosen.refine
    if story.given.refine.symmetric is not None:
        why = "as set"
    elif refine.symmetric:
        why = "whose mean errs less than either"
    elif story.ample.refine.symmetric:
        why = "to fit in memory"
    else:
        why = "as features are computed again"
    ways = "in both directions" if refine.symmetric else "in one direction"
    levels = 1 if refine.mode == "jacobian" else refine.levels
    resolutions = f"{levels} resolution{'s' if levels > 1 else ''}"
    return (
        f"The refinement, {ways} ({why}){_mode(story.chosen)}, moves control points {_apart(story.chosen)}, "
        f"at most {refine.steps} steps on each of {resolutions}, by the distance "
        f"{distances(story.chosen)}. {_beside(story)}{_weight(story)}"
    )


def _apart(config: RegistrationConfig) -> str:
    """How far apart the control points are."""
    near, far = (control_spacing(config, one_contrast=one) for one in (True, False))
    if near == far:
        return f"{near:.3g} mm apart"
    return f"{near:.3g} mm apart ({far:.3g} mm where both turn out to differ in contrast after the search)"


def _beside(story: Story) -> str:
    """What is compared beside the models."""
    weight = story.chosen.refine.local_correlation
    if not weight:
        return ""
    return (
        f"Beside them it compares the intensities by their local correlation, squared, with the weight {weight:.3g}. "
    )


def _weight(story: Story) -> str:
    """How the smoothness is weighed against the match."""
    refine = story.chosen.refine
    if refine.diffusion is not None:
        return f"The weight of its smoothness is {refine.diffusion:.3g}, as set."
    if refine.iterations is not None:
        return f"The weight of its smoothness is {DIFFUSION:.3g}."
    return (
        f"The weight of its smoothness is {DIFFUSION:.3g}, or more, with at most {LONG} steps, where that "
        "predicts samples better that are held out of trials."
    )


def _fine(story: Story) -> Iterator[str]:
    """The last descent, on the intensities."""
    fine, ample = story.chosen.fine, story.ample.fine
    if fine.enabled is False:
        if ample.enabled is not False:
            yield "Intensities are not compared at full resolution in the end, to fit in memory."
        return
    when = "Last" if fine.enabled else "Last, where both images turn out to brighten and darken alike"
    yield (
        f"{when}, their intensities are compared at full resolution by squared local correlation: control points "
        f"{fine.control_mm or 0.0:.3g} mm apart, at most {fine.iterations} steps, weight of the smoothness of what is "
        f"added {fine.diffusion:.3g}{', as set' if fine.enabled else ''}."
    )


def _mode(config: RegistrationConfig) -> str:
    if config.refine.mode == "jacobian":
        return ", through the network"
    return f", with features renewed every {config.refine.update_every} steps" if config.refine.update_every else ""


def memory(wanted: int, needed: int, usable: int, output: int, device: str) -> Reason:
    """What it takes, of what there is, and what to do where that is too little."""
    return Reason("memory", _memory(wanted, needed, usable, output, device))


def _memory(wanted: int, needed: int, usable: int, output: int, device: str) -> str:
    there = f"about {needed / 1e9:.2g} GB of the {usable / 1e9:.2g} GB that may be used ({device})"
    if needed > usable:
        whole = 2 * output > needed
        advice = "crop the fixed image" if whole else "set features.spacing_mm larger, or crop the fixed image"
        return f"It takes {there}, which is too much: {advice}."
    if needed < wanted:
        return f"It takes {there}; with finer settings it would have taken {wanted / 1e9:.2g} GB."
    return f"It takes {there}."


def _elements(image: ImageFacts) -> str:
    return "pixels" if image.grid.dimension == 2 else "voxels"


def _size(grid: Grid) -> str:
    return " × ".join(map(str, grid.size_xyz))


def _lengths(values: tuple[float, ...]) -> str:
    return " × ".join(f"{value:.3g}" for value in values)
