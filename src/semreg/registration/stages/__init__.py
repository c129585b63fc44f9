"""The stages of a registration, each a name and what it does, in the order in which they run."""

from semreg.registration.stages.align import ALIGN
from semreg.registration.stages.coarse import COARSE
from semreg.registration.stages.contrast import CONTRAST
from semreg.registration.stages.ensemble import ENSEMBLE
from semreg.registration.stages.features import FEATURES
from semreg.registration.stages.field import FIELD
from semreg.registration.stages.fine import FINE
from semreg.registration.stages.inverse import INVERSE
from semreg.registration.stages.keypoints import KEYPOINTS
from semreg.registration.stages.parts import PARTS
from semreg.registration.stages.plan import PLAN
from semreg.registration.stages.prepare import PREPARE
from semreg.registration.stages.refine import FIT, REFINE
from semreg.registration.stages.sliding import SLIDING
from semreg.registration.stages.stage import Request, Stage, State
from semreg.registration.stages.start import START
from semreg.registration.stages.uncertainty import UNCERTAINTY

STAGES: tuple[Stage, ...] = (
    PREPARE, PLAN, ALIGN, FEATURES, KEYPOINTS, START, COARSE, CONTRAST, REFINE, FIT, ENSEMBLE, FINE, SLIDING, PARTS,
    UNCERTAINTY, FIELD, INVERSE,
)  # fmt: skip
"""All of them; one that is not wanted is passed over."""

__all__ = ["STAGES", "Request", "Stage", "State"]
