"""The flags of ``register``, ``align`` and ``batch`` and the settings they stand for. Reads no image."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from semreg.cli.common import Device, Dicom, FailOn, Folders, ImageFiles, JsonMessages, Private, Threads
from semreg.cli.contrast_flags import ContrastFlags
from semreg.cli.guidance_flags import GuidanceFlags
from semreg.cli.model_flags import ModelFlags, model_configs
from semreg.cli.panels import ALIGNMENT, DEFORMATION, GUIDANCE, INPUT, MESSAGES, OUTPUT, SETTINGS, argument, flag
from semreg.cli.report_output import ProofFlags
from semreg.cli.settings_file import OFF, find_settings
from semreg.errors import ConfigError
from semreg.io.result_folder import CONFIG, INVERSE, PAGE, RECORD, REGISTRATION, TRANSFORM

if TYPE_CHECKING:
    from semreg.config import RegistrationConfig


logger = logging.getLogger("semreg")


class Alignment(StrEnum):
    """What the alignment looks for: ``align.transform`` of the settings."""

    AUTO = "auto"
    NONE = "none"
    TRANSLATION = "translation"
    RIGID = "rigid"
    SIMILARITY = "similarity"
    AFFINE = "affine"


Align = Annotated[
    Alignment | None,
    flag(
        "Before the deformation: auto, none, translation, rigid, similarity or affine.",
        "KIND",
        "--align",
        panel=ALIGNMENT,
    ),
]
Modality = Annotated[
    str | None,
    flag("What the images are: ct, mr or other; ct,mr: the fixed, the moving.", "KIND", "--modality", panel=INPUT),
]
BodyMask = Annotated[
    bool | None, flag("Leave out table and air around the body.", None, "--body-mask/--no-body-mask", panel=ALIGNMENT)
]
Seed = Annotated[int | None, flag("Seed of all random numbers; same as --set seed=N.", "N", panel=SETTINGS, min=0)]
Config = Annotated[
    Path | None,
    flag(
        "Settings in TOML, as config.toml of a run; with it, or with none, no semreg.toml is looked for.",
        "FILE",
        panel=SETTINGS,
    ),
]
Assignments = Annotated[
    tuple[str, ...], flag("A setting as name=value; repeatable.", "NAME=VALUE", "--set", panel=SETTINGS)
]
Inverse = Annotated[bool, flag("Write the way back too, moving to fixed.", None, "--inverse", panel=OUTPUT)]
Jacobian = Annotated[bool, flag("Write the map of the local volume change too.", None, "--jacobian", panel=OUTPUT)]
Explain = Annotated[bool, flag("Say what was decided and why, before it is done.", None, "--explain", panel=MESSAGES)]


@dataclass(frozen=True, kw_only=True)
class PairFlags:
    """Two images, what counts of them, where to start from, and where the results go."""

    fixed: Annotated[Path, argument("Fixed image: a file, or the folder of a DICOM series.", "FIXED")]
    moving: Annotated[Path, argument("Moving image, brought onto the fixed one.", "MOVING")]
    output: Annotated[Path, flag("Folder for the results.", "FOLDER", "--output", "-o", panel=OUTPUT)]
    fixed_mask: Annotated[
        Path | None, flag("Mask of the fixed image; what is 0 counts nowhere.", "FILE", panel=INPUT)
    ] = None
    moving_mask: Annotated[Path | None, flag("Mask of the moving image.", "FILE", panel=INPUT)] = None
    fixed_series: Annotated[
        str | None, flag("Series of a folder of fixed DICOM: description or UID.", "SERIES", panel=INPUT)
    ] = None
    moving_series: Annotated[str | None, flag("The same for the moving image.", "SERIES", panel=INPUT)] = None
    initial: Annotated[
        Path | None, flag("Transform to start from, fixed to moving; ANTs .mat too.", "FILE", panel=INPUT)
    ] = None
    initial_landmarks: Annotated[
        tuple[Path, Path] | None,
        flag("Start from two files of points, the fixed and the moving ones.", "FIXED MOVING", panel=INPUT),
    ] = None

    @property
    def series(self) -> dict[str, str]:
        """Which series of a DICOM folder, by ``fixed`` and ``moving`` where it was said."""
        given = {"fixed": self.fixed_series, "moving": self.moving_series}
        return {name: text for name, text in given.items() if text is not None}

    @property
    def started(self) -> bool:
        """Whether a start is given."""
        return self.initial is not None or self.initial_landmarks is not None


@dataclass(frozen=True, kw_only=True)
class SettingFlags:
    """All flags that are settings, from the weakest to the strongest."""

    preset: Annotated[
        str | None, flag("Settings for common pairs: see semreg presets list.", "NAME", panel=SETTINGS)
    ] = None
    config: Config = None
    elastix: Annotated[
        tuple[Path, ...],
        flag(
            "Parameter file of elastix, IMPACT too, as settings; repeatable, linear ones first.", "FILE", panel=SETTINGS
        ),
    ] = ()
    fast: Annotated[bool, flag("Less time, less accurate.", None, "--fast", panel=SETTINGS)] = False
    quality: Annotated[bool, flag("More time, more accurate.", None, "--quality", panel=SETTINGS)] = False
    models: ModelFlags = field(default_factory=ModelFlags)
    assignments: Assignments = ()
    modality: Modality = None
    align: Align = None
    body_mask: BodyMask = None
    symmetric: Annotated[
        bool | None, flag("Refine in both directions.", None, "--symmetric/--no-symmetric", panel=DEFORMATION)
    ] = None
    diffeomorphic: Annotated[
        bool | None,
        flag(
            "A displacement that can be undone anywhere.", None, "--diffeomorphic/--no-diffeomorphic", panel=DEFORMATION
        ),
    ] = None
    restrict_axes: Annotated[
        str | None,
        flag(
            "Deform along these axes alone: x, y, z by direction, i, j, k by the array; several as x,y.",
            "AXES",
            "--restrict-axes",
            panel=DEFORMATION,
        ),
    ] = None
    ensemble: Annotated[
        str | None,
        flag(
            "Register N times on shifted lattices, or once more by each of these models, and take the mean.",
            "N|NAME,NAME",
            "--ensemble",
            panel=DEFORMATION,
        ),
    ] = None
    keypoints: Annotated[
        bool | None,
        flag(
            "Find points that correspond by both images alone; they lead the search where motion is large.",
            None,
            "--keypoints/--no-keypoints",
            panel=GUIDANCE,
        ),
    ] = None
    seed: Seed = None

    @property
    def named(self) -> Path | None:
        """The file of ``--config``; None where there is none, or none shall be."""
        return None if self.config == OFF else self.config

    @property
    def found(self) -> Path | None:
        """The file of settings that was found, where ``--config`` says nothing."""
        return find_settings() if self.config is None else None


@dataclass(frozen=True, kw_only=True)
class RegisterFlags:
    """What ``semreg register`` is asked for; ``semreg align`` says it in these words too."""

    pair: PairFlags
    settings: SettingFlags = field(default_factory=SettingFlags)
    start: Annotated[
        Path | None,
        flag(
            "A network that registers in one pass: the deformation begins at what it says, if that is better.",
            "FILE",
            panel=DEFORMATION,
        ),
    ] = None
    stiffness: Annotated[
        Path | None, flag("Image of how stiff each place is, 1 as usual.", "FILE", panel=DEFORMATION)
    ] = None
    rigid: Annotated[
        Path | None,
        flag("Labels of the fixed image, each a part that moves rigidly; 0 is none.", "FILE", panel=DEFORMATION),
    ] = None
    sliding: Annotated[
        Path | None,
        flag("Mask of the fixed image whose inside slides along its outside, as lungs do.", "FILE", panel=DEFORMATION),
    ] = None
    inverse: Inverse = False
    jacobian: Jacobian = False
    uncertainty: Annotated[
        bool,
        flag(
            "Write the map of how far the displacement may be off, in mm, also where no page is written.",
            None,
            "--uncertainty",
            panel=OUTPUT,
        ),
    ] = False
    contrasts: ContrastFlags = field(default_factory=ContrastFlags)
    guidance: GuidanceFlags = field(default_factory=GuidanceFlags)
    proof: ProofFlags = field(default_factory=ProofFlags)
    fail_on: FailOn = None
    images: ImageFiles = field(default_factory=ImageFiles)
    dicom: Dicom = False
    private: Private = False
    folders: Folders = ()
    device: Device = "auto"
    threads: Threads = None
    explain: Explain = False
    progress_file: Annotated[
        Path | None,
        flag("Keep in this file, as JSON, which share is done and in which stage.", "FILE", panel=MESSAGES),
    ] = None
    dry_run: Annotated[bool, flag("Print the plan and the memory it takes.", None, "--dry-run", panel=MESSAGES)] = False
    messages: JsonMessages = field(default_factory=JsonMessages)
    command: tuple[str, ...] = ()
    """The words of the command line."""
    dense: bool = True
    """Whether a displacement field is made, and not a linear transform alone."""

    @property
    def config(self) -> RegistrationConfig:
        """The settings that all of them stand for (ConfigError)."""
        found = load_config(self.settings)
        return found if self.start is None else replace(found, start=str(self.start))

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that are read, by their role."""
        landmarks = self.pair.initial_landmarks or (None, None)
        named = {
            "fixed": self.pair.fixed,
            "moving": self.pair.moving,
            "fixed_mask": self.pair.fixed_mask,
            "moving_mask": self.pair.moving_mask,
            "initial": self.pair.initial,
            "fixed_landmarks": landmarks[0],
            "moving_landmarks": landmarks[1],
            "stiffness": self.stiffness,
            "rigid": self.rigid,
            "sliding": self.sliding,
            **self.contrasts.inputs,
            **self.guidance.inputs,
            "start": self.start,
            "config": self.settings.named or self.settings.found,
            **{f"elastix_{n}": path for n, path in enumerate(self.settings.elastix, 1)},
        }
        return {name: path for name, path in named.items() if path is not None}

    @property
    def outputs(self) -> list[str]:
        """Names of all files that are written, but for the figures and the slices of DICOM."""
        name = self.images.name
        inverse = [INVERSE, name("inverse")] if self.inverse else []
        jacobian = [name("jacobian")] if self.jacobian else []
        dense = [name("field")] if self.dense else []
        page = [PAGE] if self.dense and self.proof.report else []
        uncertainty = [name("uncertainty")] if self.uncertainty or page else []
        registration = [REGISTRATION] if self.dicom else []
        always = [RECORD, CONFIG, TRANSFORM, *dense, name("warped"), *map(name, self.contrasts.images)]
        return [*always, *inverse, *jacobian, *uncertainty, *page, *registration]


