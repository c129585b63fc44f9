"""The known models, and only what their sources state of them; what they do not state is named in ``Entry.unknown``.

Sources: the zoo of IMPACT (huggingface.co/VBoussot/impact-torchscript-models), the scripts that exported it
(github.com/vboussot/ImpactLoss, ``Data/Models``), and the papers and repositories of the original networks.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from semreg.errors import ModelError, ModelNotFoundError
from semreg.features.contract import ModelSpec, Normalisation
from semreg.features.descriptors import DESCRIPTORS

ZOO = "VBoussot/impact-torchscript-models"
PINNED = "47ffad660e67cebbac8d74aecf0fa181c5dac042"
"""The revision of the zoo that holds one file a network; KonfAI's registration reads the same one."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One known model: a file in a repository of the Hugging Face Hub, and how to use it."""

    name: str
    """How it is asked for, such as ``ts/m730``."""
    path: str
    """The file in the repository."""
    repository: str = ZOO
    revision: str | None = None
    """Commit that is fetched. None: ``main``, whatever that is at the time."""
    use: str
    """What it was made for."""
    field_of_view: tuple[int, ...] = ()
    """Voxels (edge) that one value of each output sees, where the source states it."""
    unknown: tuple[str, ...] = ()
    """What the source does not state, in words."""
    earlier: bool = False
    """Of the zoo's first layout, one file for each number of layers, which its ``main`` may not hold any more."""
    spec: ModelSpec = field(default_factory=ModelSpec)
    """How an image must be prepared; licence and source are there too."""


def entries() -> list[Entry]:
    """All known models that have a file, those of the zoo's present layout first."""
    return list(_entries())


def find(name: str) -> Entry:
    """The model called ``name`` (or by its path in the repository), in any case of letters.

    Raises ModelNotFoundError with the nearest name, and ModelError for a model that is built in and has no file.
    """
    wanted = name.lower()
    if wanted in DESCRIPTORS:
        raise ModelError(f"expected a model that has a file, got {name!r}, which is built in: use it by its name")
    for entry in _entries():
        if wanted in (entry.name, entry.path.lower()):
            return entry
    names = [entry.name for entry in _entries()]
    nearest = difflib.get_close_matches(wanted, names, n=1, cutoff=0.0)[0]
    raise ModelNotFoundError(f"expected a model that the catalogue knows, got {name!r}: did you mean {nearest!r}?")


@cache
def _entries() -> tuple[Entry, ...]:
    return (*_totalsegmentator(), *_others(), *_mind(), *_earlier_totalsegmentator(), *_earlier_others())


APACHE = "Apache-2.0"
TS_CT = "TotalSegmentator, doi:10.1148/ryai.230024, github.com/wasserth/TotalSegmentator"
TS_MR = "TotalSegmentator MRI, arXiv:2405.19492, github.com/wasserth/TotalSegmentator"
SAM = "SAM 2, arXiv:2408.00714, github.com/facebookresearch/sam2"
DINO = "DINOv2, arXiv:2304.07193, github.com/facebookresearch/dinov2"
ANATOMIX = "anatomix, arXiv:2411.02372, github.com/neel-dey/anatomix"
MIND = "MIND-SSC, doi:10.1007/978-3-642-40811-3_24"

UNET_VIEW = (5, 11, 23, 47, 95, 191, 191, 191)
"""Of the six-stage U-Nets: six encoder outputs, the decoder's, and the segmentation."""

_Task = tuple[int, str, str, float | None, bool]
TASKS: tuple[_Task, ...] = (  # task of TotalSegmentator, modality, what it segments, voxel size in mm, six stages
    (258, "CT", "lung vessels", None, False),
    (291, "CT", "organs", 1.5, True),
    (292, "CT", "vertebrae", 1.5, True),
    (293, "CT", "heart and great vessels", 1.5, True),
    (294, "CT", "muscles and bones", 1.5, True),
    (295, "CT", "ribs", 1.5, True),
    (297, "CT", "all 117 structures", 3.0, False),
    (298, "CT", "all 117 structures", 6.0, False),
    (730, "MR", "organs", 1.5, True),
    (731, "MR", "muscles and bones", 1.5, True),
    (732, "MR", "all 56 structures", 3.0, False),
    (733, "MR", "all 56 structures", 6.0, False),
    (850, "MR", "organs", 1.5, True),
    (851, "MR", "muscles and bones", 1.5, True),
    (852, "MR", "all 50 structures", 3.0, False),
    (853, "MR", "all 50 structures", 6.0, False),
)


def _totalsegmentator() -> Iterator[Entry]:
    """One file a task; it normalises inside and turns the image by the direction that it is given."""
    for task, modality, organs, spacing, six_stages in TASKS:
        yield Entry(
            name=f"ts/m{task}",
            path=f"TS/M{task}.pt",
            revision=PINNED,
            use=f"{modality}: segments {organs}",
            field_of_view=UNET_VIEW if six_stages else (),
            unknown=_missing(spacing=spacing, field_of_view=six_stages),
            spec=ModelSpec(
                name=f"ts/m{task}",
                spacing_mm=None if spacing is None else (spacing,),
                layers=(1,),  # what the zoo's recommended parameter map compares
                licence=APACHE,
                source=TS_CT if modality == "CT" else TS_MR,
                contrast="CT" if modality == "CT" else "MR and CT",
            ),
        )


