"""The command ``semreg``: one verb a capability. Parses, calls the library and puts errors into one sentence.

Imports nothing heavy at its top: ``semreg --help`` must not wait for torch, SimpleITK or numpy.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import semreg
from semreg.cli.align import align_command
from semreg.cli.batch import batch_command
from semreg.cli.common import EXIT_TERMINATED, Debug, sentences
from semreg.cli.doctor import doctor_command
from semreg.cli.evaluate import evaluate_command
from semreg.cli.infer import features_command, infer_command
from semreg.cli.models import app as models_app
from semreg.cli.presets import app as presets_app
from semreg.cli.register import register_command
from semreg.cli.report import report_command
from semreg.cli.transforms import (
    apply_command,
    compose_command,
    convert_command,
    invert_command,
    jacobian_command,
)
from semreg.terminal import Progress, show_log

app = typer.Typer(
    name="semreg",
    help="Register medical images in feature space.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with ``arguments`` (those of the process by default) and leave the process."""
    signal.signal(signal.SIGTERM, _terminate)
    given = sys.argv[1:] if arguments is None else list(arguments)
    app(args=given, prog_name="semreg", obj=["semreg", *given])


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Register medical images in feature space."""
    if version:
        typer.echo(f"semreg {semreg.__version__}")
        raise typer.Exit


@app.command("version")
def version_command() -> None:
    """Print the versions of semreg and of what it builds on."""
    from semreg.record import versions

    for name, number in versions().items():
        typer.echo(f"{name} {number}")


app.command("register")(register_command)
app.command("align")(align_command)
app.command("evaluate")(evaluate_command)
app.command("report")(report_command)
app.command("batch")(batch_command)
app.command("apply")(apply_command)
app.command("convert")(convert_command)
app.command("compose")(compose_command)
app.command("invert")(invert_command)
app.command("jacobian")(jacobian_command)
app.command("infer")(infer_command)
app.command("features")(features_command)
app.command("doctor")(doctor_command)
app.add_typer(models_app, name="models")
app.add_typer(presets_app, name="presets")


@app.command("demo")
def demo_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("demo"),
    debug: Debug = False,
) -> None:
    """Register a built-in pair of phantoms with a known deformation and print the landmark error in mm."""
    with sentences(debug=debug):
        show_log(quiet=False, verbose=False)
        from semreg.demo import run

        with Progress(quiet=False) as progress:
            lines = run(output, on_step=progress)
        for line in lines:
            typer.echo(line)


def _terminate(number: int, frame: object) -> NoReturn:
    """Leave through the ordinary way out, so that unfinished files are removed."""
    del number, frame
    sys.exit(EXIT_TERMINATED)
