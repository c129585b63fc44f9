"""Verdict, page and figures of a result: what ``register`` and ``evaluate`` have in common. Reads no file.

Imports nothing heavy at its top: ``semreg --help`` must not wait for torch, SimpleITK or numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from semreg.cli.panels import PROOF, flag
from semreg.io.result_folder import FIGURES, PAGE

if TYPE_CHECKING:
    from semreg.io.atomic_output import OutputFolder
    from semreg.quality import Evaluation, Verdict
    from semreg.registration.result import Registration
    from semreg.report import Case


@dataclass(frozen=True, kw_only=True)
class ProofFlags:
    """What is written to be looked at."""

    report: Annotated[bool, flag("Write a page that shows the result.", None, "--report/--no-report", panel=PROOF)] = (
        True
    )
    figures: Annotated[
        bool, flag("Write its main pictures as PNG files for papers too.", None, "--figures", panel=PROOF)
    ] = False
    dpi: Annotated[int, flag("Dots per inch of these pictures: 300 for print.", "N", panel=PROOF, min=50, max=1200)] = (
        150
    )

    @property
    def wanted(self) -> bool:
        """Whether there is anything to draw."""
        return self.report or self.figures


def verdict_of(result: Registration, evaluation: Evaluation) -> Verdict | None:
    """The verdict on a registration just made, from the images as it prepared them; None where none is wanted."""
    if not result.config.checks.enabled:
        return None
    from semreg.quality import evidence_of, judge

    return judge(evidence_of(result), config=result.config.checks, evaluation=evaluation, record=result.record)


def write_proof(case: Case, folder: OutputFolder, flags: ProofFlags) -> list[str]:
    """Write what is wanted into ``folder``; the names of the files."""
    from semreg.report import write_figures, write_report

    names = []
    if flags.report:
        write_report(case, folder.stage(PAGE))
        names.append(PAGE)
    if flags.figures:
        drawn = write_figures(case, folder.stage(FIGURES), dpi=flags.dpi)
        names += [f"{FIGURES}/{path.name}" for path in drawn]
    return names
