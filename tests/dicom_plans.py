"""Structure sets and doses made by pydicom, as planning systems write them: on the slices of a series, or of a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicom_pair import DOSE, SEGMENTATION, STRUCTURES, header
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


def segmentation(image: Dataset, labels: npt.NDArray[np.int64], grid: Grid, names: Mapping[int, str]) -> Dataset:
    """A binary segmentation (z, y, x) in the frame of an image, one frame for each segment in each slice it is in."""
    axes, spacing = np.asarray(grid.direction), grid.spacing_xyz
    data = header(SEGMENTATION, "SEG")
    for keyword in ("FrameOfReferenceUID", "StudyInstanceUID"):
        setattr(data, keyword, image[keyword].value)
    data.SegmentationType, data.ContentLabel, data.ContentDescription, data.ContentCreatorName = "BINARY", "S", "", ""
    data.SamplesPerPixel, data.PhotometricInterpretation, data.LossyImageCompression = 1, "MONOCHROME2", "00"
    data.Rows, data.Columns = labels.shape[1:]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 1, 1, 0, 0
    data.SegmentSequence, data.PerFrameFunctionalGroupsSequence, frames = [], [], []
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [spacing[1], spacing[0]], spacing[2]
    measures.SpacingBetweenSlices = spacing[2]
    orientation.ImageOrientationPatient = [f"{v:.10f}" for v in axes[:, :2].T.ravel()]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    data.SharedFunctionalGroupsSequence = [shared]
    for label, name in names.items():
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel, segment.SegmentAlgorithmType = label, name, "MANUAL"
        data.SegmentSequence.append(segment)
        for plane in np.flatnonzero((labels == label).any((1, 2))):
            frame, place, which = Dataset(), Dataset(), Dataset()
            first = np.asarray(grid.origin_xyz) + axes[:, 2] * plane * spacing[2]
            place.ImagePositionPatient = [f"{v:.9g}" for v in first]
            which.ReferencedSegmentNumber = label
            frame.PlanePositionSequence, frame.SegmentIdentificationSequence = [place], [which]
            data.PerFrameFunctionalGroupsSequence.append(frame)
            frames.append(labels[plane] == label)
    data.NumberOfFrames = len(frames)
    packed = np.packbits(np.stack(frames).ravel(), bitorder="little").tobytes()
    data.PixelData = packed + b"\0" * (len(packed) % 2)
    data["PixelData"].VR = "OB"
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
