"""How other tools store points: one file a format. Importing this imports no torch."""

from semreg.transforms.points.table import POINTS

__all__ = ["POINTS"]
