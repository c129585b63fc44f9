"""All built-in descriptors by name: what each is for, and where it is written. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from semreg.runtime.registry import Row, Table

if TYPE_CHECKING:
    from semreg.features.descriptors.kind import Kind


@dataclass(frozen=True)
class DescriptorRow(Row):
    """Where the ``Kind`` of a descriptor is written, and what it is for."""

    use: str = ""


DESCRIPTORS: Table[DescriptorRow, Kind] = Table(
    "built-in model",
    {
        "mind": DescriptorRow(
            "semreg.features.descriptors.mind:MIND",
            "MIND-SSC, a formula: images of the same or of different modality",
        ),
        "intensity": DescriptorRow(
            "semreg.features.descriptors.intensity:INTENSITY", "the image itself: images of the same modality"
        ),
    },
)
"""Models without a file, by the name that ``model`` of the settings and ``--model`` take."""