def load_config(flags: SettingFlags, *, frames: bool = False) -> RegistrationConfig:
    """The settings: each of the following over those before it (ConfigError).

    The defaults, ``semreg.toml`` where no ``--config`` is given, ``--preset``, ``--config``, ``--fast`` or
    ``--quality``, ``--elastix``, the flags of models, each ``--set``, and at last the flags of single settings such as
    ``--align`` and ``--seed``. ``frames`` is that of ``configure``.
    """
    from semreg.presets import configure
    from semreg.runtime.settings import override

    if flags.fast and flags.quality:
        raise ConfigError("expected --fast or --quality, got both: leave one out")
    effort: Literal["fast", "quality"] | None = "fast" if flags.fast else "quality" if flags.quality else None
    if flags.found is not None:
        _say_found(flags.found.absolute(), flags.found)
        _check_models(configure(beneath=flags.found), flags.found)
    config = configure(preset=flags.preset, file=flags.named, effort=effort, beneath=flags.found, frames=frames)
    if flags.elastix:
        from semreg.itk.elastix import read_parameters

        config, notes = read_parameters(flags.elastix, config)
        for note in notes:
            logger.warning("%s", note)
    config = replace(config, models=model_configs(config.models, flags.models))
    for assignment in (*flags.assignments, *_single_settings(flags)):
        config = override(config, assignment)
    return config


