"""What all DICOM objects that are written have in common: UIDs, references, codes, whose they are, how they are saved.

The objects are data sets of pydicom, which is imported by the functions that need it.
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import semreg
from semreg.errors import ImageError
from semreg.io.atomic_output import atomic_file
from semreg.io.dicom_files import failures
from semreg.io.dicom_objects.headers import NEEDED, NEEDED_TOO, PATIENT, STUDY, DicomImage

MAKER = "semreg"
TEXT_LENGTH = 64
"""Of a value of the representation LO."""


def new_uid() -> str:
    """A UID that nobody has: a random number under 2.25 (PS3.5 B.2)."""
    import pydicom

    return str(pydicom.uid.generate_uid(prefix=None))


def fresh(header: Any = None, keywords: Sequence[str] | None = None) -> Any:
    """A new data set, with the elements of a header, or with those of ``keywords`` that it has."""
    import pydicom

    found = pydicom.Dataset()
    if header is not None:
        for tag in header.keys() if keywords is None else map(pydicom.tag.Tag, keywords):
            if tag in header:
                found[tag] = header.get_item(tag)
    return found


def put(data: Any, **values: Any) -> None:
    """Set elements by keyword in place of those that are there, which others may hold too; None: leave it out."""
    for keyword, value in values.items():
        if keyword in data:
            del data[keyword]
        if value is not None:
            setattr(data, keyword, value)


def item(**values: Any) -> Any:
    """A data set of these elements."""
    found = fresh()
    put(found, **values)
    return found


def code(value: str, meaning: str) -> Any:
    """A code of the DICOM Controlled Terminology (PS3.16 D), a sequence of one item."""
    return [item(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning=meaning)]


def number(value: float) -> Any:
    """A decimal string of at most 16 characters."""
    import pydicom

    return pydicom.valuerep.DSfloat(float(value) + 0.0, auto_format=True)


def decimals(values: Iterable[float]) -> list[Any]:
    """Decimal strings of numbers."""
    return [number(value) for value in values]


def reference(header: Any) -> Any:
    """The SOP Instance Reference Macro (PS3.3 Table 10-11) of a header."""
    return item(
        ReferencedSOPClassUID=str(header.get("SOPClassUID") or ""),
        ReferencedSOPInstanceUID=str(header.get("SOPInstanceUID") or ""),
    )


def references_by_series(image: DicomImage) -> Any:
    """One item of a Referenced Series Sequence (PS3.3 C.12.2)."""
    return item(
        SeriesInstanceUID=str(image.first.get("SeriesInstanceUID") or ""),
        ReferencedInstanceSequence=[reference(header) for header in image.headers],
    )


def refer_to(data: Any, images: Sequence[DicomImage]) -> None:
    """The Common Instance Reference Module: series of the own study, and those of others."""
    own = str(data.StudyInstanceUID)
    series: dict[str, dict[str, Any]] = {}
    for image in images:
        study = str(image.first.get("StudyInstanceUID") or "")
        series.setdefault(study, {})[str(image.first.get("SeriesInstanceUID") or "")] = references_by_series(image)
    others = [
        item(StudyInstanceUID=study, ReferencedSeriesSequence=list(each.values()))
        for study, each in series.items()
        if study != own
    ]
    put(
        data,
        ReferencedSeriesSequence=list(series.get(own, {}).values()) or None,
        StudiesContainingOtherReferencedInstancesSequence=others or None,
    )


def of_study(header: Any) -> Any:
    """A data set of the patient and the study of a header, with what both modules need."""
    data = fresh(header, ("SpecificCharacterSet", *PATIENT, *STUDY))
    for keyword in (*NEEDED, *NEEDED_TOO):
        if keyword not in data:
            put(data, **{keyword: ""})
    return data


def moved_to_study(data: Any, header: Any) -> Any:
    """The elements of a data set with the patient and the study of another, all texts in UTF-8."""
    own, other = copy.deepcopy(fresh(data)), of_study(copy.deepcopy(fresh(header)))
    own.decode()
    other.decode()
    put(own, **dict.fromkeys((*PATIENT, *STUDY, "DigitalSignaturesSequence", "MACParametersSequence")))
    own.update(other)
    put(own, SpecificCharacterSet="ISO_IR 192", InstanceNumber=1)
    if "OperatorsName" not in own:
        put(own, OperatorsName="")
    return own


def stamp(data: Any, sop_class: str) -> None:
    """A new SOP instance of today, made by semreg."""
    now = dt.datetime.now().astimezone()
    day, moment = now.strftime("%Y%m%d"), now.strftime("%H%M%S.%f")
    put(
        data, SOPClassUID=sop_class, SOPInstanceUID=new_uid(), InstanceCreationDate=day, InstanceCreationTime=moment,
        ContentDate=day, ContentTime=moment,
    )  # fmt: skip


def made_by_semreg(data: Any) -> None:
    """The Enhanced General Equipment Module."""
    put(
        data, Manufacturer=MAKER, ManufacturerModelName=MAKER, DeviceSerialNumber="none", SoftwareVersions=own_version()
    )


def contributed(data: Any, doing: str) -> None:
    """Say beside the scanner's equipment that semreg changed the object (Contributing Equipment Sequence)."""
    own = item(
        PurposeOfReferenceCodeSequence=code("109102", "Processing Equipment"), Manufacturer=MAKER,
        ManufacturerModelName=MAKER, SoftwareVersions=own_version(), ContributionDescription=doing,
    )  # fmt: skip
    put(data, ContributingEquipmentSequence=[*data.get("ContributingEquipmentSequence", ()), own])


def own_version() -> str:
    """The version of semreg."""
    return semreg.__version__[:TEXT_LENGTH]


def described(header: Any, word: str) -> str:
    """The description of a series with a word more, as long as it may be."""
    own = str(header.get("SeriesDescription") or header.get("Modality") or "").strip(" \0")
    return f"{own[: TEXT_LENGTH - len(word) - 1]} {word}".strip()


def save(data: Any, path: Path) -> None:
    """Write a data set as a file, explicit little endian, complete or not at all.

    Raises OutputError, and ImageError where an element that was handed on cannot be written.
    """
    import pydicom

    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    with atomic_file(path) as partial:
        try:
            pydicom.dcmwrite(partial, data, enforce_file_format=True)
        except OSError:
            raise
        except failures() as error:
            raise ImageError(
                f"expected a header that can be written again as {path.name}, got one with an element that cannot "
                f"({' '.join(str(error).split())[:100]}): correct it, or leave --dicom out"
            ) from error
