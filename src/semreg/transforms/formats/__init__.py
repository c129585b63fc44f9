"""How other tools store transforms: one file a tool. Importing this imports no SimpleITK and no torch."""

from semreg.transforms.formats.table import FORMATS

__all__ = ["FORMATS"]