@cache
def _say_found(_: Path, shown: Path) -> None:
    """Once a process: a batch reads the settings of each pair."""
    logger.warning("settings are read from %s, which was found; --config none leaves it out", shown)


def _check_models(config: RegistrationConfig, found: Path) -> None:
    """Refuse files of models that only a file names which nobody has named: such a file is a program (ConfigError)."""
    from semreg.features.catalogue import entries
    from semreg.features.descriptors import DESCRIPTORS

    known = {*DESCRIPTORS, *(entry.name for entry in entries())}
    named = [name for model in config.models for name in (model.model, model.moving) if name is not None]
    for name in (*named, *config.ensemble.models, *([] if config.start is None else [config.start])):
        if name not in known or Path(name).exists():
            raise ConfigError(
                f"expected no file of a model in {found}, which was found and not named, got {name!r}: a model file "
                f"runs code; if you trust it give --config {found}, or leave the settings out by --config none"
            )


def _single_settings(flags: SettingFlags) -> Iterator[str]:
    """The flags that stand for one setting each, as ``name=value``."""
    given = {
        "intensities.modality": flags.modality,
        "align.transform": None if flags.align is None else flags.align.value,
        "intensities.body": flags.body_mask,
        "refine.symmetric": flags.symmetric,
        "refine.diffeomorphic": flags.diffeomorphic,
        "refine.axes": flags.restrict_axes,
        "ensemble.members" if str(flags.ensemble).isdigit() else "ensemble.models": flags.ensemble,
        "keypoints.enabled": flags.keypoints,
        "seed": flags.seed,
    }
    for name, value in given.items():
        if value is not None:
            yield f"{name}={str(value).lower() if isinstance(value, bool) else value}"
