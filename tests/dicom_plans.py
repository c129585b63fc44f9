"""Structure sets and doses made by pydicom, as planning systems write them: on the slices of a series, or of a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicom_pair import DOSE, STRUCTURES, header
from semreg.core.geometry import Grid

Points = npt.NDArray[np.float64]


def on_slice(grid: Grid, plane: int, centre: Points, radii: Sequence[float], count: int = 180) -> Points | None:
    """The ellipse (3, N) in which an ellipsoid in the axes of a grid cuts one of its slices; None: it does not."""
    axes = np.asarray(grid.direction)
    middle = axes.T @ (centre - np.asarray(grid.origin_xyz))
    height = (plane * grid.spacing_xyz[2] - middle[2]) / radii[2]
    if abs(height) >= 1:
        return None
    angle = 2 * np.pi * np.arange(count) / count
    size = np.sqrt(1 - height**2)
    flat = [middle[0] + size * radii[0] * np.cos(angle), middle[1] + size * radii[1] * np.sin(angle)]
    flat.append(np.full(count, plane * grid.spacing_xyz[2]))
    return np.asarray(axes @ np.stack(flat) + np.asarray(grid.origin_xyz)[:, None])


def structures(headers: Sequence[Dataset], regions: Mapping[str, Sequence[tuple[str, Points]]]) -> Dataset:
    """A structure set on a series; of each region its contours by kind, points (3, N) in mm."""
    image = headers[0]
    data = header(STRUCTURES, "RTSTRUCT", SpecificCharacterSet="ISO_IR 192")
    for keyword in ("FrameOfReferenceUID", "StudyInstanceUID"):
        setattr(data, keyword, image[keyword].value)
    data.StructureSetLabel, data.StructureSetDate, data.StructureSetTime = "PLAN", "20240103", "120000"
    data.ApprovalStatus, data.ReviewDate, data.ReviewTime, data.ReviewerName = "APPROVED", "20240104", "1200", "R"
    data.StructureSetROISequence, data.ROIContourSequence, data.RTROIObservationsSequence = [], [], []
    for number, (name, contours) in enumerate(regions.items(), 1):
        region, drawn, observed = Dataset(), Dataset(), Dataset()
        region.ROINumber, region.ROIName, region.ROIGenerationAlgorithm = number, name, "MANUAL"
        region.ReferencedFrameOfReferenceUID = image.FrameOfReferenceUID
        drawn.ReferencedROINumber, drawn.ROIDisplayColor, drawn.ContourSequence = number, [255, 0, number], []
        observed.ObservationNumber, observed.ReferencedROINumber = number, number
        observed.RTROIInterpretedType, observed.ROIInterpreter = "ORGAN", ""
        for kind, points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, points.shape[1]
            contour.ContourData = [f"{value:.5f}" for value in points.T.ravel()]
            drawn.ContourSequence.append(contour)
        data.StructureSetROISequence.append(region)
        data.ROIContourSequence.append(drawn)
        data.RTROIObservationsSequence.append(observed)
    return data


def dose(image: Dataset, values: npt.NDArray[np.float64], grid: Grid) -> Dataset:
    """A dose in Gy (z, y, x) in 32 bits, in the frame of an image."""
    axes, spacing = np.asarray(grid.direction), grid.spacing_xyz
    data = header(DOSE, "RTDOSE")
    for keyword in ("FrameOfReferenceUID", "StudyInstanceUID"):
        setattr(data, keyword, image[keyword].value)
    data.DoseUnits, data.DoseType, data.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.NumberOfFrames, data.Rows, data.Columns = values.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 32, 32, 31, 0
    data.ImagePositionPatient = [f"{v:.9g}" for v in grid.origin_xyz]
    data.ImageOrientationPatient = [f"{v:.10f}" for v in axes[:, :2].T.ravel()]
    data.PixelSpacing, data.SliceThickness = [spacing[1], spacing[0]], spacing[2]
    data.FrameIncrementPointer = 0x3004000C
    data.GridFrameOffsetVector = [spacing[2] * plane for plane in range(len(values))]
    data.DoseGridScaling = "1e-7"
    data.PixelData = np.rint(values * 1e7).astype("<u4").tobytes()
    return data
