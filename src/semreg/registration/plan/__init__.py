"""What a registration will do, decided once: ``make_plan``; the command line prints it and ``register`` executes it."""

from semreg.registration.plan.image_facts import ImageFacts, ImageKind, image_facts
from semreg.registration.plan.plan import Machine, Plan, make_plan, this_machine
from semreg.registration.plan.reasons import FurtherPair, Reason

__all__ = [
    "FurtherPair",
    "ImageFacts",
    "ImageKind",
    "Machine",
    "Plan",
    "Reason",
    "image_facts",
    "make_plan",
    "this_machine",
]
