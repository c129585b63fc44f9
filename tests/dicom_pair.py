"""Series of DICOM made by pydicom, as full as those of a scanner, on oblique slices 4 mm apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from semreg.core.geometry import Grid

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
STRUCTURES, DOSE = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.481.2"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def header(sop_class: str, modality: str, **more: Any) -> Dataset:
    """Patient, study, series and frame of reference; ``more`` by keyword."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 100"
    data.SOPClassUID, data.SOPInstanceUID = sop_class, generate_uid()
    data.PatientName, data.PatientID = "Müller^Jürgen", "P-17"
    data.PatientBirthDate, data.PatientSex = "19500102", "M"
    data.StudyInstanceUID, data.StudyID, data.AccessionNumber = generate_uid(), "1", "A1"
    data.StudyDate, data.StudyTime, data.ReferringPhysicianName = "20240102", "101112", ""
    data.Modality, data.SeriesInstanceUID, data.SeriesNumber = modality, generate_uid(), 3
    data.SeriesDescription, data.Manufacturer = f"{modality} thorax", "Maker"
    data.FrameOfReferenceUID, data.PositionReferenceIndicator = generate_uid(), ""
    for keyword, value in more.items():
        setattr(data, keyword, value)
    return data


def save(data: Dataset, path: Path) -> None:
    """Explicit little endian."""
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)


def write_series(folder: Path, values: npt.NDArray[Any], grid: Grid, common: Dataset) -> list[Dataset]:
    """One file a slice of values (z, y, x) in HU, stored as 12 bits with an intercept; the headers."""
    axes, spacing = np.asarray(grid.direction), grid.spacing_xyz
    headers = []
    for plane, pixels in enumerate(values):
        data = Dataset()
        data.update(common)
        data.SOPInstanceUID, data.InstanceNumber = generate_uid(), plane + 1
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.AcquisitionNumber, data.KVP, data.PatientPosition = 1, "120", "HFS"
        place = np.asarray(grid.origin_xyz) + axes[:, 2] * plane * spacing[2]
        data.ImagePositionPatient = [f"{v:.10g}" for v in place]
        data.ImageOrientationPatient = [f"{v:.10f}" for v in axes[:, :2].T.ravel()]
        data.PixelSpacing, data.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        data.SliceLocation, data.WindowCenter, data.WindowWidth = f"{plane * 4.0}", [40 + plane, 50], [400, 80]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns = pixels.shape
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "-1024", "1", "HU"
        block = data.private_block(0x0029, "A SCANNER", create=True)
        block.add_new(1, "LO", f"private {plane}")
        block.add_new(2, "OB", bytes(range(8)))
        data.PixelData = np.rint(pixels + 1024).clip(0, 4095).astype("<u2").tobytes()
        save(data, folder / f"slice{(plane * 7) % len(values):03d}.dcm")
        headers.append(data)
    return headers
