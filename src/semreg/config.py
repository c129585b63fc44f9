"""The settings of a registration, each with its unit. Imports nothing heavy.

``None`` means: chosen from the images, as the docstring says; the choice is in the plan and in the record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from semreg.distances import DISTANCES
from semreg.runtime.settings import require

Modality = Literal["auto", "ct", "mr", "other"]
"""What an image is. ``ct``: values in Hounsfield units. ``auto``: as its DICOM header says, else as its values look."""

Axis = Literal["x", "y", "z", "i", "j", "k"]
"""An axis of an image: by the direction of LPS that is nearest, or as the array has them, i the fastest."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One feature model and how its features count. Several models add up."""

    model: str = "mind"
    """``mind``: MIND-SSC, for images of the same or of different modality. ``intensity``: the image itself. Else the
    file of a pretrained network, or a name from the catalogue (``semreg models list``) that was fetched."""
    moving: str | None = None
    """Another model for the moving image, whose features must mean the same. None: the same model."""
    spec: tuple[str, ...] = ()
    """What the description of the model is to say instead, as ``name=value``: see ``semreg.ModelSpec``. Of ``mind`` its
    parameters: ``radius=1``, half width of the compared patches, and ``dilation=2``, distance of the compared
    neighbours, in working voxels."""
    layers: tuple[int, ...] | None = None
    """Outputs of the network that are compared, counted from 0, −1 is the last. None: those its description keeps."""
    distance: tuple[str, ...] = ()
    """How features are compared, a name of ``semreg.distances``: one for all layers or one a layer. Empty:
    ``refine.distance``."""
    weight: tuple[float, ...] = (1.0,)
    """One for all layers or one a layer; only their ratios matter."""
    pca: int = 0
    """Principal components of the fixed image's features that are kept of each layer, 0: all channels as they are."""
    channels: tuple[int, ...] = ()
    """Numbers of the channels of each layer that are compared, counted from 0. Empty: all."""
    subset: int = 0
    """Channels that are drawn from each layer, 0 or more than there are: all."""
    redraw: bool = False
    """Draw other channels for each iteration of the refinement."""
    statistics: Literal["own", "fixed"] = "own"
    """Whose mean, deviation and range normalise the moving image's intensities: its own, or those of the fixed image,
    for images whose intensities mean the same: then what only one of them shows changes no scale."""
    normalise: Literal["none", "unit", "standard"] = "none"
    """``unit``: feature vectors of length 1. ``standard``: channels of mean 0 and deviation 1 (of the fixed image)."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(bool(self.model), "models.model: mind, intensity, a file or a name", repr(self.model))
        weights = self.weight and all(0 <= w < float("inf") for w in self.weight) and sum(self.weight) > 0
        require(bool(weights), "models.weight >= 0 and finite, not all 0", self.weight)
        for name in self.distance:
            DISTANCES.check(name, "models.distance")
        require(self.pca >= 0, "models.pca >= 0 components", self.pca)
        known = all(c >= 0 for c in self.channels) and len(set(self.channels)) == len(self.channels)
        require(known, "models.channels different and >= 0", self.channels)
        require(self.subset >= 0, "models.subset >= 0 channels", self.subset)


@dataclass(frozen=True, kw_only=True)
class IntensityConfig:
    """What of the intensities counts, before anything else sees them."""

    modality: tuple[Modality, ...] = ("auto",)
    """What both images are, or the fixed and then the moving one: CT has padding and a body in air, others do not."""
    padding: bool = True
    """Take voxels of a value that no scanner measures for outside of the image: CT below −1200 HU of nearly one value,
    such as −3024."""
    winsorise: bool | None = None
    """Cut intensities off at the ``percentiles``. None: only where single voxels lie far beyond all others."""
    percentiles: tuple[float, ...] = (0.05, 99.95)
    """The lowest and the highest percentile, in percent of the voxels that count."""
    body: bool = False
    """Leave out what lies around the body: the table of CT and air, the background of other images."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(len(self.modality) in (1, 2), "intensities.modality, one or two of them", self.modality)
        both = len(self.percentiles) == 2 and 0 <= self.percentiles[0] < self.percentiles[1] <= 100
        require(both, "intensities.percentiles, two ascending ones in 0..100", self.percentiles)

    @property
    def modalities(self) -> tuple[Modality, Modality]:
        """Of the fixed and of the moving image."""
        return self.modality[0], self.modality[-1]


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """The parametric alignment, the first stage."""

    transform: Literal["auto", "none", "translation", "rigid", "similarity", "affine"] = "auto"
    """What is looked for. ``auto``: rigid, then affine where that matches clearly better; what is not clearly better
    than the headers, all over the image, and than any other position is left out, and the headers stand."""
    rotation_deg: float | None = None
    """Largest rotation that is searched, in degrees. None: 45 in 3-D, all of them in 2-D."""
    minimum_overlap: float = 0.3
    """Least share of the smaller image's content that both images must show."""
    spacing_mm: float | None = None
    """Edge of the voxels of the search in mm. None: from the field of view."""
    levels: int | None = None
    """Resolutions of the descent, each twice as fine as the one before. None: 2 before a deformation, else 3."""
    iterations: int = 30
    """Steps per level, at most."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        turn = self.rotation_deg is None or 0 <= self.rotation_deg <= 180
        require(turn, "align.rotation_deg in 0..180", self.rotation_deg)
        require(0 < self.minimum_overlap <= 1, "align.minimum_overlap above 0 and up to 1", self.minimum_overlap)
        require(self.spacing_mm is None or self.spacing_mm > 0, "align.spacing_mm > 0", self.spacing_mm)
        require(self.levels is None or 1 <= self.levels <= 6, "align.levels between 1 and 6", self.levels)
        require(self.iterations >= 1, "align.iterations >= 1", self.iterations)

    def largest_rotation_deg(self, dimension: int) -> float:
        """The largest rotation that is searched in 2-D or 3-D."""
        if self.rotation_deg is not None:
            return self.rotation_deg
        return 180.0 if dimension == 2 else 45.0


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """How features are computed."""

    spacing_mm: float | None = None
    """Edge of the (cubic) working voxels in mm. None: the fixed image's smallest spacing, coarser for large images."""
    coarseness: float = 1.0
    """What the working spacing is multiplied with where ``spacing_mm`` leaves it open. Small images (80³ voxels) stay
    as they are: there is no time to save and nothing to gain."""
    pooling: int | None = None
    """Features are block means over this many working voxels. None: 1 for small images (80³ voxels), else 2."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(self.spacing_mm is None or self.spacing_mm > 0, "features.spacing_mm > 0", self.spacing_mm)
        require(0 < self.coarseness < float("inf"), "features.coarseness > 0", self.coarseness)
        require(self.pooling is None or 1 <= self.pooling <= 8, "features.pooling in 1..8 voxels", self.pooling)


@dataclass(frozen=True, kw_only=True)
class KeypointConfig:
    """Points that correspond, found by both images alone, which lead the search where motion is large."""

    enabled: bool = False
    """Whether to look for them."""
    reach_mm: float | None = None
    """Largest displacement that is looked at per axis; the search then reaches as far as the points lead, unless
    ``coarse.levels`` says how far. None: half as far again as the search."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(self.reach_mm is None or 0 < self.reach_mm < float("inf"), "keypoints.reach_mm > 0", self.reach_mm)


