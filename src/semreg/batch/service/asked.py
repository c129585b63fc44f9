"""What may be asked for in a job, and how it is checked: roles of files, their endings, settings without paths.

Nothing that comes from outside becomes a path: of the name of a file its ending counts alone, and that only where it is
in a table; a model is a name, or a file in a folder that who runs the service has named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from semreg.config import ModelConfig, RegistrationConfig
from semreg.errors import ConfigError, ImageError
from semreg.features.descriptors import DESCRIPTORS
from semreg.io.hdf5_images import is_hdf5
from semreg.io.text_headers import META, NRRD, names_of_voxels
from semreg.presets import effort_names, layered, load_preset
from semreg.runtime.settings import toml_table
from semreg.runtime.terms import nearest
from semreg.runtime.texts import parse_json, shown

Role = Literal["fixed", "moving", "fixed_mask", "moving_mask"]
ROLES: tuple[Role, ...] = ("fixed", "moving", "fixed_mask", "moving_mask")
"""Names of the parts that are files; the first two are needed."""
FLAGS = ("inverse", "jacobian", "dicom")
"""Names of the parts that are true or false: flags of ``semreg register``."""
TEXTS = ("preset", "effort", "settings", *FLAGS)
"""Names of the parts that are texts."""
SERIES = ".zip"
"""A DICOM series, its slices in one archive."""
ENDINGS = (
    ".nii.gz", ".nii", ".nrrd", ".mha", ".mgz", ".mgh", ".dcm", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff",
    SERIES,
)  # fmt: skip
"""Of images that are in one file and name no other; MINC and Zarr may lead to files elsewhere, pairs are two files."""
CATALOGUE_NAME = re.compile(r"(?!\.)(?:[\w.-]+/)?[\w-]+")
"""Names as the catalogue has them, such as ``ts/m730``. The last part has no dot, so no file of a job is one."""
WORDS = ("description", "why")
"""What settings may hold for their reader."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a job is to do, checked."""

    files: Mapping[str, str]
    """The name of the file, or of the folder of slices, in the folder of the job, by its role."""
    config: RegistrationConfig
    flags: tuple[str, ...] = ()
    """Those of ``FLAGS`` that are wanted."""


def ending_of(name: str) -> str:
    """The ending of the name of an image, from the table alone (ImageError for another)."""
    low = name.lower()
    for ending in ENDINGS:
        if low.endswith(ending):
            return ending
    raise ImageError(f"expected images whose names end in {', '.join(ENDINGS)}, got another: convert it")


def asked_of(files: Mapping[str, str], texts: Mapping[str, str], models: Sequence[Path]) -> Asked:
    """What the parts of a request ask for (ConfigError, with the nearest name, for settings that are none).

    Args:
        files: names in the folder of the job, by their role.
        texts: the other parts, by their name.
        models: folders that models may come from.

    Returns:
        What is to be done.
    """
    for role in ROLES[:2]:
        if role not in files:
            raise ConfigError(f"expected the parts fixed and moving with an image each, got no {role}: add it")
    return Asked(
        files=files,
        config=config_of(texts, models),
        flags=tuple(name for name in FLAGS if _yes(texts, name)),
    )


def config_of(texts: Mapping[str, str], models: Sequence[Path]) -> RegistrationConfig:
    """The settings: the defaults, the preset, the settings in TOML or JSON, the effort, each over those before."""
    layers: list[Mapping[str, Any]] = []
    if "preset" in texts:
        layers.append(load_preset(texts["preset"]).settings)
    if "settings" in texts:
        layers.append(_table(texts["settings"]))
    if "effort" in texts:
        if texts["effort"] not in effort_names():
            raise ConfigError(f"expected effort of {' or '.join(effort_names())}, got {shown(texts['effort'])!r}")
        layers.append(load_preset(texts["effort"]).settings)
    return _without_paths(layered(*layers), models)


def check_name(name: str) -> None:
    """Refuse a part that means nothing (ConfigError, with the nearest name)."""
    known = (*ROLES, *TEXTS)
    if name not in known:
        meant = nearest(name, list(known))
        hint = f": did you mean {meant}?" if meant else ""
        raise ConfigError(f"expected parts called {', '.join(known)}, got {shown(name)!r}{hint}")


def check_alone(path: Path) -> None:
    """Refuse an image that may lead to other files (ImageError): they would be files of this machine.

    Headers of MetaImage and NRRD may name the files of their voxels, and so may HDF5, whatever its name.
    """
    if is_hdf5(path):
        raise ImageError("expected an image in the format that its name says, got HDF5: convert it")
    try:
        alone = not path.name.endswith((*META, *NRRD)) or not names_of_voxels(path)
    except ImageError:
        alone = False
    if not alone:
        raise ImageError(
            "expected an image with its voxels in the same file and a header as ITK writes it, got another: "
            "write it anew, or as NIfTI"
        )


def _table(text: str) -> Mapping[str, Any]:
    """The settings in a text of TOML or JSON as tables."""
    if text.lstrip().startswith("{"):
        try:
            found = parse_json(text)
        except ValueError as error:
            raise ConfigError(f"expected settings in JSON, got: {shown(str(error))}") from error
    else:
        found = toml_table(text)
    return {name: value for name, value in found.items() if name not in WORDS}


def _yes(texts: Mapping[str, str], name: str) -> bool:
    given = texts.get(name, "false").strip().lower()
    if given not in ("true", "false"):
        raise ConfigError(f"expected {name} as true or false, got {shown(given)!r}")
    return given == "true"


def _without_paths(config: RegistrationConfig, models: Sequence[Path]) -> RegistrationConfig:
    """The settings, with files of the named folders in place of their names there (ConfigError for any other)."""

    def entry(model: ModelConfig) -> ModelConfig:
        moving = None if model.moving is None else _model(model.moving, models)
        return replace(model, model=_model(model.model, models), moving=moving)

    members = tuple(_model(name, models) for name in config.ensemble.models)
    return replace(
        config,
        models=tuple(map(entry, config.models)),
        ensemble=replace(config.ensemble, models=members),
        start=None if config.start is None else _file_of(config.start, models),
    )


def _model(name: str, models: Sequence[Path]) -> str:
    """What a model is called for the command: as it is, or the file in one of the folders."""
    if name in DESCRIPTORS:
        return name
    if models and CATALOGUE_NAME.fullmatch(name) and not any((folder / name).is_file() for folder in models):
        return name
    return _file_of(name, models)


def _file_of(name: str, models: Sequence[Path]) -> str:
    parts = PurePosixPath(name).parts
    plain = bool(parts) and not name.startswith("/") and not {"..", "~"} & set(parts) and "\0" not in name
    for folder in models if plain else ():
        if (folder / name).is_file():
            return str((folder / name).absolute())
    own = " or ".join(DESCRIPTORS)
    there = f"{own}, or a file in the folder of models of this service" if models else f"{own}, as there are no others"
    raise ConfigError(f"expected a model called {there}, got {shown(name)!r}: ask who runs the service for it")
