"""DICOM files and folders, nearly right: one odd file beside a series, or within it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from fuzz_harness import Case
from fuzz_images import STAY
from fuzz_kinds import Kind, Seed

CT, ENHANCED = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"
SEGMENTATION, STRUCTURES, DOSE = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("66.4", "481.3", "481.2"))
SERIES = "1.2.826.0.1.3680043.2.1125.5"
MPEG = "1.2.840.10008.1.2.4.102"


def made(
    number: int = 0, *, series: str = SERIES, kind: str = CT, syntax: str = ExplicitVRLittleEndian, **tags: Any
) -> bytes:
    """One slice of a series, 2 mm above the one before it, with other values of some tags; None: without it."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = kind
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{series}.{number + 1}"
    pixels = (np.arange(30).reshape(5, 6) + 100 * number).astype(">i2" if syntax == ExplicitVRBigEndian else "<i2")
    told = {
        "SeriesInstanceUID": series, "StudyInstanceUID": "1.2.3", "Modality": "CT", "Rows": 5, "Columns": 6,
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16,
        "HighBit": 15, "PixelRepresentation": 1, "PixelSpacing": [0.7, 0.9], "RescaleSlope": 1, "RescaleIntercept": 0,
        "ImagePositionPatient": [0, 0, 2 * number], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelData": pixels.tobytes(),
    } | tags  # fmt: skip
    for name, value in told.items():
        if value is not None:
            setattr(data, name, value)
    if "PixelData" in data:
        data["PixelData"].VR = "OW"
    if syntax == RLELossless and "PixelData" not in tags:
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(RLELossless, encoding_plugin="pydicom")
    elif syntax in (RLELossless, MPEG):
        data.PixelData = pydicom.encaps.encapsulate([told["PixelData"]])
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def slices() -> dict[str, bytes]:
    """A series of four slices in a folder."""
    return {f"s/{number}.dcm": made(number) for number in range(4)}


def shared() -> dict[str, bytes]:
    """A transform that moves nothing."""
    return {"stay.tfm": STAY}


def commands(name: str) -> tuple[tuple[str, ...], ...]:
    """What is done with a file or a folder."""
    return (
        ("apply", "../shared/stay.tfm", "-i", name, "-r", name, "-o", "out.nii"),
        ("jacobian", "../shared/stay.tfm", "-r", name, "-o", "out.nii"),
    )


def several(kind: str = ENHANCED, **tags: Any) -> bytes:
    """Three frames in one file, each with its position."""

    def item(**values: Any) -> Dataset:
        data = Dataset()
        for name, value in values.items():
            setattr(data, name, value)
        return data

    frames = [
        item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 2 * n])],
             SegmentIdentificationSequence=[item(ReferencedSegmentNumber=1)])
        for n in range(3)
    ]  # fmt: skip
    measures = item(PixelSpacing=[0.7, 0.9], SliceThickness=2)
    both = item(
        PixelMeasuresSequence=[measures], PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    )
    return made(
        kind=kind, NumberOfFrames=3, PixelData=np.arange(90, dtype="<i2").tobytes(), PixelSpacing=None,
        ImagePositionPatient=None, ImageOrientationPatient=None, PerFrameFunctionalGroupsSequence=frames,
        SharedFunctionalGroupsSequence=[both], **tags,
    )  # fmt: skip


def seeds() -> list[Seed]:
    """A slice of each encoding, several frames, and a series of which one file is changed."""
    files = {
        "a.dcm": made(), "implicit.dcm": made(syntax=ImplicitVRLittleEndian),
        "big.dcm": made(syntax=ExplicitVRBigEndian),
        "packed.dcm": made(syntax=RLELossless), "frames.dcm": several(),
    }  # fmt: skip
    found = [
        Seed(name=name, data=data, arguments=commands(name), outputs=("out.nii",), text=False)
        for name, data in files.items()
    ]
    beside = slices()
    changed = beside.pop("s/2.dcm")
    folder = Seed(
        name="s/2.dcm", data=changed, arguments=commands("s"), outputs=("out.nii",), beside=beside, text=False
    )
    return [*found, folder, folder]


