"""The distance of features as a loss of torch: for training networks that register, and for optimising at test time.

``ImpactLoss`` compares batches as a registration compares images: with its models, its distances and its reductions.
"""

from semreg.nn.impact_reg import IMPACTReg
from semreg.nn.loss import ImpactLoss
from semreg.nn.patches import Patches

__all__ = ["IMPACTReg", "ImpactLoss", "Patches"]
