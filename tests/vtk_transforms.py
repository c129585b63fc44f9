"""What 3D Slicer makes of transforms of SimpleITK, in VTK and in RAS (vtkITKTransformConverter). Needs vtk."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import vtk


def vtk_linear(matrix):
    """A matrix as a transform of VTK."""
    made, held = vtk.vtkTransform(), vtk.vtkMatrix4x4()
    held.DeepCopy(matrix.ravel().tolist())
    made.SetMatrix(held)
    return made


def vtk_part(part):
    """A matrix or a displacement field of SimpleITK, LPS, as a transform of VTK in RAS, as Slicer makes one.

    VTK's grids have no direction, Slicer's have: the field is applied in its own axes, between two matrices.
    """
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    if part.GetName() != "DisplacementFieldTransform":
        matrix = np.eye(4)
        matrix[:3, 3] = part.TransformPoint((0.0, 0.0, 0.0))
        matrix[:3, :3] = np.transpose([part.TransformPoint(tuple(axis)) for axis in np.eye(3)]) - matrix[:3, 3:]
        return vtk_linear(flip @ matrix @ flip)
    field = sitk.DisplacementFieldTransform(part).GetDisplacementField()
    placed = np.eye(4)
    placed[:3, :3] = np.reshape(field.GetDirection(), (3, 3))
    placed[:3, 3] = field.GetOrigin()
    grid = vtk.vtkImageData()
    grid.SetDimensions(field.GetSize())
    grid.SetSpacing(field.GetSpacing())
    vectors = vtk.vtkDoubleArray()
    vectors.SetNumberOfComponents(3)
    for vector in sitk.GetArrayFromImage(field).reshape(-1, 3) @ placed[:3, :3]:
        vectors.InsertNextTuple3(*vector)
    grid.GetPointData().SetScalars(vectors)
    inner, whole = vtk.vtkGridTransform(), vtk.vtkGeneralTransform()
    inner.SetDisplacementGridData(grid)
    for each in (vtk_linear(flip @ placed), inner, vtk_linear(np.linalg.inv(flip @ placed))):
        whole.Concatenate(each)
    return whole
