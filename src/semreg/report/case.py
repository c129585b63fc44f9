"""All that a page shows of one registration. Knows nothing of pages and of files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid, Matrix
from semreg.errors import GeometryError
from semreg.io.bridge import LabelMap, LoadedImage, matrix_of, to_labels, to_volume
from semreg.quality.deformation import moved_by
from semreg.registration.result import Record

if TYPE_CHECKING:
    from semreg.quality import Evaluation, Verdict
    from semreg.quality.run import RegisterRun
    from semreg.registration.result import AlignRecord, Registration


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Two images, the map between them, and what is known of its quality; what is None is left out of the page."""

    fixed: Volume
    """The fixed image, (1, *S)."""
    moving: Volume
    """The moving image, (1, *T), on its own grid."""
    field: Field
    """Displacement on the fixed image's grid, fixed → moving, complete: with the alignment."""
    linear: Matrix | None = None
    """The alignment, homogeneous, points in mm, fixed → moving; it follows the deformation in ``field``; None: none."""
    title: str = "Registration"
    """The headline, plain text."""
    warped: Volume | None = None
    """The moving image on the fixed grid; None: read through ``field``."""
    initial: Field | None = None
    """Where the images lay before, on the fixed grid, fixed → moving; None: where their headers say."""
    background: float | None = None
    """What counts as nothing in the moving image; None: its minimum."""
    jacobian: Volume | None = None
    """Determinants (1, *S) on the fixed grid; None: computed from ``field``."""
    uncertainty: Volume | None = None
    """Uncertainty (1, *S) in mm on the fixed grid."""
    evaluation: Evaluation | None = None
    """What was measured, and, of a run of ``semreg evaluate``, what of."""
    verdict: Verdict | None = None
    record: AlignRecord | None = None
    """What was done: of a registration, an alignment, or a run of them."""
    fixed_labels: LabelMap | None = None
    """Labels of the fixed image, drawn as contours."""
    moving_labels: LabelMap | None = None
    """Labels of the moving image."""
    structure: LabelMap | None = None
    """Labels of the fixed image that hold the rigid parts, or what slides; those that the record names are outlined."""
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Names of the files, by role: ``fixed``, ``moving``."""
    oriented: Mapping[str, bool | None] = dataclasses.field(default_factory=dict)
    """Whether their headers say how the patient lies, by role; None, or not there: they may."""
    notes: tuple[str, ...] = ()
    """Sentences a reader has to know, such as that a file has changed since."""

    def __post_init__(self) -> None:
        """Check that all lie on their grids and have one dimension (GeometryError)."""
        grid = self.fixed.grid
        if self.moving.grid.dimension != grid.dimension:
            raise GeometryError(
                f"expected two images of one dimension, got {grid.dimension}-D and {self.moving.grid.dimension}-D: "
                "give the pair that was registered"
            )
        on_fixed = {
            "field": self.field, "warped": self.warped, "initial": self.initial, "jacobian": self.jacobian,
            "uncertainty": self.uncertainty,
        }  # fmt: skip
        for name, each in on_fixed.items():
            if each is not None and each.grid.shape != grid.shape:
                raise GeometryError(
                    f"expected {name} on the fixed image's grid of {grid.size_xyz} voxels, "
                    f"got {each.grid.size_xyz}: give the fixed image that was registered"
                )

    @property
    def registered(self) -> Record | None:
        """The record, where it is that of a registration."""
        return self.record if isinstance(self.record, Record) else None

    def inside(self) -> Tensor | None:
        """Which voxels of the fixed image lie inside of what slides, (*S), bool; None: nothing does, or not known."""
        sliding = None if self.registered is None else self.registered.sliding
        if sliding is None or self.structure is None:
            return None
        found = torch.tensor([label in sliding.labels for label in self.structure.labels])
        return found[self.structure.numbers.on(self.fixed.grid, mode="nearest", outside=0.0).data[0].long()]

    def is_ct(self, role: str) -> bool | None:
        """Whether an image was taken for CT; None where nobody said."""
        known = {} if self.record is None else self.record.modality
        return known[role].ct if role in known else None

    def linear_on(self, grid: Grid) -> Matrix:
        """The alignment on indices of ``grid`` (tensor order), homogeneous; the identity without one."""
        if self.linear is None:
            return np.eye(grid.dimension + 1)
        place = grid.index_to_point()
        return np.asarray(np.linalg.inv(place) @ self.linear @ place)

    def linear_field(self, grid: Grid) -> Field:
        """The alignment alone as a displacement on ``grid``."""
        zero = Field.zeros(grid)
        return zero if self.linear is None else moved_by(zero, self.linear)

    def without_linear(self, total: Field) -> Field:
        """The deformation alone of a displacement that holds the alignment."""
        return total if self.linear is None else moved_by(total, np.asarray(np.linalg.inv(self.linear)))

    @classmethod
    def of(  # noqa: PLR0913 - a result, its images and what is known of it
        cls,
        result: Registration,
        fixed: Any,
        moving: Any,
        *,
        evaluation: Evaluation | None = None,
        verdict: Verdict | None = None,
        run: RegisterRun | None = None,
        title: str | None = None,
        fixed_labels: Any | None = None,
        moving_labels: Any | None = None,
    ) -> Case:
        """The case of a result of ``register``.

        Args:
            result: what ``register`` returned or ``Registration.load`` read.
            fixed: the fixed image that was registered: anything ``semreg.to_volume`` takes.
            moving: the moving image that was registered.
            evaluation: what ``evaluate`` returned.
            verdict: what ``judge`` returned.
            run: stands for the result's record where more is known.
            title: the headline; None: the names of the files, if both images were read from files.
            fixed_labels: a label map of the fixed image, drawn as contours.
            moving_labels: the same for the moving image.

        Returns:
            All that a page shows.

        Raises:
            ImageError: for an image or a label map that cannot be used.
            GeometryError: for images that are not those of the result.
        """
        record = result.record if run is None else run
        read = {"fixed": fixed, "moving": moving}
        names = {name: image.path.name for name, image in read.items() if isinstance(image, LoadedImage)}
        if run is not None and run.private:
            names = {name: run.inputs[name].path for name in names}
        known = f"{names['moving']} onto {names['fixed']}" if len(names) == 2 else cls.title
        return cls(
            fixed=to_volume(fixed),
            moving=to_volume(moving),
            field=result.field,
            linear=None if result.affine is None else matrix_of(result.affine),
            title=known if title is None else title,
            warped=result.warped,
            background=record.background,
            jacobian=result.jacobian(),
            uncertainty=result.uncertainty,
            evaluation=evaluation,
            verdict=verdict,
            record=record,
            fixed_labels=None if fixed_labels is None else to_labels(fixed_labels, "fixed"),
            moving_labels=None if moving_labels is None else to_labels(moving_labels, "moving"),
            structure=result.structure,
            names=names,
            oriented={name: image.oriented for name, image in read.items() if isinstance(image, LoadedImage)},
        )
