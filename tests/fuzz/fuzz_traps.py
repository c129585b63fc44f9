"""Commands that end in each wrong way, to see that the harness notices: ``semreg trap HOW``."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import typer

from semreg.cli import app


@app.command("trap", hidden=True)  # as the other one
def trap(how: str) -> None:
    """End in the way that is asked for."""
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "time":
        while True:
            pass
    if how == "memory":
        typer.echo("error: expected enough memory, there is too little", err=True)
        raise typer.Exit(2)
    if how == "traceback":
        raise LookupError(how)
    if how == "exit code":
        raise typer.Exit(3)
    if how == "noise":
        os.write(2, b"stack\nerror: expected this, got that\n")
        raise typer.Exit(2)
    if how == "not finite":
        Path("out.csv").write_text("x\nNaN\n")
    if how == "2":
        typer.echo("error: expected this, got that", err=True)
        raise typer.Exit(2)
