"""``semreg bids``: results of registrations in, derivatives of a BIDS data set out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semreg.cli.common import Messages
from semreg.cli.grouping import grouped
from semreg.cli.panels import OUTPUT, argument, flag


@grouped
def bids_command(
    *,
    results: Annotated[list[Path], argument("Output folders of semreg register or align.", "RESULT...")],
    output: Annotated[
        Path,
        flag("Folder of derivatives, such as BIDS/derivatives/semreg.", "FOLDER", "--output", "-o", panel=OUTPUT),
    ],
    messages: Messages,
) -> None:
    """Lay results out as BIDS derivatives: warped images and transforms by the standard's names, all or none.

    The moving images must be of one BIDS data set. What is in the folder from earlier calls stays. semreg batch does
    the same with --bids-derivatives.
    """
    with messages.spoken():
        from semreg.batch import write_derivatives

        written = write_derivatives(results, output)
        if not messages.quiet:
            typer.echo("\n".join(map(str, written)))
