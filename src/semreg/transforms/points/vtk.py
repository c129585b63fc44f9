"""Meshes of VTK in the legacy format; the same ending may hold an image."""

from __future__ import annotations

from semreg.transforms.points.contract import PointFormat
from semreg.transforms.points.meshes import is_mesh, parse_vtk, point_file

VTK = PointFormat(lambda data, ras: point_file(parse_vtk(data), ras), is_mesh)
