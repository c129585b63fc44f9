"""What is run for one pair: two commands, and a fingerprint for each of all that its result depends on.

Here alone it is said how ``semreg register`` and ``semreg evaluate`` are called.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from semreg.batch.pairs import Pair
from semreg.config import RegistrationConfig
from semreg.errors import ImageError
from semreg.io.digests import sha256_of
from semreg.runtime.settings import to_dict, to_toml

SETTINGS_FILE = "settings.toml"
"""The settings as they were asked for, in the folder of the pair."""

EVALUATED = ("fixed_landmarks", "moving_landmarks", "fixed_labels", "moving_labels")
"""Roles that only the evaluation reads."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of a job."""

    name: str
    """``register`` or ``evaluate``."""
    arguments: tuple[str, ...]
    """After ``semreg``, to be run in the folder above the pair's."""
    fingerprint: str
    """SHA-256 over all that the result depends on."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """All a process, here or on another machine, must know to do one pair."""

    name: str
    steps: tuple[Step, ...]
    settings: str
    """TOML for ``--config``."""
    inputs: Mapping[str, str]
    """SHA-256 of every file that is read, by role."""
    paths: Mapping[str, str]
    """Where those files are, by role."""
    notes: tuple[tuple[str, str], ...]
    semreg: str
    """The version that the fingerprints hold for."""
    hidden: Mapping[str, str] | None = None
    """Names that must not be written, and what stands for them; None: all may be."""


@dataclass(frozen=True, kw_only=True)
class JobFlags:
    """What holds for all pairs of a batch, beside the settings."""

    threads: int
    """Of the CPU for each pair; another number can change the last bits of a result."""
    device: str = "auto"
    models: tuple[Path, ...] = ()
    """Folders with fetched models."""
    register: tuple[str, ...] = ()
    """Further flags of ``semreg register``, such as ``--inverse``."""
    private: bool = False
    """Whether names of files are left out of all that is written."""


def make_job(pair: Pair, config: RegistrationConfig, flags: JobFlags, digest: Callable[..., str]) -> Job:
    """The job of a pair with the settings ``config``.

    ``digest(path, series=None)`` gives the SHA-256 of a file or of a DICOM series. Raises ImageError for a file that
    cannot be read.
    """
    import semreg

    series = {"fixed": pair.fixed_series, "moving": pair.moving_series}
    inputs = {role: digest(path, series.get(role)) for role, path in pair.files.items()}
    networks = {str(path): digest(path) for path in _model_files(config, flags.models)}
    named = {str(path): role for role, path in pair.files.items()} | {path: sha[:12] for path, sha in networks.items()}
    if config.uncertainty.enabled:
        flags = replace(flags, register=(*flags.register, "--uncertainty"))  # the report shows the map
    first = register_arguments(pair, flags)
    read = {role: sha for role, sha in inputs.items() if role.partition(".")[0] not in EVALUATED}
    common = {"semreg": semreg.__version__, "threads": flags.threads, "device": flags.device}
    registered = _fingerprint(
        common
        | {"inputs": read, "series": series, "settings": to_dict(config), "flags": flags.register}
        | {"models": sorted(networks.values())}
    )
    second = evaluate_arguments(pair, flags)
    evaluated = _fingerprint(common | {"register": registered, "inputs": inputs, "form": _form(second)})
    steps = (
        Step(name="register", arguments=first, fingerprint=registered),
        Step(name="evaluate", arguments=second, fingerprint=evaluated),
    )
    return Job(
        name=pair.name,
        steps=steps,
        settings=to_toml(config),
        inputs=inputs,
        paths={role: str(path) for role, path in pair.files.items()},
        notes=() if flags.private else pair.notes,
        semreg=semreg.__version__,
        hidden=named | {text: role for role, text in series.items() if text} if flags.private else None,
    )


def register_arguments(pair: Pair, flags: JobFlags) -> tuple[str, ...]:
    """``semreg register`` for one pair; paths are absolute, except for the output, the name of the pair."""
    found = ["register", str(pair.fixed), str(pair.moving), "--output", pair.name]
    for flag, path in (
        ("--fixed-mask", pair.fixed_mask),
        ("--moving-mask", pair.moving_mask),
        ("--initial", pair.initial),
        ("--fixed-series", pair.fixed_series),
        ("--moving-series", pair.moving_series),
    ):
        found += [] if path is None else [flag, str(path)]
    found += ["--config", f"{pair.name}/{SETTINGS_FILE}", "--threads", str(flags.threads), "--device", flags.device]
    for folder in flags.models:
        found += ["--models", str(folder.absolute())]
    return (*found, *flags.register, *_private(flags), *NO_REPORT)


def evaluate_arguments(pair: Pair, flags: JobFlags) -> tuple[str, ...]:
    """``semreg evaluate`` for one pair; it finds images and mask by the record, and writes the report too."""
    found = ["evaluate", pair.name]
    for fixed, moving in zip(pair.fixed_landmarks, pair.moving_landmarks, strict=True):
        found += ["--fixed-landmarks", str(fixed), "--moving-landmarks", str(moving)]
    if pair.fixed_labels is not None:
        found += ["--labels", str(pair.fixed_labels), str(pair.moving_labels)]
    if flags.private:  # the record does not say where they are
        for flag, named in (
            ("--fixed", pair.fixed), ("--moving", pair.moving), ("--mask", pair.fixed_mask),
            ("--moving-mask", pair.moving_mask), ("--fixed-series", pair.fixed_series),
            ("--moving-series", pair.moving_series),
        ):  # fmt: skip
            found += [] if named is None else [flag, str(named)]
    return (*found, "--threads", str(flags.threads), *_private(flags))


def _private(flags: JobFlags) -> tuple[str, ...]:
    return ("--private",) if flags.private else ()


NO_REPORT = ("--no-report",)
"""The evaluation writes the report, once, with all there is to show."""


def command_line(step: Step) -> list[str]:
    """The step as a command of this Python."""
    return [sys.executable, "-m", "semreg", *step.arguments]


class Digests:
    """SHA-256 of files, each read once in the life of this object: a template for a thousand pairs is one file."""

    def __init__(self) -> None:
        """Nothing is known at first, and nothing is kept from earlier runs: a size and a date prove no content."""
        self._known: dict[tuple[Path, str | None], str] = {}

    def __call__(self, path: Path, series: str | None = None) -> str:
        """Of the file, with the voxels that stand beside a header, or of a DICOM series. Raises ImageError."""
        key = (path.resolve(), series)
        if key not in self._known:
            from semreg.io.image_files import checksum

            self._known[key] = checksum(path, series)
        return self._known[key]


def file_digest(path: Path) -> str:
    """SHA-256 of the bytes of a file (ImageError)."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise ImageError(f"expected a file that can be read, got {path}: {error.strerror or error}") from error


def _model_files(config: RegistrationConfig, folders: tuple[Path, ...]) -> list[Path]:
    """The files of all networks that the settings name."""
    from semreg.features.descriptors import DESCRIPTORS

    files = []
    for model in config.models:
        for name in (model.model, model.moving):
            if name is not None and name not in DESCRIPTORS:
                from semreg.features.catalogue import default_folder, locate  # loads torch

                file = Path(name) if Path(name).is_file() else locate(name, (*folders, default_folder()))
                beside = file.with_suffix(".toml")  # its description
                files += [file, beside] if beside.is_file() else [file]
    if config.start is not None:
        files += [Path(config.start), Path(config.start).with_suffix(".toml")]
    return files


def _form(arguments: tuple[str, ...]) -> list[str]:
    """The flags without the paths, whose contents count and not their names."""
    return [argument for argument in arguments if argument.startswith("--")]


def _fingerprint(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()