def _others() -> Iterator[Entry]:
    yield Entry(
        name="mrseg",
        path="MRSeg/MRSeg.pt",
        revision=PINNED,
        use="MR and CT: segments 40 structures of the trunk",
        unknown=_missing(spacing=None, field_of_view=False),
        spec=ModelSpec(
            name="mrseg",
            axes="SPL",
            licence=APACHE,
            source="MRSegmentator, arXiv:2405.06463, github.com/hhaentze/MRSegmentator",
            contrast="MR and CT",
        ),
    )
    for size in ("tiny", "small"):
        yield Entry(
            name=f"sam2.1/{size}",
            path=f"SAM2.1/SAM2.1_{size.capitalize()}.pt",
            revision=PINNED,
            use="any image, slice by slice: encoder of a general segmentation model, 4 outputs",
            unknown=_missing(spacing=None, field_of_view=False),
            spec=_photographs(f"sam2.1/{size}", SAM),
        )
    yield Entry(
        name="dinov2/small",
        path="DinoV2/Small.pt",
        use="any image, slice by slice: one vector of 384 values for 14 × 14 pixels",
        unknown=("which revision holds it: the folder was renamed later", *_missing(spacing=None)),
        spec=_photographs("dinov2/small", DINO, patch=14),
    )
    yield Entry(
        name="anatomix",
        path="Anatomix/Anatomix.pt",
        revision=PINNED,
        use="images of any contrast: 16 features that ignore it, at full resolution",
        unknown=_missing(spacing=None, field_of_view=False),
        spec=ModelSpec(name="anatomix", multiple=16, licence="MIT", source=ANATOMIX, contrast="synthetic, any"),
    )


def _mind() -> Iterator[Entry]:
    dimensions: tuple[Literal[2, 3], ...] = (2, 3)
    for dimension in dimensions:
        for radius in (1, 2):
            for dilation in (1, 2):
                name = f"mind/r{radius}d{dilation}-{dimension}d"
                known = (radius, dilation, dimension) == (1, 2, 3)
                yield Entry(
                    name=name,
                    path=f"MIND/R{radius}D{dilation}_{dimension}D.pt",
                    revision=PINNED,
                    use=f"any image: MIND-SSC as the zoo computes it, radius {radius}, dilation {dilation}",
                    field_of_view=(5,) if known else (),
                    unknown=_missing(field_of_view=known),
                    spec=ModelSpec(name=name, dimension=dimension, licence=APACHE, source=MIND, contrast="any"),
                )


def _earlier_totalsegmentator() -> Iterator[Entry]:
    """The files with the first k outputs of the first twelve tasks, which neither normalise nor turn the image."""
    for task, modality, organs, spacing, six_stages in TASKS[:12]:
        for layers in range(1, 9):
            yield Entry(
                name=f"ts/m{task}-{layers}",
                path=f"TS/M{task}_{layers}_Layers.pt",
                use=f"{modality}: segments {organs}; the first {layers} outputs",
                field_of_view=UNET_VIEW[:layers] if six_stages else (),
                unknown=_missing(spacing=spacing, field_of_view=six_stages),
                earlier=True,
                spec=ModelSpec(
                    name=f"ts/m{task}-{layers}",
                    spacing_mm=None if spacing is None else (spacing,),
                    axes="SAR",
                    normalisation=_EARLIER_CT if modality == "CT" else Normalisation(kind="z-score"),
                    licence=APACHE,
                    source=TS_CT if modality == "CT" else TS_MR,
                    contrast="CT" if modality == "CT" else "MR and CT",
                ),
            )


_EARLIER_CT = Normalisation(kind="window", window=(-1024.0, 276.0), to=(-654.0 / 436.6, 646.0 / 436.6))
"""Clipped, then minus −370 HU and divided by 436.6 HU."""


def _earlier_others() -> Iterator[Entry]:
    for layers in range(1, 6):
        yield Entry(
            name=f"sam2.1/tiny-{layers}",
            path=f"SAM2.1/Tiny_{layers}_Layers.pt",
            use=f"any image, slice by slice: encoder of a general segmentation model, the first {layers} outputs",
            unknown=_missing(spacing=None, field_of_view=False),
            earlier=True,
            spec=_photographs(f"sam2.1/tiny-{layers}", SAM, normalisation=_EARLIER_PHOTOGRAPHS),
        )
    for radius in (1, 2):
        for dilation in (1, 2):
            yield Entry(
                name=f"mind/r{radius}d{dilation}",
                path=f"MIND/R{radius}D{dilation}.pt",
                use=f"any image: MIND-SSC as the zoo computes it, radius {radius}, dilation {dilation}",
                unknown=_missing(field_of_view=False),
                earlier=True,
                spec=ModelSpec(name=f"mind/r{radius}d{dilation}", licence=APACHE, source=MIND, contrast="any"),
            )


_EARLIER_PHOTOGRAPHS = Normalisation(kind="min-max", to=(-0.485 / 0.229, 0.515 / 0.229))
"""To 0..1, then minus 0.485 and divided by 0.229."""


def _photographs(
    name: str, source: str, patch: int | None = None, normalisation: Normalisation | None = None
) -> ModelSpec:
    """A 2-D network that was trained on photographs, with three channels."""
    return ModelSpec(
        name=name,
        dimension=2,
        channels=3,
        patch=None if patch is None else (patch,),
        multiple=patch,
        normalisation=normalisation or Normalisation(),
        licence=APACHE,
        source=source,
        contrast="photographs",
    )


def _missing(**stated: object) -> tuple[str, ...]:
    """The words for what is None or False."""
    words = {"spacing": "voxel size: not stated by the source", "field_of_view": "field of view: not stated"}
    return tuple(words[name] for name, value in stated.items() if value is None or value is False)