@dataclass(frozen=True, kw_only=True)
class CoarseConfig:
    """The discrete search."""

    enabled: bool = True
    """Whether to search at all; without, the refinement starts from the initial transform."""
    reach_mm: float | None = None
    """Largest displacement that must be reached per axis. None: 30 mm, or half the shortest extent if less."""
    spacing_mm: float | None = None
    """Spacing of the nodes at the finest level in mm. None: four working voxels."""
    half_width: int = 4
    """Half width of the search window at the coarsest level, in nodes; finer levels correct what is left."""
    levels: int | None = None
    """Number of levels, each with nodes twice as near as the one before. None: as many as ``reach_mm`` needs. With a
    number the reach follows from it: 1 is one dense window of ± ``half_width`` nodes."""
    smoothing: int = 2
    """How many times the matching costs are smoothed over 3 nodes."""
    inverse_consistency: bool = True
    """Search in both directions and make the two fields each other's inverse."""
    balance: Literal["unrelated", "first", "spread", "raw"] = "unrelated"
    """What the costs of several layers are divided by before they are weighted. ``unrelated``: the distance of
    unrelated features. ``first``: their value at the start. ``spread``: the range of their costs over a window, mean
    over the nodes. ``raw``: nothing. The scale of their sum stays what the search is tuned to."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(self.reach_mm is None or self.reach_mm > 0, "coarse.reach_mm > 0", self.reach_mm)
        require(self.spacing_mm is None or self.spacing_mm > 0, "coarse.spacing_mm > 0", self.spacing_mm)
        most = 8 if self.levels is None else 64
        require(1 <= self.half_width <= most, f"coarse.half_width between 1 and {most} nodes", self.half_width)
        require(self.levels is None or 1 <= self.levels <= 8, "coarse.levels between 1 and 8", self.levels)
        require(self.smoothing >= 0, "coarse.smoothing >= 0", self.smoothing)


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """The gradient refinement."""

    enabled: bool = True
    """Whether to refine at all."""
    distance: str = "l2"
    """Distance between features where the model's own setting does not name one."""
    mode: Literal["static", "jacobian"] = "static"
    """``static``: features are computed once and interpolated. ``jacobian``: the network runs on the warped image in
    every step and is differentiated."""
    update_every: int = 0
    """``static``: extract the moving features again from the warped image every so many steps, 0: never."""
    levels: int = 2
    """Resolutions, each twice as fine as the one before; the last one works on the features as extracted."""
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    """``lbfgs``: quasi-Newton steps, each checked to lower the objective. ``adam``: steps of about ``step_mm`` for each
    control point by itself."""
    iterations: int | None = None
    """Steps per level, at most. None: 12, which hold the displacement near what the search found; 100 where
    more of the diffusion than usual holds it, see there."""
    continues: bool = False
    """Without search and alignment: the initial transform is where the control points start, and the regularity is that
    of the whole displacement. Else the moving image is resampled by it, and the descent adds to it."""
    symmetric: bool | None = None
    """Refine in both directions and take the mean of one and the inverse of the other, whose errors are partly their
    own. None: wherever features stay what they are (``mode`` static and ``update_every`` 0)."""
    diffeomorphic: bool = True
    """Make the displacement one-to-one: no cell between voxels is turned over, not even a part of one. Without, only
    the Jacobian determinant by central differences is kept positive. Changes nothing where nothing folds."""
    axes: tuple[Axis, ...] = ()
    """Axes of the fixed image along which search and refinement may move points: by the nearest direction of LPS, x, y,
    z, or as the array has them, i, j, k, i the fastest. Empty: all. For images that are distorted along one axis, as
    those of echo planar imaging; an alignment moves points in all directions all the same."""
    control_mm: float | None = None
    """Spacing of the control points at the finest level in mm. None: four working voxels, not less than two feature
    voxels; on a large image eight, where after the search both images turn out to differ in contrast; in one direction
    two working voxels plus two feature voxels."""
    step_mm: float | None = None
    """Longest step of a control point per iteration at the finest level in mm; the learning rate of ``adam``. None: one
    feature voxel."""
    beta1: float = 0.9
    """``adam``: share of the mean gradient that is kept from one step to the next."""
    beta2: float = 0.999
    """``adam``: the same for the mean squared gradient."""
    epsilon: float = 1e-8
    """``adam``: what is added to the root of the mean squared gradient, of an objective that starts at 1."""
    sampling: float = 1.0
    """``adam`` and ``static``: share of the voxels that are drawn for each step."""
    smoothing: int = 0
    """How many times the control points are averaged over 3 of them an axis before the displacement is made."""
    local_correlation: float | None = None
    """Weight of the squared local correlation of the intensities (``lncc_squared``) beside the models, whose weights
    mostly are 1; 0: without. The search does not go by it. None: 0.15 beside MIND alone as it is by default, else 0."""
    window: int = 5
    """Distances in windows (``lncc``, ``lncc_squared``): their edge in feature voxels, odd."""
    balance: Literal["unrelated", "first", "raw"] = "unrelated"
    """What the distances of several layers are divided by before they are weighted. ``unrelated``: the distance of
    unrelated features. ``first``: their value at the start. ``raw``: nothing, and then ``diffusion`` and ``folding``
    are relative to a distance of 1."""
    relative_to: Literal["start", "unrelated"] = "start"
    """What ``diffusion`` and ``folding`` are relative to. ``start``: the distance at the start, so a better start is
    held less. ``unrelated``: the distance of unrelated features, whatever the start is."""
    diffusion: float | None = None
    """Weight of the mean squared gradient of the displacement (mm per mm). None: 0.3, or, where
    ``iterations`` are left open too, up to 3 where that better predicts samples that were held out of trials."""
    folding: float = 20.0
    """Weight of the penalty where the Jacobian determinant falls below ``minimum_jacobian``."""
    minimum_jacobian: float = 0.3
    """Local volume change below which the penalty sets in."""
    tolerance: float = 1e-3
    """A level ends when the objective fell by less than this share over the last five steps."""

    @property
    def steps(self) -> int:
        """``iterations``, or the usual number."""
        return 12 if self.iterations is None else self.iterations

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        DISTANCES.check(self.distance, "refine.distance")
        require(self.update_every >= 0, "refine.update_every >= 0 steps", self.update_every)
        once = self.mode == "static" or self.update_every == 0
        require(
            once, "refine.update_every=0 in the mode jacobian, which runs the network in each step", self.update_every
        )
        require(1 <= self.levels <= 6, "refine.levels between 1 and 6", self.levels)
        require(self.iterations is None or self.iterations >= 1, "refine.iterations >= 1", self.iterations)
        require(len(set(self.axes)) == len(self.axes), "refine.axes that are all different", self.axes)
        require(self.control_mm is None or self.control_mm > 0, "refine.control_mm > 0", self.control_mm)
        require(self.step_mm is None or self.step_mm > 0, "refine.step_mm > 0", self.step_mm)
        require(0 <= self.beta1 < 1, "refine.beta1 in 0..1", self.beta1)
        require(0 <= self.beta2 < 1, "refine.beta2 in 0..1", self.beta2)
        require(0 < self.epsilon < float("inf"), "refine.epsilon > 0", self.epsilon)
        require(0 < self.sampling <= 1, "refine.sampling above 0 and up to 1", self.sampling)
        drawn = self.sampling == 1 or (self.optimizer == "adam" and self.mode == "static")
        require(drawn, "refine.sampling=1 where not adam in the mode static draws voxels", self.sampling)
        require(self.smoothing >= 0, "refine.smoothing >= 0", self.smoothing)
        require(self.window >= 3 and self.window % 2 == 1, "refine.window an odd number of voxels >= 3", self.window)
        require(self.diffusion is None or self.diffusion >= 0, "refine.diffusion >= 0", self.diffusion)
        require(self.folding >= 0, "refine.folding >= 0", self.folding)
        beside = self.local_correlation or 0.0
        require(0 <= beside < float("inf"), "refine.local_correlation >= 0 and finite", beside)
        whole = not beside or (self.sampling == 1 and self.mode == "static")
        require(whole, "refine.local_correlation=0 in the mode jacobian, and where voxels are drawn", beside)
        require(0 <= self.minimum_jacobian < 1, "refine.minimum_jacobian in 0..1", self.minimum_jacobian)
        require(self.tolerance >= 0, "refine.tolerance >= 0", self.tolerance)


