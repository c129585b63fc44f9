"""Feature models without a file: formulas, nothing has to be downloaded. Importing this imports no torch."""

from semreg.features.descriptors.table import DESCRIPTORS

__all__ = ["DESCRIPTORS"]
