"""Flags, and the help of a command in sections, with plain words for values. Knows no flag by name.

Typer shows sections by rich alone, which takes longer to load than the help may take.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperCommand

INPUT = "Input"
OUTPUT = "Output"
SETTINGS = "Settings"
MODELS = "Models"
ALIGNMENT = "Alignment"
DEFORMATION = "Deformation"
MEASURES = "Measures"
PROOF = "Proof"
MACHINE = "Machine"
MESSAGES = "Messages"

ORDER = (
    "Arguments", INPUT, "Options", OUTPUT, SETTINGS, MODELS, ALIGNMENT, DEFORMATION, MEASURES, PROOF, MACHINE, MESSAGES,
)  # fmt: skip
"""Of the sections; "Options" are those that name none."""


def flag(text: str, value: str | None = None, *names: str, panel: str | None = None, **more: Any) -> Any:
    """A flag as typer takes it: its help, what its value is called there, its ``names``, and its section.

    Without ``names`` it has that of its field. ``more``: what else typer knows of flags, such as ``min``.
    """
    return typer.Option(*names, help=text, metavar=value, rich_help_panel=panel, **more)


def argument(text: str, value: str | None = None) -> Any:
    """An argument as typer takes it: its help, and what it is called there."""
    return typer.Argument(help=text, metavar=value)


class SectionedCommand(TyperCommand):
    """A command whose help has a section for each panel of its flags."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words of the usage line; newer typer puts what is required in braces."""
        return [re.sub(r"^\{(.+?)(\.\.\.)?\}", r"\1", piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and the flags, a section each."""
        for title, rows in sections(self, ctx).items():
            with formatter.section(title):
                formatter.write_dl(rows)


def sections(command: Any, context: Any) -> Mapping[str, list[tuple[str, str]]]:
    """The names and the help of all parameters, by section and in the order of the sections; ``--help`` comes last."""
    found: dict[str, list[tuple[str, str]]] = {title: [] for title in ORDER}
    last = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:
            continue
        if parameter.name == "help":
            last.append(record)
        elif parameter.param_type_name == "argument":
            found["Arguments"].append((parameter.metavar or record[0], record[1]))
        else:
            found.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(record)
    filled = {title: rows for title, rows in found.items() if rows} or {"Options": []}
    filled[list(filled)[-1]].extend(last)
    return filled
