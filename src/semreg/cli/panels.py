"""Flags, and the help of a command in sections, with plain words for values. Knows no flag by name.

Typer shows sections by rich alone, which takes longer to load than the help may take.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from semreg.runtime.terms import advice, nearest

INPUT = "Input"
OUTPUT = "Output"
SETTINGS = "Settings"
MODELS = "Models"
ALIGNMENT = "Alignment"
DEFORMATION = "Deformation"
GUIDANCE = "Guidance"
MEASURES = "Measures"
PROOF = "Proof"
PICTURES = "Pictures"
MACHINE = "Machine"
MESSAGES = "Messages"

ORDER = (
    "Arguments", INPUT, "Options", OUTPUT, SETTINGS, MODELS, ALIGNMENT, DEFORMATION, GUIDANCE, MEASURES, PICTURES,
    PROOF, MACHINE, MESSAGES,
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


USAGE: Any = typer.BadParameter.__base__
"""The error of usage of the click that typer is built on."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Register": ("register", "align", "batch", "propagate", "template", "motion", "large", "bids", "serve", "demo"),
    "Look and judge": ("evaluate", "report", "figures"),
    "Use transforms": ("apply", "convert", "compose", "invert", "jacobian"),
    "Networks and settings": ("models", "presets", "infer", "features"),
    "This installation": ("doctor", "version"),
}
"""Which commands stand together in the help, in this order; others follow."""


class GroupedCommands(TyperGroup):
    """A group whose help has its commands in sections, each with a whole sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, a section each."""
        seen = [name for name in self.list_commands(ctx) if not self.commands[name].hidden]
        rest = [name for name in seen if not any(name in names for names in GROUPS.values())]
        for title, names in (*GROUPS.items(), ("Commands", rest)):
            rows = [(name, _sentence(self.commands[name].help)) for name in names if name in self.commands]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class SectionedCommand(TyperCommand):
    """A command whose help has a section for each panel of its flags; a slip gets the nearest name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words; what is no flag or no choice is said with what was meant."""
        with _advised(self, ctx):
            return list(super().parse_args(ctx, args))

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


def _sentence(text: str | None) -> str:
    """The first sentence of a help."""
    return re.split(r"(?<=\.)\s", " ".join((text or "").split("\n\n")[0].split()), maxsplit=1)[0]


@contextmanager
def _advised(command: Any, context: Any) -> Iterator[None]:
    """An error of usage in this block says what was meant, if that can be told."""
    try:
        yield
    except USAGE as error:
        hint = _hint(error, command, context)
        if hint:
            said = error.message.removeprefix("Value error, ").rstrip(". ")
            error.message = f"{said}: {hint}"
            if hasattr(error, "possibilities"):
                error.possibilities = None
        raise


def _hint(error: Any, command: Any, context: Any) -> str:
    """What was meant by a word that is none: a term of another tool, or the nearest name."""
    given = getattr(error, "option_name", None)
    if given is not None:
        known = [name for each in command.get_params(context) for name in (*each.opts, *each.secondary_opts)]
        meant = "" if len(given.strip("-")) == 1 else nearest(given, known, cutoff=0.6)
        return advice(given) or (f"did you mean {meant}?" if meant else "")
    said = re.search(r"'(.*?)' is not one of (.*)", error.message)
    if said:
        meant = nearest(said[1], re.findall(r"'(.*?)'", said[2]))
        return advice(said[1]) or (f"did you mean {meant}?" if meant else "")
    return ""
