"""Whose images these are, as DICOM headers say it. Knows nothing of files and of pixels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger("semreg")

KEYWORDS = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")
"""What tells patients apart: Patient Module, PS3.3 C.7.1.1."""
SHOWN = ("PatientID", "PatientBirthDate")
"""What a message may say of a patient."""


@dataclass(frozen=True)
class Patient:
    """What a header says of the patient; empty where it says nothing."""

    said: tuple[tuple[str, str], ...]
    """Keyword and value, in the order of ``KEYWORDS``."""

    @classmethod
    def of(cls, header: Any) -> Patient:
        """The patient of a data set of pydicom."""
        return cls(tuple((name, str(header.get(name) or "").strip(" \0")) for name in KEYWORDS))

    def differs_in(self, other: Patient) -> tuple[str, ...]:
        """What both say, and not alike; the case of letters and the marks between parts of a name do not count."""
        mine, theirs = dict(self.said), dict(other.said)
        return tuple(
            name for name in KEYWORDS if mine[name] and theirs[name] and _plain(mine[name]) != _plain(theirs[name])
        )

    def __str__(self) -> str:
        """What a message may say: no name."""
        return ", ".join(f"{name} {value!r}" for name, value in self.said if name in SHOWN and value) or "no PatientID"


@dataclass(frozen=True)
class Origin:
    """What a DICOM header says of where an image comes from."""

    patient: Patient
    frame: str
    """The Frame of Reference UID, empty where there is none: places in mm are comparable within one."""

    @classmethod
    def of(cls, header: Any) -> Origin:
        """That of a data set of pydicom."""
        return cls(Patient.of(header), str(header.get("FrameOfReferenceUID") or ""))


def say_if_two(origins: Mapping[str, Origin | None], *, private: bool = False) -> bool:
    """Warn where headers are of two patients, before their images are mixed.

    Args:
        origins: of each image, by its role; None: it says nothing of a patient.
        private: say in what they differ, and no value of it.

    Returns:
        Whether they differ.
    """
    known = [(role, origin.patient) for role, origin in origins.items() if origin is not None]
    for role, patient in known[1:]:
        first, reference = known[0]
        different = reference.differs_in(patient)
        if different:
            hint = "" if private else f" ({first}: {reference}; {role}: {patient})"
            logger.warning(
                "the %s and the %s are of two patients by their headers: they differ in %s%s; check that they "
                "belong together",
                first, role, ", ".join(different), hint,
            )  # fmt: skip
            return True
    return False


def _plain(text: str) -> str:
    return " ".join(text.replace("^", " ").replace("=", " ").split()).casefold()
