"""``semreg doctor``: what is installed, what each part is for, and what to do about what is missing or broken."""

from __future__ import annotations

from typing import Annotated

import typer

from semreg.cli.common import Answer, print_json
from semreg.cli.grouping import grouped
from semreg.cli.panels import flag
from semreg.cli.way_out import EXIT_BAD_INPUT
from semreg.runtime.terminal import show_table


@grouped
def doctor_command(
    messages: Answer,
    wait: Annotated[
        float, flag("How long torch and the part for ITK may take to load, 5 by default.", "SECONDS", min=0.0)
    ] = 5.0,
) -> None:
    """Say what is installed, what each part is for, and what is broken (then the exit code is 2).

    What is merely missing is no fault; its line says how to get it. What has not loaded after some seconds is called
    slow, which is no fault either.
    """
    with messages.spoken():
        from dataclasses import asdict

        from semreg.cli.environment import examine

        findings = examine(seconds=wait)
        broken = [finding for finding in findings if finding.state == "broken"]
        if messages.as_json:
            print_json({"healthy": not broken, "findings": [asdict(finding) for finding in findings]})
        else:
            rows = [[f.name, f.state, f.found or "-", f"{f.purpose}{f.advice and ': '}{f.advice}"] for f in findings]
            show_table(["part", "state", "found", "what for: what to do"], rows)
        for finding in broken:
            typer.echo(f"broken: {finding.name}, for {finding.purpose}: {finding.advice}", err=True)
    if broken:
        raise typer.Exit(EXIT_BAD_INPUT)
