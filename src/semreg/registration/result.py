"""What a registration found and what was done for it, typed; the dict of ``record.json`` is made of it, and read back.

Knows nothing of how it is shown.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semreg.config import RegistrationConfig
from semreg.core.consistency import Errors, Inverse, inverse_consistency
from semreg.core.fields import Field, Volume, jacobian_determinant
from semreg.io.bridge import sitk_transform
from semreg.io.images import read_image
from semreg.io.records import Recorded, record_of
from semreg.io.result_folder import RECORD, ResultFolder, warped_contrast
from semreg.preprocess.image_pair import Pair
from semreg.preprocess.intensities import Treatment
from semreg.preprocess.modality import Recognised
from semreg.registration.contrasts import ContrastReport
from semreg.registration.dense.contrast import IntensityRelation
from semreg.registration.dense.refine import LevelReport
from semreg.registration.guidance import GuidanceReport, KnownPoints
from semreg.registration.matching import ModelReport
from semreg.registration.parametric.align import Alignment
from semreg.registration.parts.report import PartsReport
from semreg.registration.plan.reasons import Reason
from semreg.registration.sliding.report import SlidingReport
from semreg.registration.start import StartReport
from semreg.registration.uncertainty import UncertaintySummary
from semreg.runtime.events import StageTime
from semreg.runtime.offers import OFFERS
from semreg.transforms import read_chain

if TYPE_CHECKING:
    from torch import Tensor

    from semreg.io.bridge import LabelMap


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """The plan that was executed."""

    reasons: tuple[Reason, ...]
    memory_bytes: int
    """What it takes at most, about."""


@dataclass(frozen=True, kw_only=True)
class FeatureDistance:
    """The distance of the features, lower is better; of several layers the weighted sum; None: nothing to compare."""

    distance: str
    before: float | None
    after: float | None


@dataclass(frozen=True, kw_only=True)
class Folding:
    """Of the determinants of the complete displacement, without the outermost voxels."""

    minimum: float
    folded_share: float
    """Share of the voxels with a determinant of 0 or below."""
    unfolding_passes: int
    """How often the displacement was smoothed where it folded."""


@dataclass(frozen=True, kw_only=True)
class AlignedLevel:
    """One resolution of an alignment."""

    spacing_mm: float
    steps: int
    match: float | None


@dataclass(frozen=True, kw_only=True)
class AlignmentEvidence:
    """What was compared, and by how many standard errors it was better."""

    compared: str
    standard_errors: float


@dataclass(frozen=True, kw_only=True)
class AlignmentReport:
    """What was found by the alignment, why it was applied or not, and what speaks against it."""

    transform: str
    """``none`` where the start stands."""
    matrix: tuple[tuple[float, ...], ...]
    """Homogeneous, points in mm, fixed → moving."""
    match: float | None
    """At the coarsest resolution, up to 1."""
    match_before: float | None
    overlap: float | None
    decisions: tuple[str, ...]
    evidence: tuple[AlignmentEvidence, ...]
    doubts: tuple[str, ...]
    doubtful: bool
    levels: tuple[AlignedLevel, ...]

    @classmethod
    def of(cls, found: Alignment) -> AlignmentReport:
        """What the record keeps of an alignment."""
        return cls(
            transform=found.family,
            matrix=tuple(tuple(map(float, row)) for row in found.matrix),
            match=finite(found.match),
            match_before=finite(found.match_before),
            overlap=finite(found.overlap),
            decisions=tuple(found.decisions),
            evidence=tuple(AlignmentEvidence(compared=w, standard_errors=float(s)) for w, s in found.evidence),
            doubts=tuple(found.doubts),
            doubtful=bool(found.doubts),
            levels=tuple(
                AlignedLevel(spacing_mm=level["spacing_mm"], steps=int(level["steps"]), match=finite(level["match"]))
                for level in found.levels
            ),
        )


@dataclass(frozen=True, kw_only=True)
class InverseReport:
    """How well the inverse undoes the displacement; mm, None where nothing could be measured."""

    residual: Errors
    outside_share: float
    """Share of its samples that no point within the box of the field is mapped to."""
    unsolved: int
    consistency: dict[str, Errors]
    """There and back from the samples of the ``fixed``, and of the ``moving`` image."""

    @classmethod
    def of(cls, total: Field, inverse: Inverse) -> InverseReport:
        """The report on ``inverse`` as the way back of ``total``."""
        return cls(
            residual=inverse.residual,
            outside_share=inverse.outside / inverse.field.grid.voxels,
            unsolved=inverse.unsolved,
            consistency=inverse_consistency(total, inverse.field),
        )


@dataclass(frozen=True, kw_only=True)
class AlignRecord(Recorded):
    """What was done in an alignment: what ``align`` and ``register`` have in common."""

    device: str
    threads: int
    seed: int
    settings: RegistrationConfig
    """In force: they alone repeat the run."""
    modality: dict[str, Recognised]
    """What the ``fixed`` and the ``moving`` image are taken for."""
    intensities: dict[str, Treatment]
    """What was done to the intensities of both."""
    background: float
    """Value of the warped image where the moving one shows nothing."""
    alignment: AlignmentReport | None
    """None: there was none to look for."""
    timings: dict[str, StageTime]
    """By the name of the stage, in their order."""


@dataclass(frozen=True, kw_only=True)
class Record(AlignRecord):
    """What was done in a registration."""

    plan: PlanReport
    models: tuple[ModelReport, ...]
    peak_memory_bytes: dict[str, int]
    similarity: FeatureDistance
    convergence: tuple[LevelReport, ...] = ()
    """Of the refinement, from the coarsest level on, and of the last descent on the intensities, if there was one."""
    intensity_relation: IntensityRelation | None = None
    """How the intensities go together, which decided whether there was one; None: it was not looked at."""
    spreads: tuple[float, ...] = ()
    jacobian: Folding
    start: StartReport | None = None
    """What a network proposed as a start, and whether it was used; None: there was none."""
    guidance: GuidanceReport | None = None
    """Landmarks and labels that guided, and how well the result obeys them."""
    parts: PartsReport | None = None
    """How the rigid parts move; None: there are none."""
    sliding: SlidingReport | None = None
    """How far the inside of a wall slides along it; None: nothing does."""
    contrasts: tuple[ContrastReport, ...] = ()
    """What was compared beside the first pair."""
    uncertainty: UncertaintySummary | None = None
    inverse: InverseReport | None = None


@dataclass(frozen=True)
class Registration:
    """The result of ``register``: ``warp(moving, result.field)`` matches the fixed image in feature space."""

    field: Field
    """Displacement on the fixed image's grid, fixed → moving; includes the initial transform."""
    warped: Volume
    """The moving image on the fixed grid, float32, ``background`` where it shows nothing."""
    record: Record
    """What was done: settings, plan, device, timings, convergence, similarity, folding."""
    deformation: Field
    """``field`` without ``affine``: the same as ``field`` where ``affine`` is None."""
    affine: Any | None = None
    """The alignment or the initial transform if it is linear (a SimpleITK transform): applied after ``deformation``."""
    inverse: Field | None = None
    """The way back, moving → fixed, on the moving image's grid, if it was asked for."""
    uncertainty: Volume | None = None
    """How far ``deformation`` may be off, (1, *S) float32 in mm on the fixed image's grid; None: not estimated."""
    pair: Pair | None = dataclasses.field(default=None, repr=False)
    """Both images as they were compared; None where the result was read from files."""
    determinants: Tensor | None = dataclasses.field(default=None, repr=False)
    """Jacobian determinants (*S) of ``field``; None: see ``jacobian``."""

    kept: tuple[Volume | None, Volume | None] = dataclasses.field(default=(None, None), repr=False)
    """The fixed and the moving image of a result that was read from files, where they were found."""

    warped_contrasts: tuple[Volume, ...] = ()
    """The moving images of further contrasts on the fixed grid, as ``warped``."""

    structure: LabelMap | None = dataclasses.field(default=None, repr=False)
    """The rigid parts, or what slides, in the fixed image; None: there is neither, or it was read from files."""

    keypoints: KnownPoints | None = dataclasses.field(default=None, repr=False)
    """Points of both images in mm that were found by ``config.keypoints``; None: they were not looked for."""

    @property
    def images(self) -> tuple[Volume | None, Volume | None]:
        """The fixed and the moving image, as they were compared or as they were read; None where they are not kept."""
        if self.pair is None:
            return self.kept
        return self.pair.cleaned["fixed"][0], self.pair.cleaned["moving"][0]

    def show(self) -> Path | None:
        """Show both images below the cell of a notebook; elsewhere open the page in the browser.

        Returns:
            The file of the page; None in a notebook.

        Raises:
            ConfigError: for a result whose images are not kept: see ``semreg.open``.
        """
        found: Path | None = OFFERS["result shown"](self)
        return found

    def _repr_html_(self) -> str | None:
        return None if None in self.images else str(OFFERS["result as html"](self))

    def __repr__(self) -> str:
        found, record = self.record.alignment, self.record
        seconds = sum(each.seconds for each in record.timings.values())
        return (
            f"Registration({self.field.grid.sentence}, alignment {'none' if found is None else found.transform}, "
            f"smallest Jacobian {record.jacobian.minimum:.2f}, {100 * record.jacobian.folded_share:.3g} % folded, "
            f"{seconds:.0f} s on {record.device})"
        )

    @property
    def config(self) -> RegistrationConfig:
        """The settings that were in force."""
        return self.record.settings

    def jacobian(self) -> Volume:
        """The Jacobian determinants (1, *S) of ``field`` on its grid, those of the registration where they are kept."""
        found = jacobian_determinant(self.field) if self.determinants is None else self.determinants
        return Volume(found[None], self.field.grid)

    def transform(self) -> Any:
        """The result as a SimpleITK transform, points fixed → moving in mm."""
        return sitk_transform(self.field)

    @classmethod
    def load(cls, folder: str | Path) -> Registration:
        """The result that ``semreg register`` wrote into a folder, without the images it was computed from.

        Args:
            folder: the folder that was given to ``-o``.

        Returns:
            The result; ``pair`` and ``determinants`` are None.

        Raises:
            ConfigError: for a folder without a result of a registration, or with a record of another version.
            ImageError: for a warped image that is missing or damaged.
            GeometryError: for a transform that is missing or damaged.
        """
        place = ResultFolder(folder)
        record = record_of(Record, place.record(), place.path / RECORD)
        warped = read_image(place.image("warped")).volume
        chain = read_chain([place.transform])
        total = chain.field_on(warped.grid)
        deformation, affine = total, None
        if len(chain.links) == 2 and chain.links[1].is_linear:
            deformation, affine = chain.links[0].field().on(warped.grid), chain.links[1].transform
        back = read_chain([place.inverse]).links[0].field() if place.inverse.is_file() else None
        unknown = place.find_image("uncertainty")
        uncertainty = None if unknown is None else read_image(unknown).volume
        found = [place.find_image(warped_contrast(number + 1)) for number in range(len(record.contrasts))]
        further = tuple(read_image(path).volume for path in found if path is not None)
        return cls(total, warped, record, deformation, affine, back, uncertainty, warped_contrasts=further)


def finite(value: float | None) -> float | None:
    """The value, None where it is not finite."""
    return None if value is None or not math.isfinite(value) else float(value)
