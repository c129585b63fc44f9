"""What all commands share: flags that mean the same everywhere, errors in one sentence, exit codes.

Imports nothing heavy at its top: ``semreg --help`` must not wait for torch, SimpleITK or numpy.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from semreg.cli.panels import MACHINE, MESSAGES, MODELS, OUTPUT, PROOF, flag
from semreg.cli.way_out import EXIT_BAD_INPUT, leave, say_error
from semreg.errors import ConfigError, OutputError, SemregError
from semreg.runtime.memory import is_out_of_memory
from semreg.runtime.terminal import show_log

if TYPE_CHECKING:
    from semreg.config import RegistrationConfig

EXIT_VERDICT = 3
"""The result was written, and its verdict is one that ``--fail-on`` names."""
EXIT_INTERRUPTED = 130

REGISTER_ADVICE = "--dry-run says what it takes; use --device cpu, coarser settings or a smaller image"
MODEL_ADVICE = "set --memory to what there is, keep fewer --layers, use --device cpu or a smaller image"

Model = Annotated[
    str, flag("File of a network, or a name: see semreg models list.", "FILE|NAME", "--model", "-m", panel=MODELS)
]
Layers = Annotated[
    str | None, flag("Outputs to keep, such as 0,2 or -1: the last. All by default.", "N,N", panel=MODELS)
]
Memory = Annotated[str | None, flag("Limit of memory for the whole process, such as 3GB.", "SIZE", panel=MACHINE)]
Device = Annotated[str, flag("auto, cpu, cuda, cuda:n or mps.", "NAME", panel=MACHINE)]
Threads = Annotated[int | None, flag("Threads of the CPU; all by default.", "N", panel=MACHINE, min=1)]
Spec = Annotated[
    tuple[str, ...],
    flag(
        "Name=value: what the model's description is to say instead; repeatable.", "NAME=VALUE", "--spec", panel=MODELS
    ),
]
Folders = Annotated[
    tuple[Path, ...],
    flag("Folder with fetched models, before the default; repeatable.", "FOLDER", "--models", panel=MODELS),
]
Private = Annotated[
    bool,
    flag(
        "Leave names of files, host and user, and the command line out of what is written.",
        None, "--private", panel=OUTPUT,
    ),
]  # fmt: skip
Dicom = Annotated[
    bool,
    flag(
        "Write DICOM too: the warped image as a series, and the registration as an object.",
        None,
        "--dicom",
        panel=OUTPUT,
    ),
]
Quiet = Annotated[bool, flag("Show nothing but errors.", None, "--quiet", "-q", panel=MESSAGES)]
Json = Annotated[bool, flag("Print the record as JSON and nothing else.", None, "--json", panel=MESSAGES)]
Debug = Annotated[bool, flag("Show the trace of an error.", None, "--debug", panel=MESSAGES)]
Verbose = Annotated[bool, flag("Show what is done in detail.", None, "--verbose", "-v", panel=MESSAGES)]
LogFile = Annotated[
    Path | None,
    flag("Add to this file what is done in detail, with times and the trace of an error.", "FILE", panel=MESSAGES),
]


class FailLevel(StrEnum):
    """From which verdict on a command fails."""

    REVIEW = "review"
    FAIL = "fail"


FailOn = Annotated[
    FailLevel | None,
    flag(
        "Leave with exit code 3: of fail where the verdict is FAIL, of review where it is REVIEW or FAIL.",
        None,
        "--fail-on",
        panel=PROOF,
    ),
]


class ImageFormat(StrEnum):
    """File formats of the images that are written."""

    NIFTI = "nii.gz"
    UNCOMPRESSED_NIFTI = "nii"
    NRRD = "nrrd"
    MHA = "mha"


Dtype = Annotated[str | None, flag("Voxel type of the warped image; else the moving one's.", "TYPE", panel=OUTPUT)]
Ending = Annotated[ImageFormat, flag("Of the images written.", None, "--format", panel=OUTPUT)]


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """What every command says beside its result, and where."""

    verbose: Verbose = False
    debug: Debug = False
    log_file: LogFile = None
    quiet: bool = False
    """A flag of ``Messages``."""
    as_json: bool = False
    """A flag of ``JsonMessages`` and ``Answer``."""

    @contextmanager
    def spoken(self, advice: str | None = None) -> Iterator[None]:
        """The log goes to the standard error, and errors become one sentence each, as in ``sentences``."""
        with sentences(debug=self.debug, advice=advice or REGISTER_ADVICE):
            show_log(quiet=self.quiet, verbose=self.verbose, file=self.log_file)
            yield


@dataclass(frozen=True, kw_only=True)
class Messages(Spoken):
    """Those of commands that write files."""

    quiet: Quiet = False


@dataclass(frozen=True, kw_only=True)
class JsonMessages(Messages):
    """Those of commands whose result is a record."""

    as_json: Json = False


@dataclass(frozen=True, kw_only=True)
class Answer(Spoken):
    """Those of commands that only answer."""

    as_json: Annotated[bool, flag("Print JSON and nothing else.", None, "--json", panel=MESSAGES)] = False


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """How images are written."""

    dtype: Dtype = None
    image_format: Ending = ImageFormat.NIFTI

    def name(self, stem: str) -> str:
        """File name of an image: ``warped``, ``field``, ``inverse``, ``jacobian``."""
        return f"{stem}.{self.image_format.value}"


def command_of(context: typer.Context) -> tuple[str, ...]:
    """The words of the command line, for the record."""
    return tuple(context.obj or ("semreg", *sys.argv[1:]))


def check_judged(fail_on: FailLevel | None, config: RegistrationConfig) -> None:
    """Refuse ``--fail-on`` where nothing is judged (ConfigError)."""
    if fail_on is not None and not config.checks.enabled:
        raise ConfigError("expected checks.enabled=true with --fail-on, got false: leave one of them out")


def leave_by_verdict(fail_on: FailLevel | None, levels: Iterable[str | None]) -> None:
    """Leave with EXIT_VERDICT where one of the verdicts is as bad as ``--fail-on`` says; all files are written then."""
    bad = {None: set(), FailLevel.FAIL: {"FAIL"}, FailLevel.REVIEW: {"FAIL", "REVIEW"}}[fail_on]
    if bad & set(levels):
        raise typer.Exit(EXIT_VERDICT)


def print_json(value: Any) -> None:
    """The value as stable JSON on the standard output."""
    from semreg.io.records import stable_json

    typer.echo(stable_json(value), nl=False)


def limit_threads(count: int | None) -> None:
    """Compute in as many threads as is asked for, if that is."""
    if count is not None:
        from semreg.io import files

        files.limit_threads(count)


def check_dtype(dtype: str | None) -> None:
    """Refuse what is no voxel type (ConfigError)."""
    if dtype is None:
        return
    from semreg.io.bridge import PIXEL_TYPES

    if dtype not in PIXEL_TYPES:
        raise ConfigError(f"expected --dtype of {', '.join(PIXEL_TYPES)}, got {dtype!r}")


def check_not_read(output: Path, read: Iterable[Path | None]) -> None:
    """Refuse to write over what is read (OutputError)."""
    for path in read:
        if path is not None and path.resolve() == output.resolve():
            raise OutputError(f"expected another name for the output: {path}, which is read, would be written over")


def parse_layers(text: str | None) -> tuple[int, ...] | None:
    """Numbers of outputs from ``0,2,-1``. Raises ConfigError."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"expected --layers as whole numbers such as 0,2 or -1, got {text!r}") from None


@contextmanager
def sentences(*, debug: bool, advice: str = REGISTER_ADVICE) -> Iterator[None]:
    """Turn what can go wrong into one line on the standard error and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing was written", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except SemregError as error:
        _fail(str(error), debug=debug)
    except EOFError:
        _fail("expected complete files, got one that ends early: copy it again", debug=debug)
    except OSError as error:
        if debug:
            traceback.print_exc()
        leave(error)
    except (MemoryError, RuntimeError, ImportError) as error:  # a library that does not fit is no module
        if not is_out_of_memory(error):
            raise
        _fail(f"expected enough memory for these images and settings, there is too little: {advice}", debug=debug)


def _fail(message: str, *, debug: bool) -> NoReturn:
    logging.getLogger("semreg.progress").error("%s", message, exc_info=sys.exc_info())  # for --log-file; said below
    if debug:
        traceback.print_exc()
    say_error(message)
    raise typer.Exit(EXIT_BAD_INPUT)
