"""Settings that follow from the images and the machine, each with the sentence that says why.

``look`` says what is seen of one image, ``decide`` what follows from two of them. Computes no features and registers
nothing. Where an image is of ordinary size and fits in memory, the decisions are those of ``plan.resolve``.
"""

from semreg.registration.automatic.decide import Decision, Machine, decide, this_machine
from semreg.registration.automatic.image_kind import Kind, Sight, look, shares

__all__ = ["Decision", "Kind", "Machine", "Sight", "decide", "look", "shares", "this_machine"]
