"""``semreg report``: the output folder of a registration in, one page to read and figures for papers out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semreg.cli.common import Messages, Private, check_not_read
from semreg.cli.grouping import grouped
from semreg.cli.panels import argument, flag
from semreg.errors import OutputError
from semreg.io.result_folder import PAGE

if TYPE_CHECKING:
    from semreg.report import Case

ENDINGS = (".html", ".htm")


@grouped
def report_command(  # noqa: PLR0913 - one parameter a flag
    *,
    folder: Annotated[Path, argument("Output folder of semreg register.", "FOLDER")],
    output: Annotated[
        Path | None, flag("Page, .html; FOLDER/report.html by default.", "FILE", "--output", "-o")
    ] = None,
    title: Annotated[str | None, flag("Headline of the page.", "TEXT")] = None,
    fixed: Annotated[Path | None, flag("Fixed image, where it is no longer at its old place.", "FILE")] = None,
    moving: Annotated[Path | None, flag("Moving image, the same.", "FILE")] = None,
    fixed_labels: Annotated[Path | None, flag("Labels of the fixed image, drawn as outlines.", "FILE")] = None,
    moving_labels: Annotated[Path | None, flag("Labels of the moving image, drawn as outlines.", "FILE")] = None,
    figures: Annotated[
        bool, flag("Write PNG files for papers to figures, beside the page.", None, "--figures")
    ] = False,
    private: Private = False,
    dpi: Annotated[int, flag("Dots per inch of the figures: 300 for print.", "N", min=50, max=1200)] = 150,
    messages: Messages,
) -> None:
    """Write the page of a registration again, with the evaluation if there is one."""
    with messages.spoken():
        from semreg.report import read_case, write_figures, write_report

        page = output or folder / PAGE
        if page.suffix.lower() not in ENDINGS:
            raise OutputError(
                f"expected --output to end in .html, got {page}: give the page a name such as report.html"
            )
        case = read_case(
            folder, fixed=fixed, moving=moving, title=title, fixed_labels=fixed_labels, moving_labels=moving_labels,
            private=private,
        )  # fmt: skip
        check_not_read(page, [fixed, moving, fixed_labels, moving_labels, *recorded(case, folder)])
        write_report(case, page)
        written = [page]
        if figures:
            written += write_figures(case, page.parent / "figures", dpi=dpi)
        if not messages.quiet:
            typer.echo("\n".join(map(str, written)))


def recorded(case: Case, folder: Path) -> list[Path]:
    """The files that the registration and the evaluation read."""
    from semreg.quality import EvaluationRun, locate
    from semreg.quality.run import AlignRun, RegisterRun

    entries = list(case.record.inputs.values()) if isinstance(case.record, (AlignRun, RegisterRun)) else []
    measured = case.evaluation.inputs if isinstance(case.evaluation, EvaluationRun) else {}
    return [locate(each.path, folder) for each in (*entries, *(one for given in measured.values() for one in given))]