@dataclass(frozen=True, kw_only=True)
class FineConfig:
    """The last descent, on the intensities themselves, for images of one contrast."""

    enabled: bool | None = None
    """Whether to do it. None: with MIND alone as it is by default, where the intensities of both images, once they lie
    on each other, brighten and darken alike: hardly any of their local correlation is negative."""
    control_mm: float | None = None
    """Spacing of the control points in mm. None: three working voxels."""
    diffusion: float = 8.0
    """Weight of the mean squared gradient of what is added to the displacement (mm per mm), relative to the distance
    at the start."""
    iterations: int = 12
    """Steps, at most."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(self.control_mm is None or self.control_mm > 0, "fine.control_mm > 0", self.control_mm)
        require(0 <= self.diffusion < float("inf"), "fine.diffusion >= 0 and finite", self.diffusion)
        require(self.iterations >= 1, "fine.iterations >= 1", self.iterations)


@dataclass(frozen=True, kw_only=True)
class PartsConfig:
    """The parts of the fixed image that move rigidly, where labels of such are given."""

    labels: tuple[int, ...] = ()
    """The labels that are rigid parts, one each. Empty: all but 0."""
    refine: bool = True
    """Improve the rigid map of each part on the images, by a descent on the part and its rim alone. Without, it is the
    one nearest to the displacement that was found."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(0 not in self.labels, "parts.labels other than 0, which is no label", self.labels)


