"""A displacement to start from that a network proposes: both images as it is to see them, and what it is worth.

The objective judges it, where the deformation begins and after a search: what matches no better than none is not used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semreg.config import RefineConfig
from semreg.core.fields import Field, Volume, jacobian_determinant
from semreg.core.geometry import AxisOrder, Grid, oriented_order, reorder
from semreg.errors import ModelContractError
from semreg.features.contract import Normalisation
from semreg.features.inputs import normalised
from semreg.features.registrar import Registrar, as_registrar
from semreg.features.registrar_spec import RegistrarSpec
from semreg.preprocess.preparation import Prepared
from semreg.registration.dense.data_term import distance_at, seen_through
from semreg.registration.dense.refine import lattice_of
from semreg.registration.dense.terms import ALIKE, Term
from semreg.registration.dense.unfold import unfold
from semreg.runtime.settings import require


@dataclass(frozen=True, kw_only=True)
class StartReport:
    """What a network proposed as a start, and what became of it."""

    name: str
    sha256: str | None
    spec: RegistrarSpec
    used: bool
    before: float | None
    """The distance of the features without it; what it moves out of view counts as unrelated. None: not known."""
    after: float | None
    """The same with it."""
    searched_before: float | None
    """The distance after a search that begins without it. None: there is no search, or it was worse before."""
    searched_after: float | None
    """The same of a search that begins with it."""
    mean_mm: float
    """How far it moves the voxels of the features, on average."""
    folded_share: float
    """Share of these at which it folded."""
    passes: int
    """How often it was smoothed there."""

    @property
    def sentence(self) -> str:
        """What became of it."""
        fate = "the deformation begins there" if self.used else "it is not used, the deformation begins without it"
        opened = f", smooth where it folded at {self.folded_share:.2%} of them" if self.folded_share else ""
        searched = ""
        if self.searched_after is not None:
            searched = f", after a search {_number(self.searched_before)} and {_number(self.searched_after)}"
        return (
            f"{self.name} moves the voxels by {self.mean_mm:.3g} mm on average{opened}; distance of features "
            f"{_number(self.before)} without, {_number(self.after)} with it{searched}: {fate}"
        )


@dataclass(frozen=True)
class Proposal:
    """A displacement on the grid of the fixed features that does not fold."""

    field: Field
    folded_share: float
    passes: int


def loaded_start(model: object, config: RefineConfig, dimension: int, device: torch.device) -> Registrar:
    """The network that ``model`` stands for. Raises ModelError and ConfigError where it cannot be a start here."""
    require(not config.axes, "refine.axes of all axes with a start network, which moves along all", config.axes)
    network = as_registrar(model, device=device)  # type: ignore[arg-type]  # what it cannot be it says
    if network.spec.dimension != dimension:
        raise ModelContractError(
            f"expected a network for {dimension}-D images as they are, got {network.name} for "
            f"{network.spec.dimension}-D ones: set dimension in its description, or give another"
        )
    return network


def proposed(network: Registrar, fixed: Prepared, moving: Prepared, target: Grid) -> Field:
    """What a network says of two images that lie on each other in working frames, on its own input grid.

    Args:
        network: what proposes.
        fixed: the fixed image on a working grid.
        moving: the moving image as it was brought onto it, on a grid along the same axes.
        target: the grid of the fixed image itself, along the same axes.

    Returns:
        The displacement, fixed → moving.
    """
    axes = oriented_order(target, network.spec.letters)
    grid = network.spec.input_grid(reorder(target, axes))
    near, far = (shown(image, axes, grid, network.spec.normalisation) for image in (fixed, moving))
    return network.spec.field_of(network(near, far).cpu(), grid)


def shown(image: Prepared, axes: AxisOrder, grid: Grid, how: Normalisation) -> Tensor:
    """An image (1, *S) on the input grid; what does not count has the smallest value of those that do."""
    ones = torch.ones_like(image.volume.data)
    volume, weight = image.volume.reordered(axes), Volume(ones, image.volume.grid).reordered(axes)
    within = weight.on(grid, outside=0.0).data > 0
    if image.weight is not None:
        weight = image.weight.reordered(axes)
    share = weight.averaged_on(grid).data * within
    counts = share > 0
    if not bool(counts.any()):
        raise ModelContractError(
            f"expected images in the box that the start network sees, {grid.box()}, got none there: set shape and "
            "spacing_mm in its description"
        )
    total = Volume(volume.data * weight.data, weight.grid).averaged_on(grid).data
    values = total / share.clamp(min=1e-6)
    counted = values[counts]
    return normalised(torch.where(counts, values, counted.min()), counted, how)


def without_folds(field: Field, grid: Grid, config: RefineConfig) -> Proposal:
    """The field on the grid of the fixed features; where it folds there, the nearest spline that does not."""
    near = field.on(grid)
    share = float((jacobian_determinant(near) <= 0).float().mean())
    if not share:
        return Proposal(near, 0.0, 0)
    lattice = lattice_of(grid, config)
    opened, passes = unfold(lattice, lattice.fit(near), grid)
    return Proposal(opened, share, passes)


def judged(terms: Sequence[Term], without: Field, proposal: Field) -> tuple[float, float]:
    """The distance of the features without and with a proposal; NaN where there is nothing to compare.

    What it moves out of view counts as unrelated, or a proposal that leaves little to compare might seem good.
    """
    before, after = distance_at(terms, without), distance_at(terms, proposal)
    kept = math.nan
    seen = [
        sum(term.share * float(seen_through(term, each)[1].sum()) for term in terms) for each in (without, proposal)
    ]
    if seen[0] > 0:
        kept = min(1.0, seen[1] / seen[0])
    return before, kept * after + (1 - kept) * max(ALIKE, after)


def lower(distances: tuple[float, float]) -> bool:
    """Whether the second distance is below the first one, or alone is known."""
    before, after = distances
    return math.isfinite(after) and not before <= after


def report_of(
    network: Registrar, proposal: Proposal, distances: tuple[float, float], searched: tuple[float, float] | None
) -> StartReport:
    """What the record says, and whether it is used: where it lowers the distance, and still does after a search."""
    known = [value if math.isfinite(value) else None for value in (*distances, *(searched or (math.nan, math.nan)))]
    used = lower(distances) and (searched is None or lower(searched))
    moved = torch.linalg.vector_norm(proposal.field.mm(), dim=0)
    return StartReport(
        name=network.spec.name or "a network",
        sha256=network.sha256,
        spec=network.spec,
        used=used,
        before=known[0],
        after=known[1],
        searched_before=known[2],
        searched_after=known[3],
        mean_mm=float(moved.mean()),
        folded_share=proposal.folded_share,
        passes=proposal.passes,
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
