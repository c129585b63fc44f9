"""What a stage is, and what stages hand on. Knows no stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from semreg.config import RegistrationConfig
from semreg.registration.dense.prior import NOTHING, Prior
from semreg.runtime.events import Clock

if TYPE_CHECKING:
    from torch import Tensor

    from semreg.core.consistency import Inverse
    from semreg.core.fields import Field, Volume
    from semreg.features.registrar import Registrar
    from semreg.preprocess.image_pair import Pair
    from semreg.preprocess.preparation import Frame
    from semreg.registration.alignment import Points
    from semreg.registration.contrasts import AllImages, Contrast, ContrastPair
    from semreg.registration.dense.contrast import IntensityRelation
    from semreg.registration.dense.deform import Deformed, Searched
    from semreg.registration.dense.terms import Term
    from semreg.registration.guidance import Guidance, KnownLabels, KnownPoints
    from semreg.registration.keypoints import Keypoints
    from semreg.registration.matching import Pairing
    from semreg.registration.parametric.align import Alignment
    from semreg.registration.parts.known import KnownParts
    from semreg.registration.parts.motion import Motion
    from semreg.registration.parts.report import PartsReport
    from semreg.registration.plan import Plan
    from semreg.registration.result import Folding
    from semreg.registration.sliding.descent import Slid
    from semreg.registration.sliding.report import SlidingReport
    from semreg.registration.sliding.wall import Wall
    from semreg.registration.start import StartReport
    from semreg.registration.uncertainty import Uncertainty


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a caller of ``register`` hands over, unchanged."""

    fixed: Any
    moving: Any
    contrasts: Sequence[Contrast] = ()
    """What is compared beside the two."""
    fixed_mask: Any | None = None
    moving_mask: Any | None = None
    model: Any | None = None
    folders: Sequence[str | Path] | str | Path = ()
    """Where fetched models lie."""
    initial: Any | None = None
    landmarks: Points | None = None
    stiffness: Any | None = None
    rigid: Any | None = None
    """Labels of the parts of the fixed image that move rigidly."""
    sliding: Any | None = None
    """Labels of what slides along its surroundings in the fixed image."""
    guidance: Guidance | None = None
    start: Any | None = None
    """A network that proposes where the deformation begins, in place of that of the settings."""
    inverse: bool = False
    """Whether the way back is wanted."""
    on_plan: Callable[[Plan], None] | None = None
    """Who is told of the plan before it is executed."""
    only_plan: bool = False
    """Whether the plan is all that is wanted: what takes long is not done for it."""


@dataclass
class State:
    """What is known so far: each stage reads what those before it have set, and sets its own. It lives for one run."""

    request: Request
    config: RegistrationConfig
    """As given until the stage ``plan``; from then on in force. ``contrast`` settles what the images alone can say."""
    device: torch.device
    clock: Clock

    pair: Pair = field(init=False)
    """Set by ``prepare``, as all until ``begin``."""
    contrasts: tuple[ContrastPair, ...] = field(init=False, default=())
    """Further ones; ``plan`` adds their models."""
    prior: Prior = field(default=NOTHING)
    """What is known beside the images; its points are set by ``features``, in its frame."""
    known_points: KnownPoints | None = field(init=False, default=None)
    keypoints: Keypoints | None = field(init=False, default=None)
    """Set by ``keypoints``: points that were found; None: they were not looked for."""
    known_labels: KnownLabels | None = field(init=False, default=None)
    """What guides, checked."""
    known_parts: KnownParts | None = field(init=False, default=None)
    """The parts that move rigidly, checked."""
    wall: Wall | None = field(init=False, default=None)
    """The wall along which its inside slides, checked."""
    begin: Any = field(init=False)
    """The transform to start from, a SimpleITK transform or a Field; None: where the headers put the images."""
    pairings: list[Pairing] = field(init=False)
    """Set by ``plan``: the models, loaded."""
    others: tuple[Pairing, ...] = field(init=False, default=())
    """Those of further members of an ensemble."""
    registrar: Registrar | None = field(init=False, default=None)
    """The network that proposes where the deformation begins, loaded; None: there is none."""
    plan: Plan = field(init=False)
    alignment: Alignment | None = field(init=False, default=None)
    """Set by ``align``, which may change ``begin``; None: there was none to look for."""
    frame: Frame = field(init=False)
    """Set by ``features``, as all until ``terms``: the working grids."""
    start: Field | None = field(init=False)
    """What the moving image was resampled by, on the frame's moving grid; None: it was read as it lies."""
    first: Field | None = field(init=False)
    """Where the displacement begins, where it continues the initial transform; None: at none. ``start`` may set it."""
    images: AllImages = field(init=False)
    terms: tuple[Term, ...] = field(init=False)
    searched: Searched = field(init=False)
    """Set by ``features``, where it begins, by ``start`` and by ``coarse``."""
    proposal: StartReport | None = field(init=False, default=None)
    """Set by ``start``: what a network proposed, and whether it is used."""
    deformed: Deformed = field(init=False)
    """Set by ``refine``, or by ``fit`` where there is no refinement; ``ensemble`` and ``fine`` may change it."""
    spread: Volume | None = field(init=False, default=None)
    """Set by ``ensemble``: the standard deviation of its members in mm, on the grid of the fixed features."""
    relation: IntensityRelation | None = field(init=False, default=None)
    """Set by ``fine``; None: it was not asked for."""
    slid: Slid | None = field(init=False, default=None)
    """Set by ``sliding``: the displacement on either side of the wall, in place of that of ``deformed``."""
    sliding: SlidingReport | None = field(init=False, default=None)
    """Set by ``field``: how far it slides, and what is left between both sides."""
    motions: tuple[Motion, ...] = field(init=False, default=())
    """Set by ``parts``: how each of the rigid parts moves."""
    parts: PartsReport | None = field(init=False, default=None)
    """Set by ``field``: what became of them."""
    doubt: Uncertainty | None = field(init=False, default=None)
    """Set by ``uncertainty``."""
    total: Field = field(init=False)
    """Set by ``field``, as all until ``folding``: the complete displacement on the fixed image's own grid."""
    deformation: Field = field(init=False)
    """``total`` without the start."""
    warped: Volume = field(init=False)
    warped_contrasts: tuple[Volume, ...] = field(init=False, default=())
    uncertainty: Volume | None = field(init=False, default=None)
    determinants: Tensor = field(init=False)
    """(*S), of ``total``."""
    folding: Folding = field(init=False)
    inverse: Inverse | None = field(init=False, default=None)
    """Set by ``inverse``."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a registration. Progress, timings and record call it by its ``name``."""

    name: str
    run: Callable[[State], None]
    wanted: Callable[[State], bool] = lambda _: True
    """Whether it runs at all; where it does not, it has no timing either."""
    tells: bool = False
    """Whether it tells its steps itself; else its end is told as one step."""
    share: float = 0.0
    """About what part of a run it takes, 0 to 1, for whoever shows progress."""
