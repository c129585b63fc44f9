"""``semreg presets``: which settings there are for which pairs, and why.

Imports nothing heavy at its top: ``semreg --help`` must not wait for torch, SimpleITK or numpy.
"""

from __future__ import annotations

from typing import Annotated

import typer

from semreg.cli.common import Answer, print_json
from semreg.cli.grouping import grouped
from semreg.cli.panels import SectionedCommand, argument
from semreg.runtime.terminal import show_table

app = typer.Typer(name="presets", help="Settings for common pairs, and why.", no_args_is_help=True)


@app.command("list", cls=SectionedCommand)
@grouped
def list_command(
    *,
    messages: Answer,
) -> None:
    """List the presets: for semreg register --preset NAME, and the two of --fast and --quality."""
    with messages.spoken():
        from semreg.presets import effort_names, load_preset, preset_names

        presets = [load_preset(name) for name in (*preset_names(), *effort_names())]
        flags = {name: f"--{name}" for name in effort_names()}
        rows = [
            [preset.name, flags.get(preset.name, f"--preset {preset.name}"), preset.description] for preset in presets
        ]
        if messages.as_json:
            print_json([{"name": name, "flag": flag, "description": text} for name, flag, text in rows])
        else:
            show_table(["preset", "flag", "what for"], rows)


@app.command("show", cls=SectionedCommand)
@grouped
def show_command(
    name: Annotated[str, argument("One of semreg presets list.", "NAME")],
    *,
    messages: Answer,
) -> None:
    """Print a preset as the TOML file it is: a file for --config, once it is changed."""
    with messages.spoken():
        from semreg.presets import load_preset

        preset = load_preset(name)
        if messages.as_json:
            told = {"description": preset.description, "why": preset.why}
            print_json({"name": preset.name, **told, "settings": preset.settings})
        else:
            typer.echo(preset.text, nl=False)
