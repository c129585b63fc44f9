"""Runs without what says where, by whom and of whose files they were made: the one place for ``--private``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from semreg.config import ModelConfig, RegistrationConfig
from semreg.features.catalogue import entries
from semreg.features.descriptors import DESCRIPTORS
from semreg.features.record import InferenceRecord
from semreg.io.image_files import checksum
from semreg.quality.run import EvaluationRun, ReadFile, RegisterRun, Run
from semreg.registration.matching import ModelReport
from semreg.runtime.texts import without

DIGITS = 12
"""Of a checksum, which stand for the name of a file."""

R = TypeVar("R", bound=Run | EvaluationRun)
F = TypeVar("F", bound=ReadFile)
N = TypeVar("N", bound=InferenceRecord)


def private(run: R) -> R:
    """The run with the checksums of its files in place of their names, and without its command line.

    Args:
        run: what a command found and did.

    Returns:
        The same with ``private`` set. A checksum is that of the content: nobody can find it by trying names. What the
        files themselves say, such as names of labels and of points, stays.
    """
    changes: dict[str, Any] = {"command": (), "private": True}
    if isinstance(run, EvaluationRun):
        changes["inputs"] = {role: tuple(map(_hidden, given)) for role, given in run.inputs.items()}
        changes["notes"] = tuple(without(note, names_in(run)) for note in run.notes)
    else:
        changes["inputs"] = {role: replace(_hidden(each), series=None) for role, each in run.inputs.items()}
        changes["settings"] = _settings(run.settings)
    if isinstance(run, RegisterRun):
        changes |= _models(run)
    return replace(run, **changes)


def private_inference(record: N) -> N:
    """The record of a run of a network, with checksums in place of names, and without its command line."""
    read, model = record.inputs, record.model
    if model.sha256 is not None and not _is_public(model.name):
        own = named(model.sha256)
        model = msgspec.structs.replace(model, name=own, spec=replace(model.spec, name=own))
    inputs = msgspec.structs.replace(
        read,
        image=msgspec.structs.replace(read.image, path=named(read.image.sha256)),
        mask=None if read.mask is None else msgspec.structs.replace(read.mask, path=named(read.mask.sha256)),
    )
    shown = None if model.path is None or model.sha256 is None else named(model.sha256)
    model = msgspec.structs.replace(model, path=shown)
    return msgspec.structs.replace(record, inputs=inputs, model=model, command=())


def names_in(run: Run | EvaluationRun) -> dict[str, str]:
    """The names of the files that a run read, and what they are called instead."""
    files = run.inputs.values()
    flat = [each for given in files for each in (given if isinstance(given, tuple) else (given,))]
    return {each.path: named(each.sha256) for each in flat}


def named(sha256: str) -> str:
    """What a file with this checksum is called."""
    return sha256[:DIGITS]


def _hidden(file: F) -> F:
    return replace(file, path=named(file.sha256))


def _is_public(model: str) -> bool:
    """Whether the name of a model is one of ours, and not that of a user's file."""
    known = {name.lower() for entry in entries() for name in (entry.name, entry.path)}
    return model in DESCRIPTORS or model.lower() in known


def _called(model: str) -> str:
    """What a model is called that the settings name."""
    if _is_public(model):
        return model
    return named(checksum(model)) if Path(model).is_file() else "model"


def _settings(settings: RegistrationConfig) -> RegistrationConfig:
    """The settings with checksums for the paths of models."""
    members = replace(settings.ensemble, models=tuple(map(_called, settings.ensemble.models)))
    start = None if settings.start is None else _called(settings.start)
    return replace(settings, start=start, models=tuple(map(_entry, settings.models)), ensemble=members)


def _entry(each: ModelConfig) -> ModelConfig:
    """One model of the settings, called by its checksum."""
    return replace(each, model=_called(each.model), moving=None if each.moving is None else _called(each.moving))


def _models(run: RegisterRun) -> dict[str, Any]:
    """What a run says of its models, with checksums for the names of those that are files."""
    entries = [*run.settings.models, *(each for contrast in run.contrasts for each in contrast.settings)]
    reports = [*run.models, *(each for contrast in run.contrasts for each in contrast.models)]
    files = [each for each in reports if each.sha256 is not None and not _is_public(each.name)]
    names = {each.name: named(each.sha256 or "") for each in files}
    given = [name for each in entries for name in (each.model, each.moving) if name is not None]
    given += run.settings.ensemble.models
    names |= {name: _called(name) for name in given if not _is_public(name)}

    def called(model: ModelReport) -> ModelReport:
        name = names.get(model.name, model.name)
        return replace(model, name=name, spec=None if model.spec is None else replace(model.spec, name=name))

    reasons = tuple(replace(each, sentence=without(each.sentence, names)) for each in run.plan.reasons)
    contrasts = tuple(
        replace(each, settings=tuple(map(_entry, each.settings)), models=tuple(map(called, each.models)))
        for each in run.contrasts
    )
    plan = replace(run.plan, reasons=reasons)
    start = run.start
    if start is not None and start.sha256 is not None:
        own = named(start.sha256)
        start = replace(start, name=own, spec=replace(start.spec, name=own))
    return {"models": tuple(map(called, run.models)), "plan": plan, "contrasts": contrasts, "start": start}
