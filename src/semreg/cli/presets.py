"""``semreg presets``: which settings there are for which pairs, and why.

Imports nothing heavy at its top: ``semreg --help`` must not wait for torch, SimpleITK or numpy.
"""

from __future__ import annotations

from typing import Annotated

import typer

from semreg.cli.common import Debug, print_json, sentences
from semreg.cli.panels import SectionedCommand, argument, flag
from semreg.runtime.terminal import show_log, show_table

app = typer.Typer(name="presets", help="Settings for common pairs, and why.", no_args_is_help=True)


@app.command("list", cls=SectionedCommand)
def list_command(
    as_json: Annotated[bool, flag("Print JSON and nothing else.", None, "--json")] = False,
    debug: Debug = False,
) -> None:
    """List the presets: for semreg register --preset NAME, and the two of --fast and --quality."""
    with sentences(debug=debug):
        show_log(quiet=False, verbose=False)
        from semreg.presets import effort_names, load_preset, preset_names

        presets = [load_preset(name) for name in (*preset_names(), *effort_names())]
        flags = {name: f"--{name}" for name in effort_names()}
        rows = [
            [preset.name, flags.get(preset.name, f"--preset {preset.name}"), preset.description] for preset in presets
        ]
        if as_json:
            print_json([{"name": name, "flag": flag, "description": text} for name, flag, text in rows])
        else:
            show_table(["preset", "flag", "what for"], rows)


@app.command("show", cls=SectionedCommand)
def show_command(
    name: Annotated[str, argument("One of semreg presets list.", "NAME")],
    as_json: Annotated[bool, flag("Print JSON and nothing else.", None, "--json")] = False,
    debug: Debug = False,
) -> None:
    """Print a preset as the TOML file it is: a file for --config, once it is changed."""
    with sentences(debug=debug):
        show_log(quiet=False, verbose=False)
        from semreg.presets import load_preset

        preset = load_preset(name)
        if as_json:
            told = {"description": preset.description, "why": preset.why}
            print_json({"name": preset.name, **told, "settings": preset.settings})
        else:
            typer.echo(preset.text, nl=False)
