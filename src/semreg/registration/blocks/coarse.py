"""The registration in one piece that blocks start from: made by ``register``, kept in files, read from there."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from semreg.config import RegistrationConfig
from semreg.core.fields import Field
from semreg.core.geometry import Matrix
from semreg.features.extract import intensity_stats
from semreg.io.bridge import matrix_of
from semreg.io.bridge.kinds import TransformLike
from semreg.io.files import read_transforms, write_transform
from semreg.io.records import Recorded, record_of, stable_json
from semreg.preprocess.image_pair import Cleaned
from semreg.preprocess.intensities import Treatment
from semreg.registration.blocks.plan import LargePlan
from semreg.registration.blocks.sides import Intensities
from semreg.registration.blocks.store import Store
from semreg.registration.pipeline import register
from semreg.registration.result import Record
from semreg.runtime.events import OnStep
from semreg.transforms.chain import Chain

NAME, TRANSFORM, FACTS = "coarse", "coarse.h5", "coarse.json"


@dataclass(frozen=True, kw_only=True)
class Facts(Recorded):
    """What the registration in one piece says of both images, for all that follows."""

    fixed: Intensities
    moving: Intensities
    outside: float
    """What the moving image is taken for where it shows nothing."""
    record: Record

    @property
    def one_contrast(self) -> bool | None:
        """Whether both images show one contrast; None: nobody looked."""
        relation = self.record.intensity_relation
        return None if relation is None else relation.one_contrast


@dataclass(frozen=True)
class Coarse:
    """Where blocks start: a displacement, and the linear map that follows it."""

    deformation: Field
    after: Matrix | None
    facts: Facts


def is_begun(store: Store) -> bool:
    """Whether the registration in one piece is there already, in the folder of a run."""
    return store.inner(NAME).has(FACTS)


def coarse_of(
    plan: LargePlan, config: RegistrationConfig, store: Store, initial: TransformLike | None, on_step: OnStep | None
) -> Coarse:
    """The registration in one piece, unless it is there already; always read from its files."""
    if not store.has(FACTS):
        fixed, moving = (source.open().whole() for source in plan.coarse)
        found = register(fixed, moving, config=config, initial=initial, on_step=on_step)
        pair = found.pair
        if pair is None:
            raise RuntimeError("expected the images of a registration that was made here, got none")
        facts = Facts(
            fixed=_intensities(pair.treated["fixed"], found.record.intensities["fixed"]),
            moving=_intensities(pair.treated["moving"], found.record.intensities["moving"]),
            outside=pair.outside,
            record=found.record,
        )
        store.folder.mkdir(parents=True, exist_ok=True)
        write_transform(found.deformation, store.folder / TRANSFORM, found.affine)
        store.write_text(FACTS, stable_json(facts))
    path = store.folder / FACTS
    facts = record_of(Facts, json.loads(store.read_text(FACTS)), path)
    first, *rest = Chain.of(*read_transforms(store.folder / TRANSFORM)).links
    after = None if not rest else matrix_of(Chain(tuple(rest)).affine())
    return Coarse(first.field(), after, facts)


def _intensities(image: Cleaned, done: Treatment) -> Intensities:
    volume, weight = image
    cut = done.winsorised
    return Intensities(
        stats=intensity_stats(volume, weight),
        padding=done.padding is not None,
        limits=None if cut is None else (cut.low, cut.high),
    )


def largest_mm(field: Field) -> float:
    """The longest displacement along any axis."""
    return float(np.abs(field.mm().numpy()).max())
