"""The command ``semreg``: one verb a capability. Parses, calls the library and puts errors into one sentence.

Imports nothing heavy at its top: ``semreg --help`` must not wait for torch, SimpleITK or numpy.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

import semreg
from semreg.cli.align import align_command
from semreg.cli.apply import apply_command
from semreg.cli.batch import batch_command
from semreg.cli.bids import bids_command
from semreg.cli.common import EXIT_INTERRUPTED
from semreg.cli.demo import demo_command
from semreg.cli.doctor import doctor_command
from semreg.cli.evaluate import evaluate_command
from semreg.cli.figures import figures_command
from semreg.cli.infer import features_command, infer_command
from semreg.cli.large import large_command
from semreg.cli.models import app as models_app
from semreg.cli.motion import motion_command
from semreg.cli.panels import GroupedCommands, SectionedCommand, flag
from semreg.cli.presets import app as presets_app
from semreg.cli.propagate import propagate_command
from semreg.cli.register import register_command
from semreg.cli.report import report_command
from semreg.cli.serve import serve_command
from semreg.cli.slicer import SlicerCommand, slicer_command
from semreg.cli.template import template_command
from semreg.cli.transforms import (
    compose_command,
    convert_command,
    invert_command,
    jacobian_command,
)
from semreg.cli.way_out import guarded, leave_interrupted
from semreg.runtime.threads import sleep_when_idle

app = typer.Typer(
    name="semreg",
    cls=GroupedCommands,
    help="Register medical images in feature space.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with ``arguments`` (those of the process by default) and leave the process."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, _terminate)
    given = sys.argv[1:] if arguments is None else list(arguments)
    sleep_when_idle()
    try:
        with guarded(given):
            app(args=given, prog_name="semreg", obj=["semreg", *given])
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED and arguments is None:
            leave_interrupted(EXIT_INTERRUPTED)
        raise


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, flag("Print the version and exit.", None, "--version", is_eager=True)] = False,
) -> None:
    """Register medical images in feature space."""
    if version:
        typer.echo(f"semreg {semreg.__version__}")
        raise typer.Exit


@app.command("version", cls=SectionedCommand)
def version_command() -> None:
    """Print the versions of semreg and of what it builds on."""
    from semreg.io.records import versions

    for name, number in versions().items():
        typer.echo(f"{name} {number}")


app.command("register", cls=SectionedCommand)(register_command)
app.command("align", cls=SectionedCommand)(align_command)
app.command("evaluate", cls=SectionedCommand)(evaluate_command)
app.command("report", cls=SectionedCommand)(report_command)
app.command("figures", cls=SectionedCommand)(figures_command)
app.command("batch", cls=SectionedCommand)(batch_command)
app.command("propagate", cls=SectionedCommand)(propagate_command)
app.command("template", cls=SectionedCommand)(template_command)
app.command("motion", cls=SectionedCommand)(motion_command)
app.command("large", cls=SectionedCommand)(large_command)
app.command("bids", cls=SectionedCommand)(bids_command)
app.command("serve", cls=SectionedCommand)(serve_command)
app.command("slicer", cls=SlicerCommand, hidden=True)(slicer_command)
app.command("apply", cls=SectionedCommand)(apply_command)
app.command("convert", cls=SectionedCommand)(convert_command)
app.command("compose", cls=SectionedCommand)(compose_command)
app.command("invert", cls=SectionedCommand)(invert_command)
app.command("jacobian", cls=SectionedCommand)(jacobian_command)
app.command("infer", cls=SectionedCommand)(infer_command)
app.command("features", cls=SectionedCommand)(features_command)
app.command("doctor", cls=SectionedCommand)(doctor_command)
app.add_typer(models_app, name="models", cls=GroupedCommands)
app.add_typer(presets_app, name="presets", cls=GroupedCommands)


app.command("demo", cls=SectionedCommand)(demo_command)


def _terminate(number: int, frame: object) -> NoReturn:
    """Leave through the ordinary way out, so that unfinished files are removed."""
    del frame
    sys.exit(128 + number)
