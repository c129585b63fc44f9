"""Polydata of VTK in XML."""

from __future__ import annotations

from semreg.transforms.points.contract import PointFormat
from semreg.transforms.points.meshes import parse_vtp, point_file

VTP = PointFormat(lambda data, ras: point_file(parse_vtp(data), ras))