@dataclass(frozen=True, kw_only=True)
class SlidingConfig:
    """The part of the fixed image that slides along what is around it, where labels of it are given."""

    labels: tuple[int, ...] = ()
    """The labels that together lie inside the wall. Empty: all but 0."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(0 not in self.labels, "sliding.labels other than 0, which is no label", self.labels)


@dataclass(frozen=True, kw_only=True)
class UncertaintyConfig:
    """How the uncertainty of the displacement is estimated."""

    enabled: bool = True
    """Whether to estimate it at all."""
    repeats: int = 0
    """Registrations more with the evidence drawn again, whose spread counts too. Each takes as long as the first."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(0 <= self.repeats <= 100, "uncertainty.repeats between 0 and 100", self.repeats)


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """Several registrations, whose mean is the result and whose spread is part of the uncertainty."""

    members: int = 1
    """How many by the models of the settings, each but the first on lattices that begin elsewhere. Each takes as
    long as the first."""
    models: tuple[str, ...] = ()
    """Further members, each compared by one of these models alone."""

    @property
    def entries(self) -> tuple[ModelConfig, ...]:
        """The models of the further members, one each."""
        return tuple(ModelConfig(model=name) for name in self.models)

    @property
    def count(self) -> int:
        """All members."""
        return self.members + len(self.models)

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(1 <= self.members <= 100, "ensemble.members between 1 and 100", self.members)
        require(all(self.models), "ensemble.models: mind, intensity, files or names", self.models)


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """What a result must show to pass, and from where on it fails; between the two a person should review it.

    Two numbers a check: from where on a person should review the result, and from where on it fails.
    ``docs/verdict.md`` says what each check measures and where its numbers come from.
    """

    enabled: bool = True
    """Whether to look at the result and judge it at all."""
    missing: tuple[float, float] = (50.0, 95.0)
    """Voxels that are NaN or infinite, in percent of the image with more of them."""
    overlap: tuple[float, float] = (50.0, 10.0)
    """Content that both images show, in percent of that of the image with less; lower is worse."""
    folding: tuple[float, float] = (0.1, 1.0)
    """Voxels where the transform turns space over, in percent."""
    volume: tuple[float, float] = (2.0, 10.0)
    """Voxels whose volume changes by more than a factor of 5, in percent."""
    tears: tuple[float, float] = (1.0, 5.0)
    """Voxels whose displacement differs from a neighbour's by more than twice the distance between them, in percent."""
    scale: tuple[float, float] = (1.5, 3.0)
    """Strongest stretch or shrinkage of the whole, a factor."""
    bending: tuple[float, float] = (15.0, 30.0)
    """99th percentile of the displacement without its linear part, in percent of the diagonal of the fixed image."""
    match: tuple[float, float] = (25.0, 10.0)
    """How much nearer the features are than those of unrelated places, in percent of these; lower is worse."""
    gain: tuple[float, float] = (-2.0, -10.0)
    """By how much ``match`` is higher than without the transform, in percentage points; lower is worse."""
    residual: tuple[float, float] = (1.0, 2.0)
    """Median displacement that one more search would add, in working voxels (about 1/48 of the field of view in 3-D,
    1/96 in 2-D, not less than a voxel)."""
    mismatch: tuple[float, float] = (10.0, 30.0)
    """Share of the mismatch that one more search would take away, in percent."""
    unfinished: tuple[float, float] = (25.0, 60.0)
    """How much further the search would go the same way, or back, in percent of the displacement found."""
    elsewhere: tuple[float, float] = (105.0, 130.0)
    """Match after a shift of the whole, in percent of that of the result."""
    mirror: tuple[float, float] = (110.0, 140.0)
    """Match of the mirrored moving image at its best shift, in percent of that of the moving image as it is."""
    uncertainty: tuple[float, float] = (2.0, 4.0)
    """Median uncertainty of the displacement, in working voxels; measured where an uncertainty is known."""
    consistency: tuple[float, float] = (1.0, 5.0)
    """Mean distance in working voxels by which transform and inverse miss each other, where an inverse is known."""
    landmarks: tuple[float, float] = (105.0, 125.0)
    """Mean landmark error, in percent of that without the transform, or of a voxel if that is more; where landmarks are
    known."""
    landmark_p95: tuple[float, float] = (105.0, 200.0)
    """95th percentile of the landmark errors, in percent of that without the transform, as ``landmarks``."""
    landmark_maximum: tuple[float, float] = (105.0, 300.0)
    """Largest landmark error, in percent of that without the transform, as ``landmarks``: one point alone fails a
    result only where it is far off."""
    landmark_worse: tuple[float, float] = (5.0, 25.0)
    """Landmarks whose error rose by more than a voxel, in percent."""
    labels: tuple[float, float] = (-0.01, -0.1)
    """By how much the mean Dice rose; where labels are known; lower is worse."""

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        for name, value in vars(self).items():
            if name == "enabled":
                continue
            review, fail = value
            usual_review, usual_fail = getattr(type(self), name)
            falling = usual_review > usual_fail
            known = all(abs(v) < float("inf") for v in value)
            ordered = review >= fail if falling else review <= fail
            way = "not below" if falling else "not above"
            require(known and ordered, f"checks.{name}: two finite numbers, review {way} fail", value)


