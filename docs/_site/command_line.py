"""Hook of mkdocs: fills the page of the command line from the commands themselves."""  # noqa: INP001 - loaded by its path

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from semreg.cli import app
from semreg.cli.panels import sections

PAGE = "reference/command_line.md"
MARK = "<!-- filled from the commands -->"
FLAG = re.compile(r"(?<![\w`-])(--?[a-z][a-z-]*)")
NOTE = re.compile(r"\s*\[([^\[\]]*)\]$")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill the page."""
    del config, files
    return markdown.replace(MARK, reference()) if page.file.src_uri == PAGE else markdown


def reference() -> str:
    """Each command with its arguments and options, as Markdown."""
    root = typer.main.get_command(app)
    commands = list(walk(root, "semreg"))
    lines = [
        "| command | what it does |",
        "|---|---|",
        *(f"| [`{name}`](#{anchor(name)}) | {cell(first_line(command))} |" for name, command in commands),
        "",
    ]
    for name, command in commands:
        lines += section(name, command)
    return "\n".join(lines) + "\n"


def walk(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    """All commands below a group, with their whole names."""
    for each, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from walk(command, f"{name} {each}")
        else:
            yield f"{name} {each}", command


def section(name: str, command: Any) -> list[str]:
    """One command."""
    with command.context_class(command, info_name=name) as context:
        usage = command.get_usage(context).removeprefix("Usage: ")
        found = sections(command, context)
    lines = [f"## {name} {{ #{anchor(name)} }}", "", first_line(command), ""]
    lines += [*rest(command), f"```text\n{' '.join(usage.split())}\n```", ""]
    for title, records in found.items():
        rows = [row(*record) for record in records if "--help" not in record[0]]
        if rows:
            kind = "argument" if title == "Arguments" else "option"
            named = [] if title in ("Arguments", "Options") else [f"**{title}**", ""]
            lines += [*named, f"| {kind} | what it is | default, limits |", "|---|---|---|", *rows, ""]
    return lines


def row(names: str, text: str) -> str:
    """One argument or option as a row of a table; what stands in brackets at the end has a column of its own."""
    note = NOTE.search(text)
    said, limits = (text[: note.start()], note[1]) if note else (text, "")
    limits = limits.removeprefix("default: ")
    names = " | ".join(names.split("|"))  # so that a line may break there
    return f"| `{names}` | {cell(shown(said))} | {f'`{cell(limits)}`' if limits not in ('', 'required') else limits} |"


def first_line(command: Any) -> str:
    """The first paragraph of what a command says of itself."""
    return shown(str(command.help or "").split("\n\n")[0])


def rest(command: Any) -> list[str]:
    """The other paragraphs."""
    return [line for text in str(command.help or "").split("\n\n")[1:] for line in (shown(text), "")]


def shown(text: str) -> str:
    """A text on one line, with its flags as code."""
    return FLAG.sub(r"`\1`", " ".join(text.split()))


def anchor(name: str) -> str:
    """The anchor of a command: ``semreg models fetch`` → ``models-fetch``."""
    return "-".join(name.split()[1:])


def cell(text: str) -> str:
    """A text that breaks no row of a table."""
    return " ".join(text.split()).replace("|", "\\|")
