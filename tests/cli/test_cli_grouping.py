"""Flags as dataclasses: what typer sees, and what the command gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from semreg.cli.grouping import grouped

Names = Annotated[tuple[str, ...], typer.Option("--name", help="Repeatable.")]


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A group within a group."""

    names: Names = ()
    size: Annotated[int, typer.Option(min=1)] = 2


@dataclass(frozen=True, kw_only=True)
class Outer:
    """A group."""

    place: Annotated[Path, typer.Argument()]
    inner: Inner = field(default_factory=Inner)
    silent: bool = True


def run(command, *words):
    """The command under typer, and what it leaves with."""
    app = typer.Typer(add_completion=False)
    app.command()(grouped(command))
    return CliRunner().invoke(app, list(words))


def test_a_command_gets_its_groups():
    """Flags of a group and of a group within arrive at their place, repeated ones as tuples, in order."""
    got = []

    def command(outer: Outer) -> None:
        got.append(outer)

    assert run(command, "here", "--name", "a", "--name", "b", "--size", "3").exit_code == 0
    assert got == [Outer(place=Path("here"), inner=Inner(names=("a", "b"), size=3))]


def test_defaults_are_those_of_the_dataclass():
    """What is not given is what the dataclass says, and nothing else: an empty tuple for a repeated flag."""
    got = []

    def command(outer: Outer) -> None:
        got.append(outer)

    assert run(command, "here").exit_code == 0
    assert got == [Outer(place=Path("here"))]


def test_what_is_required_and_what_is_no_flag():
    """A field without a default must be given; a field that says no flag is none."""

    def command(outer: Outer) -> None:
        pass

    assert run(command).exit_code == 2
    assert run(command, "here", "--silent").exit_code == 2
    assert run(command, "here", "--size", "0").exit_code == 2  # details of the flag hold


def test_flags_beside_groups():
    """A command may have flags of its own beside groups, repeated ones too, in the order that it says."""
    got = []

    def command(outer: Outer, *, more: Annotated[tuple[int, ...], typer.Option()] = (), context: typer.Context) -> None:
        got.append((outer.place, more, context.info_name))

    assert run(command, "here", "--more", "4", "--more", "5").exit_code == 0
    assert [(place, more) for place, more, _ in got] == [(Path("here"), (4, 5))]
    shown = run(command, "--help").output
    assert shown.index("--name") < shown.index("--size") < shown.index("--more")


def test_one_name_for_two_flags_is_refused():
    """Two groups with a flag of one name are a mistake that shows when the command is made."""

    def command(one: Inner, other: Inner) -> None:
        pass

    with pytest.raises(ValueError, match="duplicate parameter name"):
        grouped(command)
