"""The flags of ``register``, ``align`` and ``batch`` and the settings they stand for. Reads no image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from semreg.cli.common import Device, Folders, ImageFiles, Threads, VerboseMessages
from semreg.cli.model_flags import ModelFlags, model_configs
from semreg.cli.panels import ALIGNMENT, DEFORMATION, INPUT, MESSAGES, OUTPUT, SETTINGS
from semreg.cli.report_output import ProofFlags
from semreg.errors import ConfigError
from semreg.io.result_folder import CONFIG, INVERSE, PAGE, RECORD, TRANSFORM

if TYPE_CHECKING:
    from semreg.config import RegistrationConfig


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
    typer.Option(
        "--align",
        help="Before the deformation: auto, none, translation, rigid, similarity or affine.",
        metavar="KIND",
        rich_help_panel=ALIGNMENT,
    ),
]
Modality = Annotated[
    str | None,
    typer.Option(
        "--modality",
        help="What the images are: ct, mr or other; ct,mr: the fixed, the moving.",
        metavar="KIND",
        rich_help_panel=INPUT,
    ),
]
BodyMask = Annotated[
    bool | None,
    typer.Option(
        "--body-mask/--no-body-mask", help="Leave out table and air around the body.", rich_help_panel=ALIGNMENT
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0, help="Seed of all random numbers; same as --set seed=N.", metavar="N", rich_help_panel=SETTINGS
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(help="Settings in TOML, such as the config.toml of a run.", metavar="FILE", rich_help_panel=SETTINGS),
]
Assignments = Annotated[
    tuple[str, ...],
    typer.Option("--set", help="A setting as name=value; repeatable.", metavar="NAME=VALUE", rich_help_panel=SETTINGS),
]
Inverse = Annotated[
    bool, typer.Option("--inverse", help="Write the way back too, moving to fixed.", rich_help_panel=OUTPUT)
]
Jacobian = Annotated[
    bool, typer.Option("--jacobian", help="Write the map of the local volume change too.", rich_help_panel=OUTPUT)
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Say what was decided and why, before it is done.", rich_help_panel=MESSAGES)
]


@dataclass(frozen=True, kw_only=True)
class PairFlags:
    """Two images, what counts of them, where to start from, and where the results go."""

    fixed: Annotated[
        Path, typer.Argument(help="Fixed image: a file, or the folder of a DICOM series.", metavar="FIXED")
    ]
    moving: Annotated[Path, typer.Argument(help="Moving image, brought onto the fixed one.", metavar="MOVING")]
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results.", metavar="FOLDER", rich_help_panel=OUTPUT)
    ]
    fixed_mask: Annotated[
        Path | None,
        typer.Option(help="Mask of the fixed image; what is 0 counts nowhere.", metavar="FILE", rich_help_panel=INPUT),
    ] = None
    moving_mask: Annotated[
        Path | None, typer.Option(help="Mask of the moving image.", metavar="FILE", rich_help_panel=INPUT)
    ] = None
    fixed_series: Annotated[
        str | None,
        typer.Option(
            help="Series of a folder of fixed DICOM: description or UID.", metavar="SERIES", rich_help_panel=INPUT
        ),
    ] = None
    moving_series: Annotated[
        str | None, typer.Option(help="The same for the moving image.", metavar="SERIES", rich_help_panel=INPUT)
    ] = None
    initial: Annotated[
        Path | None,
        typer.Option(
            help="Transform to start from, fixed to moving; ANTs .mat too.", metavar="FILE", rich_help_panel=INPUT
        ),
    ] = None
    initial_landmarks: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            help="Start from two files of points, the fixed and the moving ones.",
            metavar="FIXED MOVING",
            rich_help_panel=INPUT,
        ),
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
        str | None,
        typer.Option(
            "--preset",
            help="Settings for common pairs: see semreg presets list.",
            metavar="NAME",
            rich_help_panel=SETTINGS,
        ),
    ] = None
    config: Config = None
    fast: Annotated[bool, typer.Option("--fast", help="Less time, less accurate.", rich_help_panel=SETTINGS)] = False
    quality: Annotated[bool, typer.Option("--quality", help="More time, more accurate.", rich_help_panel=SETTINGS)] = (
        False
    )
    models: ModelFlags = field(default_factory=ModelFlags)
    assignments: Assignments = ()
    modality: Modality = None
    align: Align = None
    body_mask: BodyMask = None
    symmetric: Annotated[
        bool | None,
        typer.Option("--symmetric/--no-symmetric", help="Refine in both directions.", rich_help_panel=DEFORMATION),
    ] = None
    diffeomorphic: Annotated[
        bool | None,
        typer.Option(
            "--diffeomorphic/--no-diffeomorphic",
            help="A displacement that can be undone anywhere.",
            rich_help_panel=DEFORMATION,
        ),
    ] = None
    seed: Seed = None


@dataclass(frozen=True, kw_only=True)
class RegisterFlags:
    """What ``semreg register`` is asked for; ``semreg align`` says it in these words too."""

    pair: PairFlags
    settings: SettingFlags = field(default_factory=SettingFlags)
    stiffness: Annotated[
        Path | None,
        typer.Option(help="Image of how stiff each place is, 1 as usual.", metavar="FILE", rich_help_panel=DEFORMATION),
    ] = None
    inverse: Inverse = False
    jacobian: Jacobian = False
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty",
            help="Write the map of how far the displacement may be off, in mm, without a page too.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    proof: ProofFlags = field(default_factory=ProofFlags)
    images: ImageFiles = field(default_factory=ImageFiles)
    folders: Folders = ()
    device: Device = "auto"
    threads: Threads = None
    explain: Explain = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and the memory it takes.", rich_help_panel=MESSAGES)
    ] = False
    messages: VerboseMessages = field(default_factory=VerboseMessages)
    command: tuple[str, ...] = ()
    """The words of the command line."""
    dense: bool = True
    """Whether a displacement field is made, and not a linear transform alone."""

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
            "config": self.settings.config,
        }
        return {name: path for name, path in named.items() if path is not None}

    @property
    def outputs(self) -> list[str]:
        """Names of all files that are written, but for the figures."""
        name = self.images.name
        inverse = [INVERSE, name("inverse")] if self.inverse else []
        jacobian = [name("jacobian")] if self.jacobian else []
        dense = [name("field")] if self.dense else []
        page = [PAGE] if self.dense and self.proof.report else []
        uncertainty = [name("uncertainty")] if self.uncertainty or page else []
        always = [RECORD, CONFIG, TRANSFORM, *dense, name("warped")]
        return [*always, *inverse, *jacobian, *uncertainty, *page]


def load_config(flags: SettingFlags) -> RegistrationConfig:
    """The settings: each of the following over those before it (ConfigError).

    The defaults, ``--preset``, ``--config``, ``--fast`` or ``--quality``, the flags of models, each ``--set``, and at
    last the flags of single settings such as ``--align`` and ``--seed``.
    """
    from semreg.presets import configure
    from semreg.settings import override

    if flags.fast and flags.quality:
        raise ConfigError("expected --fast or --quality, got both: leave one out")
    effort: Literal["fast", "quality"] | None = "fast" if flags.fast else "quality" if flags.quality else None
    config = configure(preset=flags.preset, file=flags.config, effort=effort)
    config = replace(config, models=model_configs(config.models, flags.models))
    for assignment in (*flags.assignments, *_single_settings(flags)):
        config = override(config, assignment)
    return config


def _single_settings(flags: SettingFlags) -> Iterator[str]:
    """The flags that stand for one setting each, as ``name=value``."""
    given = {
        "intensities.modality": flags.modality,
        "align.transform": None if flags.align is None else flags.align.value,
        "intensities.body": flags.body_mask,
        "refine.symmetric": flags.symmetric,
        "refine.diffeomorphic": flags.diffeomorphic,
        "seed": flags.seed,
    }
    for name, value in given.items():
        if value is not None:
            yield f"{name}={str(value).lower() if isinstance(value, bool) else value}"
