"""``semreg align``: two images in, the linear transform that brings them together and a record out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from semreg.cli.common import (
    Device,
    Dicom,
    FailLevel,
    ImageFiles,
    JsonMessages,
    Private,
    Threads,
    command_of,
    leave_by_verdict,
    print_json,
)
from semreg.cli.dicom_output import read_sides
from semreg.cli.grouping import grouped
from semreg.cli.panels import ALIGNMENT, PROOF, flag
from semreg.cli.register import check_together, masked, read_images, read_start
from semreg.cli.register_files import describe_inputs, run_into_folder, run_of
from semreg.cli.register_flags import (
    Alignment,
    Assignments,
    BodyMask,
    Config,
    Explain,
    Modality,
    PairFlags,
    RegisterFlags,
    Seed,
    SettingFlags,
    load_config,
)
from semreg.cli.report_output import ProofFlags
from semreg.cli.summary import show_alignment
from semreg.io.result_folder import TRANSFORM
from semreg.runtime.progress import ALIGN, IMPORTED, READ, Progress

if TYPE_CHECKING:
    from semreg.config import RegistrationConfig
    from semreg.io.atomic_output import OutputFolder
    from semreg.quality.run import AlignRun


@dataclass(frozen=True, kw_only=True)
class AlignFlags:
    """What ``semreg align`` is asked for."""

    pair: PairFlags
    transform: Annotated[
        Alignment | None,
        flag(
            "What is looked for: auto by default, none, translation, rigid, similarity, affine.",
            "KIND",
            "--align",
            "--transform",
            panel=ALIGNMENT,
        ),
    ] = None
    modality: Modality = None
    body_mask: BodyMask = None
    config: Config = None
    assignments: Assignments = ()
    seed: Seed = None
    explain: Explain = False
    device: Device = "auto"
    threads: Threads = None
    fail_on: Annotated[
        FailLevel | None,
        flag("With review, leave with exit code 3 where something speaks against the alignment.", panel=PROOF),
    ] = None
    images: ImageFiles = field(default_factory=ImageFiles)
    dicom: Dicom = False
    private: Private = False
    messages: JsonMessages = field(default_factory=JsonMessages)

    def as_register(self, command: tuple[str, ...]) -> RegisterFlags:
        """The same in the words of ``semreg register``, which reads and checks the same files."""
        settings = SettingFlags(
            config=self.config, assignments=self.assignments, align=self.transform, modality=self.modality,
            body_mask=self.body_mask, seed=self.seed,
        )  # fmt: skip
        return RegisterFlags(
            pair=self.pair, settings=settings, explain=self.explain, device=self.device, threads=self.threads,
            images=self.images, messages=self.messages, command=command, dense=False, fail_on=self.fail_on,
            proof=ProofFlags(report=False), dicom=self.dicom, private=self.private,
        )  # fmt: skip


@grouped
def align_command(context: typer.Context, flags: AlignFlags) -> None:
    """Bring MOVING onto FIXED by a translation, rigid, similarity or affine map, from any position.

    Writes transform.h5 (points of the fixed image to the moving one, mm, LPS), the warped image, config.toml and a
    record that says what was chosen and what speaks against it.
    """
    with flags.messages.spoken():
        check_together(flags.pair)
        run_align(flags.as_register(command_of(context)))


def run_align(flags: RegisterFlags) -> None:
    """Read, align, write, and show the summary."""
    config = load_config(flags.settings)
    run, files = run_into_folder(flags, lambda folder: aligned(flags, config, folder))
    if flags.messages.as_json:
        print_json(run)
    elif not flags.messages.quiet:
        show_alignment(run, files, explain=flags.explain)
    doubtful = run.alignment is not None and run.alignment.doubtful
    leave_by_verdict(flags.fail_on, ["REVIEW" if doubtful else "PASS"])


def aligned(flags: RegisterFlags, config: RegistrationConfig, folder: OutputFolder) -> AlignRun:
    """Read, align and write."""
    title = f"aligning {flags.pair.moving} with {flags.pair.fixed}"
    with Progress(quiet=flags.messages.quiet, stages=ALIGN, title=title) as progress:
        with progress.stage("read"):
            from semreg.io import files
            from semreg.io.dicom_objects.results import FoundMap, write_result
            from semreg.quality.run import AlignRun
            from semreg.registration.alignment import align

            progress.at(IMPORTED)
            images = read_images(flags.pair, private=flags.private)
            progress.at(READ)
            start = read_start(flags.pair, images, private=flags.private)
            sides = read_sides(flags.pair, images) if flags.dicom else None
            inputs = describe_inputs(flags, images)  # as they are now: nobody knows what they are when it ends
        for line in masked(start):
            progress.say(line)
        result = align(
            images["fixed"], images["moving"], config=config, device=flags.device, on_step=progress, **vars(start)
        )
        with progress.stage("write"):
            pixel_type = flags.images.dtype or images["moving"].pixel_type
            files.write_image(result.warped, folder.stage(flags.images.name("warped")), pixel_type)
            files.write_sitk_transform(result.transform(), folder.stage(TRANSFORM))
            given = [] if sides is None else write_result(FoundMap(None, result.matrix), result.warped, sides, folder)
    return run_of(flags, AlignRun, result.record, inputs, outputs=tuple(sorted({*flags.outputs, *given})))