@dataclass(frozen=True, kw_only=True)
class RegistrationConfig:
    """All settings of ``semreg.register``."""

    MOVED: ClassVar[dict[str, str]] = {
        f"features.{name}": f'it belongs to mind, write spec = ["{name}=..."] in [[models]], or --spec {name}=...'
        for name in ("radius", "dilation")
    } | {"gates": "its settings are those of checks now"}
    """Settings that were, and where what they said is said now."""
    seed: int = 0
    """Seed of all random numbers."""
    background: float | None = None
    """Value of the warped image where the moving image shows nothing. None: the moving image's smallest value."""
    models: tuple[ModelConfig, ...] = (ModelConfig(),)
    """Feature models; ``[[models]]`` in TOML."""
    start: str | None = None
    """File of a network that registers in one pass; its displacement is where the deformation begins, if the objective
    says that this is better than to begin without. What it takes and returns is said in the TOML file beside it: see
    ``semreg.features.registrar_spec.RegistrarSpec``."""
    intensities: IntensityConfig = field(default_factory=IntensityConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    keypoints: KeypointConfig = field(default_factory=KeypointConfig)
    coarse: CoarseConfig = field(default_factory=CoarseConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    fine: FineConfig = field(default_factory=FineConfig)
    sliding: SlidingConfig = field(default_factory=SlidingConfig)
    parts: PartsConfig = field(default_factory=PartsConfig)
    uncertainty: UncertaintyConfig = field(default_factory=UncertaintyConfig)
    checks: CheckConfig = field(default_factory=CheckConfig)

    def __post_init__(self) -> None:
        """Check the values (ConfigError)."""
        require(self.seed >= 0, "seed >= 0", self.seed)
        require(len(self.models) >= 1, "at least one model", len(self.models))
        require(self.start != "", "start: the file of a network, or none", repr(self.start))
        named = {name for model in self.models for name in model.distance or (self.refine.distance,)}
        windowed = [name for name in sorted(named) if DISTANCES.rows[name].windowed]
        whole = self.refine.sampling == 1 or not windowed
        neighbours = f"refine.sampling=1 for {', '.join(windowed)}, which compares neighbouring voxels"
        require(whole, neighbours, self.refine.sampling)
        whole = not (self.refine.continues and self.refine.axes)
        require(whole, "refine.axes of all axes with refine.continues, whose start moves along all", self.refine.axes)
        led = self.coarse.enabled or not self.keypoints.enabled
        require(led, "keypoints.enabled=false with coarse.enabled=false, without a search", self.keypoints.enabled)
        alone = not self.refine.continues or (not self.coarse.enabled and self.align.transform == "none")
        require(alone, "coarse.enabled=false and align.transform=none with refine.continues", self.refine.continues)
