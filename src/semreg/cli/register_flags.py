"""The flags of ``semreg register`` and the settings they stand for. Reads no image and loads no model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semreg.cli.common import ImageFormat
from semreg.cli.model_flags import ModelFlags, model_configs
from semreg.cli.proof import PAGE, ProofOptions
from semreg.errors import ConfigError

if TYPE_CHECKING:
    from semreg.config import RegistrationConfig


class Alignment(str, Enum):
    """What the alignment looks for: ``align.transform`` of the settings."""

    AUTO = "auto"
    NONE = "none"
    TRANSLATION = "translation"
    RIGID = "rigid"
    SIMILARITY = "similarity"
    AFFINE = "affine"


FixedMask = Annotated[Path | None, typer.Option(help="Mask of the fixed image; what is 0 counts nowhere.")]
MovingMask = Annotated[Path | None, typer.Option(help="Mask of the moving image.")]
FixedSeries = Annotated[str | None, typer.Option(help="Series of a folder of fixed DICOM: description or UID.")]
MovingSeries = Annotated[str | None, typer.Option(help="The same for the moving image.")]
Initial = Annotated[Path | None, typer.Option(help="Transform to start from, fixed to moving; ANTs .mat too.")]
Landmarks = Annotated[
    tuple[Path, Path] | None,
    typer.Option("--initial-landmarks", help="Start from two files of points, the fixed and the moving ones."),
]
Align = Annotated[Alignment | None, typer.Option("--align", help="Alignment before the deformation.")]
Symmetric = Annotated[bool | None, typer.Option("--symmetric/--no-symmetric", help="Refine in both directions.")]
Diffeomorphic = Annotated[
    bool | None, typer.Option("--diffeomorphic/--no-diffeomorphic", help="A displacement that can be undone anywhere.")
]
BodyMask = Annotated[
    bool | None, typer.Option("--body-mask/--no-body-mask", help="Leave out table and air; else for CT only.")
]
Stiffness = Annotated[Path | None, typer.Option(help="Image of how stiff each place is, 1 as usual.")]
Inverse = Annotated[bool, typer.Option("--inverse", help="Write the way back too, moving to fixed.")]
Jacobian = Annotated[bool, typer.Option("--jacobian", help="Write the map of the local volume change too.")]
Uncertainty = Annotated[
    bool, typer.Option("--uncertainty", help="Write the map of how far the displacement may be off too, in mm.")
]
PresetName = Annotated[str | None, typer.Option("--preset", help="Settings for common pairs: see semreg presets list.")]
Fast = Annotated[bool, typer.Option("--fast", help="Less time, less accurate.")]
Quality = Annotated[bool, typer.Option("--quality", help="More time, more accurate.")]
Explain = Annotated[bool, typer.Option("--explain", help="Say what was decided and why, before it is done.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of all random numbers; same as --set seed=N.")]
Config = Annotated[Path | None, typer.Option(help="Settings in TOML, such as the config.toml of a run.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", help="A setting as name=value; repeatable.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and the memory it takes.")]


@dataclass(frozen=True, kw_only=True)
class SettingFlags:
    """All flags that are settings, from the weakest to the strongest."""

    preset: str | None = None
    config: Path | None = None
    fast: bool = False
    quality: bool = False
    models: ModelFlags = field(default_factory=ModelFlags)
    assignments: tuple[str, ...] = ()
    align: str | None = None
    body_mask: bool | None = None
    symmetric: bool | None = None
    diffeomorphic: bool | None = None
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class RegisterOptions:
    """What ``semreg register`` was asked for."""

    fixed: Path
    moving: Path
    output: Path
    fixed_mask: Path | None
    moving_mask: Path | None
    series: dict[str, str]
    """Which series of a DICOM folder, by ``fixed`` and ``moving`` where it was said."""
    initial: Path | None
    landmarks: tuple[Path, Path] | None
    stiffness: Path | None
    inverse: bool
    jacobian: bool
    settings: SettingFlags
    folders: tuple[Path, ...]
    device: str
    threads: int | None
    explain: bool
    dry_run: bool
    quiet: bool
    as_json: bool
    dtype: str | None
    image_format: ImageFormat
    command: tuple[str, ...]
    uncertainty: bool = False
    proof: ProofOptions = field(default_factory=ProofOptions)
    dense: bool = True
    """Whether a displacement field is made, and not a linear transform alone."""

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that are read, by their role."""
        landmarks = self.landmarks or (None, None)
        named = {
            "fixed": self.fixed,
            "moving": self.moving,
            "fixed_mask": self.fixed_mask,
            "moving_mask": self.moving_mask,
            "initial": self.initial,
            "fixed_landmarks": landmarks[0],
            "moving_landmarks": landmarks[1],
            "stiffness": self.stiffness,
            "config": self.settings.config,
        }
        return {name: path for name, path in named.items() if path is not None}

    def image_name(self, stem: str) -> str:
        """File name of an image that is written: ``warped``, ``field``, ``inverse``, ``jacobian``."""
        return f"{stem}.{self.image_format.value}"

    @property
    def outputs(self) -> list[str]:
        """Names of all files that are written, but for the figures."""
        inverse = ["inverse.h5", self.image_name("inverse")] if self.inverse else []
        jacobian = [self.image_name("jacobian")] if self.jacobian else []
        field = [self.image_name("field")] if self.dense else []
        uncertainty = [self.image_name("uncertainty")] if self.uncertainty else []
        page = [PAGE] if self.dense and self.proof.report else []
        always = ["record.json", "config.toml", "transform.h5", *field, self.image_name("warped")]
        return [*always, *inverse, *jacobian, *uncertainty, *page]


def load_config(flags: SettingFlags) -> RegistrationConfig:
    """The settings: each of the following over those before it (ConfigError).

    The defaults, ``--preset``, ``--config``, ``--fast`` or ``--quality``, the flags of models, each ``--set``, and at
    last the flags of single settings such as ``--align`` and ``--seed``.
    """
    from semreg.presets import layered, load_preset, read_toml
    from semreg.settings import override

    layers: list[dict[str, Any]] = [] if flags.preset is None else [load_preset(flags.preset).settings]
    if flags.config is not None:
        layers.append(read_toml(flags.config))
    if flags.fast and flags.quality:
        raise ConfigError("expected --fast or --quality, got both: leave one out")
    if flags.fast or flags.quality:
        layers.append(load_preset("fast" if flags.fast else "quality").settings)
    config = layered(*layers)
    config = replace(config, models=model_configs(config.models, flags.models))
    for assignment in (*flags.assignments, *_single_settings(flags)):
        config = override(config, assignment)
    return config


def _single_settings(flags: SettingFlags) -> Iterator[str]:
    """The flags that stand for one setting each, as ``name=value``."""
    given = {
        "align.transform": flags.align,
        "intensities.body": flags.body_mask,
        "refine.symmetric": flags.symmetric,
        "refine.diffeomorphic": flags.diffeomorphic,
        "seed": flags.seed,
    }
    for name, value in given.items():
        if value is not None:
            yield f"{name}={str(value).lower() if isinstance(value, bool) else value}"
