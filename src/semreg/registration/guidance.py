"""What is known beside two images, points that correspond and labels: it guides the deformation as terms of its own."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from semreg.core.fields import Field, Layer, Volume
from semreg.core.geometry import Grid, Matrix
from semreg.core.sampling import smooth
from semreg.errors import ConfigError, GeometryError
from semreg.features.inference import Options, labels_of, load
from semreg.features.models import folders_of
from semreg.io.bridge import LabelMap, to_labels
from semreg.io.bridge.kinds import ImageLike
from semreg.io.images import read_labels
from semreg.preprocess.image_pair import Cleaned
from semreg.preprocess.preparation import to_frame
from semreg.registration.dense.correspondences import Correspondences, in_frame
from semreg.registration.dense.terms import Term
from semreg.runtime.memory import SHARE, available_bytes
from semreg.transforms.base import Points as PointArray
from semreg.transforms.pointwise import Distances, ErrorSummary, checked_points

LABEL_BLUR = 2
"""How many times a map of a label is averaged over 3 feature voxels: a border then pulls before it is reached."""

COPIES = 3
"""How often the map of a label is held at once: as it is made, and laid out for the search and for the descent."""

Labels: TypeAlias = tuple[ImageLike | LabelMap, ImageLike | LabelMap]
Folders: TypeAlias = Sequence[str | Path] | str | Path


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """What guides a deformation beside the images.

    Args:
        landmarks: points of the fixed and of the moving image, (N, D) each in mm, LPS; the n-th ones belong together.
        landmark_sd_mm: how far a point may be off along each axis, one standard deviation in mm, or one for each, (N,).
        labels: label maps of the fixed and of the moving image, on grids of their own; 0 is no label.
        segment: in place of ``labels`` a network that segments both images: a file, a name or an object, as for
            ``semreg.infer``. Its classes guide; class 0 is no label.
        segment_spec: values that replace those of its description, as ``name=value``.
        label_weight: how much the labels count beside the models, whose weights mostly are 1.
        weights: of single labels, beside each other; 1 for those that are not named.
    """

    landmarks: tuple[npt.ArrayLike, npt.ArrayLike] | None = None
    landmark_sd_mm: float | npt.ArrayLike = 2.0
    labels: Labels | None = None
    segment: Any | None = None
    segment_spec: tuple[str, ...] = ()
    label_weight: float = 1.0
    weights: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LandmarkResidual:
    """How far the landmarks that guided are from where they should be, in mm: no proof, the result was made so."""

    count: int
    before: ErrorSummary
    after: ErrorSummary
    contradicted: int
    """How many are off by more than three standard deviations, each of its axes by that: what all else contradicts."""


@dataclass(frozen=True, kw_only=True)
class KeypointReport:
    """The points that were found by the images alone, and how well the result obeys them."""

    looked: int
    """Distinctive points of the fixed image that were looked for."""
    kept: int
    """Those whose partners the way back confirms."""
    residual: LandmarkResidual | None
    """How far these are from their partners; None: there are none."""

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        found = f"Of {self.looked} distinctive points {self.kept} were found in the moving image"
        if self.residual is None:
            return f"{found}: the images alone decide, as without keypoints."
        before, after = self.residual.before, self.residual.after
        return f"{found}; the mean distance of these pairs went from {before.mean_mm:.2f} to {after.mean_mm:.2f} mm."


@dataclass(frozen=True, kw_only=True)
class LabelUse:
    """Which labels guided."""

    shared: tuple[int, ...]
    fixed_only: tuple[int, ...] = ()
    moving_only: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GuidanceReport:
    """What guided, and how well the result obeys it."""

    landmarks: LandmarkResidual | None = None
    labels: LabelUse | None = None
    keypoints: KeypointReport | None = None


@dataclass(frozen=True)
class KnownPoints:
    """Points of both images that correspond: landmarks that were checked, or found ones."""

    fixed: PointArray
    """(D, N) in mm."""
    moving: PointArray
    sd_mm: Distances

    def in_frame(self, grid: Grid, start: Field | None, linear: Matrix | None) -> Correspondences:
        """The points where the moving image is read through a start; ``linear`` is its matrix, where it has one."""
        fixed, moving, sd = (torch.from_numpy(each) for each in (self.fixed, self.moving, self.sd_mm))
        return in_frame(fixed, moving, sd, grid, start, linear)

    def residual(self, before: PointArray, after: PointArray) -> LandmarkResidual:
        """How well maps of the fixed points, (D, N) each, meet the moving ones."""
        errors = [np.sqrt(((mapped - self.moving) ** 2).sum(0)) for mapped in (before, after)]
        off = errors[1] > 3 * self.sd_mm * np.sqrt(len(self.fixed))
        return LandmarkResidual(
            count=len(self.sd_mm),
            before=ErrorSummary.of(errors[0]),
            after=ErrorSummary.of(errors[1]),
            contradicted=int(off.sum()),
        )


@dataclass(frozen=True)
class KnownLabels:
    """Label maps that were checked."""

    fixed: LabelMap
    moving: LabelMap
    use: LabelUse
    weight: float
    weights: Mapping[int, float]

    def term(self, grids: tuple[Grid, Grid], start: Field | None, pooling: int, device: torch.device) -> Term:
        """One channel a label, its share of each sample, on the working ``grids`` pooled; labels count everywhere.

        Raises ConfigError where the maps of so many labels do not fit into memory.
        """
        samples = sum(grid.pooled(pooling).voxels for grid in grids)
        needed, room = COPIES * 4 * samples * len(self.use.shared), SHARE * available_bytes()
        if needed > room:
            raise ConfigError(
                f"expected labels whose maps fit into {room / 1e9:.2g} GB of memory, got {len(self.use.shared)} labels "
                f"that take {needed / 1e9:.2g} GB: keep those that matter, or raise features.spacing_mm"
            )
        fixed = self._layer(self.fixed, grids[0], None, pooling, device)
        moving = self._layer(self.moving, grids[1], start, pooling, device)
        return Term(fixed, moving, distance="l2", share=self.weight, given=True)

    def _layer(self, labels: LabelMap, grid: Grid, start: Field | None, pooling: int, device: torch.device) -> Layer:
        """The maps of all labels of one image."""
        maps = [self._share(labels, label, grid, start, pooling) for label in self.use.shared]
        return Layer(Volume(torch.cat(maps).to(device), grid.pooled(pooling)), None)

    def _share(self, labels: LabelMap, label: int, grid: Grid, start: Field | None, pooling: int) -> torch.Tensor:
        """The share of a label of each sample, smooth, times the root of its weight; (1, *S)."""
        mask = Volume((labels.numbers.data == labels.labels.index(label)).float(), labels.grid)
        seen = to_frame(mask, None, grid, None if start is None else start.on(grid))
        share = seen.volume.data if seen.weight is None else seen.volume.data * (seen.weight.data > 0)
        pooled = Layer(Volume(share, grid), None).pooled(pooling).features.data
        return smooth(pooled, passes=LABEL_BLUR).mul_(math.sqrt(self.weights.get(label, 1.0)))


def sentences(guidance: Guidance) -> list[str]:
    """What guides, as far as it is known before the images are looked at."""
    said = []
    if guidance.landmarks is not None:
        said.append(f"{len(np.asarray(guidance.landmarks[0]))} landmarks guide the deformation")
    if guidance.segment is not None:
        name = guidance.segment if isinstance(guidance.segment, (str, Path)) else "a network"
        said.append(f"{name} segments both images, and its classes guide")
    labels = checked_labels(guidance, None)
    if labels is not None:
        use = labels.use
        said.append(f"labels that guide: {_few(use.shared)}")
        for name, alone in (("fixed", use.fixed_only), ("moving", use.moving_only)):
            said += [f"labels in the {name} image only, left out: {_few(alone)}"] if alone else []
    return said


def checked_landmarks(guidance: Guidance, dimension: int) -> KnownPoints | None:
    """The landmarks of ``guidance``, (D, N). Raises GeometryError and ConfigError for what cannot be used."""
    if guidance.landmarks is None:
        return None
    fixed, moving = (
        checked_points(points, name, dimension)
        for points, name in zip(guidance.landmarks, ("fixed", "moving"), strict=True)
    )
    if fixed.shape != moving.shape:
        raise GeometryError(
            f"expected as many fixed as moving landmarks, got {fixed.shape[1]} and {moving.shape[1]}: "
            "the n-th ones belong together"
        )
    sd = np.asarray(guidance.landmark_sd_mm, dtype=np.float64)
    if sd.ndim > 1 or (sd.ndim == 1 and len(sd) != fixed.shape[1]) or not (np.isfinite(sd) & (sd > 0)).all():
        raise ConfigError(
            f"expected one standard deviation above 0 mm for all landmarks, or {fixed.shape[1]} of them, got {sd}"
        )
    return KnownPoints(fixed, moving, np.broadcast_to(sd, fixed.shape[1:]).copy())


def checked_labels(guidance: Guidance, dimension: int | None) -> KnownLabels | None:
    """The labels that ``guidance`` brings, of any dimension where that is None.

    Raises ImageError, GeometryError and ConfigError for what cannot be used.
    """
    if not 0 < guidance.label_weight < float("inf"):
        raise ConfigError(f"expected a weight of the labels above 0, got {guidance.label_weight}")
    if guidance.labels is None:
        return None
    if guidance.segment is not None:
        raise ConfigError("expected labels or a network that segments, got both: leave one out")
    fixed, moving = (opened_labels(each, name) for each, name in zip(guidance.labels, ("fixed", "moving"), strict=True))
    for name, found in (("fixed", fixed), ("moving", moving)):
        if dimension not in (None, found.grid.dimension):
            raise GeometryError(
                f"expected {name} labels in {dimension}-D as the images are, got {found.grid.dimension}-D"
            )
    near, far = ({label for label in each.labels if label != 0} for each in (fixed, moving))
    shared = tuple(sorted(near & far))
    if not shared:
        raise ConfigError(
            f"expected labels that both label maps have, got {_few(near)} in the fixed and {_few(far)} in the moving "
            "one: give what is the same in both the same number"
        )
    unknown = set(guidance.weights) - set(shared)
    if unknown or not all(0 < weight < float("inf") for weight in guidance.weights.values()):
        raise ConfigError(
            f"expected weights above 0 of labels that both label maps have, {_few(shared)}, "
            f"got {dict(guidance.weights)}"
        )
    use = LabelUse(shared=shared, fixed_only=tuple(sorted(near - far)), moving_only=tuple(sorted(far - near)))
    return KnownLabels(fixed, moving, use, guidance.label_weight, guidance.weights)


def segmented(
    guidance: Guidance, images: tuple[Cleaned, Cleaned], device: torch.device, folders: Folders, *, only_load: bool
) -> Guidance:
    """The same with the labels that its network finds in both images, without any if it is only loaded."""
    if guidance.segment is None or guidance.labels is not None:
        return guidance
    found = []
    for volume, weight in images:
        options = Options(spec=guidance.segment_spec, device=str(device), folders=folders_of(folders))
        network = load(guidance.segment, volume.grid.dimension, options)
        if only_load:
            return replace(guidance, segment=None)
        found.append(to_labels(labels_of(volume, weight, network, options)))
    return replace(guidance, labels=(found[0], found[1]), segment=None)


def opened_labels(obj: ImageLike | LabelMap, name: str) -> LabelMap:
    """A label map, exact, from a file or from anything ``semreg.to_volume`` takes."""
    return read_labels(obj) if isinstance(obj, (str, Path)) else to_labels(obj, name)


def _few(labels: Collection[int]) -> str:
    """Some labels in words."""
    shown = ", ".join(map(str, sorted(labels)[:8])) or "none"
    return f"{shown}, …" if len(labels) > 8 else shown