ODD: dict[str, dict[str, Any]] = {
    "samples 0": {"SamplesPerPixel": 0}, "samples 2": {"SamplesPerPixel": 2}, "rows 0": {"Rows": 0},
    "no rows": {"Rows": None},
    "palette": {"PhotometricInterpretation": "PALETTE COLOR"}, "bits 7": {"BitsAllocated": 7},
    "bits 0": {"BitsAllocated": 0},
    "bomb": {"Rows": 65535, "Columns": 65535, "NumberOfFrames": 9999}, "frames -3": {"NumberOfFrames": -3},
    "no pixels": {"PixelData": None}, "short": {"PixelData": bytes(20)}, "spacing 0": {"PixelSpacing": [0, 0]},
    "run lengths": {"syntax": RLELossless, "PixelData": b"no stream" * 8},
    "film": {"syntax": MPEG, "PixelData": b"no stream" * 8},
}  # fmt: skip
"""What makes a file unreadable: beside a series it is left out, within it the series is refused."""
OF_ANOTHER_KIND: dict[str, dict[str, Any]] = {
    "structures": {"kind": STRUCTURES, "Rows": None, "Columns": None, "PixelData": None, "Modality": "RTSTRUCT"},
    "segments": {"kind": SEGMENTATION, "Modality": "SEG"}, "dose": {"kind": DOSE, "Modality": "RTDOSE"},
    "report": {"kind": "1.2.840.10008.5.1.4.1.1.88.11", "Rows": None, "PixelData": None, "Modality": "SR"},
}  # fmt: skip
CHOSEN = ("run lengths", "film")
"""What looks like a series of its own: without a choice the folder is refused with a list."""


def known() -> list[Case]:
    """Series with a file that is odd, damaged or of another kind, beside them or within."""
    read, cases = commands("s")[0], []

    def case(what: str, files: dict[str, bytes], *, refused: bool) -> None:
        outputs = () if refused else ("out.nii",)
        name = f"dicom/known/{what}"
        cases.append(Case(name=name, arguments=read, files=files, outputs=outputs, refused=refused))

    for what, tags in ODD.items():
        case(f"{what} beside", slices() | {"s/odd.dcm": made(9, series="1.2.9", **tags)}, refused=what in CHOSEN)
        case(f"{what} within", slices() | {"s/2.dcm": made(2, **tags)}, refused=True)
    for what, tags in OF_ANOTHER_KIND.items():
        case(f"{what} beside", slices() | {"s/odd.dcm": made(9, series="1.2.9", **tags)}, refused=False)
        case(f"{what} within", slices() | {"s/odd.dcm": made(9, **tags)}, refused=False)
    whole = made(2)
    for share in (0.05, 0.2, 0.5, 0.8, 0.97):
        case(f"cut to {share}", slices() | {"s/2.dcm": whole[: int(len(whole) * share)]}, refused=True)
    for what, data in {
        "archive": b"PK" + bytes(99), "text": b"notes", "nothing": b"", "words": b"x" * 500, "old": whole[132:200],
    }.items():  # fmt: skip
        case(what, slices() | {"s/notes": data}, refused=False)
    for what, data in {"head": bytes(128) + b"DICM", "noise": bytes(128) + b"DICM" + b"\xff" * 300}.items():
        case(what, slices() | {"s/odd": data}, refused=True)
    other = made(2, PixelData=bytes(60))
    case("same instance", slices() | {"s/odd.dcm": other}, refused=True)
    case("copy", slices() | {"s/odd.dcm": whole}, refused=False)
    for what, value in {"none": None, "far": [0, 0, 1e30]}.items():
        case(f"position {what}", slices() | {"s/2.dcm": made(2, ImagePositionPatient=value)}, refused=True)
    return cases


KIND = Kind(name="dicom", shared=shared, seeds=seeds, known=known, modules=("pydicom.pixels", "semreg.io.dicom"))
