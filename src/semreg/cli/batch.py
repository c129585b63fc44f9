"""``semreg batch``: all pairs of a table or a BIDS data set, here or on a cluster, and one page about all of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semreg.cli.common import (
    EXIT_INTERRUPTED,
    Debug,
    Device,
    Folders,
    ImageFormat,
    Quiet,
    Threads,
    check_dtype,
    print_json,
    sentences,
)
from semreg.cli.model_flags import Components, Distances, ModelFlags, ModelLayers, Models, MovingModels, Specs, Weights
from semreg.cli.register_flags import (
    Align,
    Assignments,
    BodyMask,
    Config,
    Diffeomorphic,
    Fast,
    Inverse,
    Jacobian,
    PresetName,
    Quality,
    Seed,
    SettingFlags,
    Symmetric,
    load_config,
)
from semreg.errors import ConfigError
from semreg.terminal import show_log, show_rows, show_table

if TYPE_CHECKING:
    from semreg.cohort import BatchResult, Job, JobFlags, Pair, Scheduler
    from semreg.cohort.log import Event
    from semreg.config import RegistrationConfig

EXIT_SOME_FAILED = 1

Source = Annotated[Path, typer.Argument(help="Table of pairs, .csv or .toml, or the folder of a BIDS data set.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Pairs at once on this machine.")]
Address = Annotated[str | None, typer.Option("--scheduler", help="Dask scheduler to run on, such as tcp://host:8786.")]
FixedRule = Annotated[
    str | None, typer.Option("--fixed", help="BIDS: which images are fixed, such as suffix=T1w,session=01; or a file.")
]
MovingRule = Annotated[str | None, typer.Option("--moving", help="BIDS: which images are moving, such as suffix=T2w.")]
Across = Annotated[bool, typer.Option("--across", help="BIDS: one fixed image for all subjects.")]
Only = Annotated[list[str] | None, typer.Option("--only", help="Run this pair and leave the others; repeatable.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check all pairs and print what would be run.")]
Json = Annotated[bool, typer.Option("--json", help="Print what became of the pairs as JSON and nothing else.")]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What ``semreg batch`` was asked for."""

    source: Path
    output: Path
    jobs: int
    scheduler: str | None
    rules: tuple[str | None, str | None]
    """Of the fixed and the moving images."""
    across: bool
    only: tuple[str, ...]
    settings: SettingFlags
    threads: int | None
    device: str
    models: tuple[Path, ...]
    register: tuple[str, ...]
    """Further flags for ``semreg register``."""
    dry_run: bool
    as_json: bool
    quiet: bool
    command: tuple[str, ...]


def batch_command(  # noqa: PLR0913, PLR0917 - one parameter a flag
    context: typer.Context,
    source: Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results, one folder a pair.")],
    jobs: Jobs = 1,
    scheduler: Address = None,
    fixed: FixedRule = None,
    moving: MovingRule = None,
    across: Across = False,
    only: Only = None,
    preset: PresetName = None,
    fast: Fast = False,
    quality: Quality = False,
    align: Align = None,
    symmetric: Symmetric = None,
    diffeomorphic: Diffeomorphic = None,
    body_mask: BodyMask = None,
    inverse: Inverse = False,
    jacobian: Jacobian = False,
    model: Models = None,
    moving_model: MovingModels = None,
    layers: ModelLayers = None,
    distance: Distances = None,
    weight: Weights = None,
    pca: Components = None,
    spec: Specs = None,
    models: Folders = None,
    device: Device = "auto",
    threads: Threads = None,
    seed: Seed = None,
    config: Config = None,
    assignments: Assignments = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
    dtype: Annotated[str | None, typer.Option(help="Voxel type of the warped images; else the moving one's.")] = None,
    image_format: Annotated[ImageFormat, typer.Option("--format", help="Of the images written.")] = ImageFormat.NIFTI,
    debug: Debug = False,
) -> None:
    """Register and evaluate all pairs of SOURCE, each in processes of its own; run it again to go on where it ended.

    Pairs that are done, by the contents of their files, their settings and the version, are skipped; a pair that fails
    does not stop the others. Leaves with 0 if all ran, whatever their verdicts, 1 if some failed, 2 for bad input.
    """
    networks = ModelFlags(
        model=tuple(model or ()), moving=tuple(moving_model or ()), layers=tuple(layers or ()),
        distance=tuple(distance or ()), weight=tuple(weight or ()), pca=tuple(pca or ()), spec=tuple(spec or ()),
    )  # fmt: skip
    settings = SettingFlags(
        preset=preset, config=config, fast=fast, quality=quality, models=networks,
        assignments=tuple(assignments or ()), align=None if align is None else align.value, body_mask=body_mask,
        symmetric=symmetric, diffeomorphic=diffeomorphic, seed=seed,
    )  # fmt: skip
    register = (
        *(("--inverse",) if inverse else ()),
        *(("--jacobian",) if jacobian else ()),
        *(() if dtype is None else ("--dtype", dtype)),
        *(() if image_format is ImageFormat.NIFTI else ("--format", image_format.value)),
    )
    asked = Asked(
        source=source, output=output, jobs=jobs, scheduler=scheduler, rules=(fixed, moving), across=across,
        only=tuple(only or ()), settings=settings, threads=threads, device=device, models=tuple(models or ()),
        register=register, dry_run=dry_run, as_json=as_json, quiet=quiet,
        command=tuple(context.obj or ("semreg", *sys.argv[1:])),
    )  # fmt: skip
    with sentences(debug=debug):
        show_log(quiet=quiet, verbose=False)
        if dtype is not None:
            check_dtype(dtype)
        failed = run(asked)
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def run(asked: Asked) -> bool:
    """Read, check, run and show; whether a pair failed."""
    from semreg.cohort import BatchOptions, plan_batch, run_batch, threads_of

    scheduler = scheduler_of(asked)
    everything = read_pairs(asked)
    pairs = chosen(everything, asked.only)
    found = settings_of(everything, asked.settings)
    threads = threads_of(asked.output, asked.threads, default_threads(asked))
    jobs = make_jobs(pairs, found, asked, threads)
    if asked.dry_run:
        show_plan(plan_batch(jobs, asked.output), threads, asked)
        return False
    rows: list[dict[str, Any]] = []
    options = BatchOptions(
        threads=threads,
        command=asked.command,
        source=str(asked.source),
        beside=tuple(pair.name for pair in everything if pair not in pairs),
        on_event=None if asked.quiet else Lines(len(jobs)),
        at_end=lambda: rows.extend(write_summary(everything, asked)),
    )
    try:
        result = run_batch(jobs, asked.output, scheduler, options)
    except KeyboardInterrupt:
        typer.echo("interrupted: what is finished is kept; give the same command again to go on", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    show_result(result, rows, asked)
    return bool(result.failed)


def read_pairs(asked: Asked) -> list[Pair]:
    """The pairs of the table or of the BIDS data set, all of them checked (ConfigError)."""
    from semreg.cohort import bids_pairs, read_table

    fixed, moving = asked.rules
    if asked.source.is_dir():
        if fixed is None or moving is None:
            raise ConfigError(
                f"expected --fixed and --moving for the BIDS folder {asked.source}: "
                "say which images, such as --fixed suffix=T1w --moving suffix=T2w"
            )
        return bids_pairs(asked.source, fixed, moving, across=asked.across)
    if fixed is not None or moving is not None or asked.across:
        raise ConfigError(
            f"expected --fixed, --moving and --across with the folder of a BIDS data set, got {asked.source}: "
            "a table names its images"
        )
    return read_table(asked.source)


def chosen(pairs: Sequence[Pair], only: Sequence[str]) -> list[Pair]:
    """The pairs of ``--only``, in the order of the table; all without it (ConfigError for a name that is none)."""
    import difflib

    names = [pair.name for pair in pairs]
    for name in only:
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
            raise ConfigError(f"expected --only with the name of a pair, got {name!r}: did you mean {nearest}?")
    return [pair for pair in pairs if not only or pair.name in only]


def settings_of(pairs: Sequence[Pair], flags: SettingFlags) -> dict[str, RegistrationConfig]:
    """The settings of each pair, by its name: a preset or a setting of the table holds over those of the flags."""
    known: dict[tuple[str | None, tuple[str, ...]], RegistrationConfig] = {}
    found = {}
    for pair in pairs:
        key = pair.preset or flags.preset, pair.settings
        if key not in known:
            own = replace(flags, preset=key[0])
            try:
                known[key] = _with_settings(load_config(own), pair.settings)
            except ConfigError as error:
                if pair.preset is None and not pair.settings:
                    raise
                raise ConfigError(f"{pair.where}: {error}") from error
        found[pair.name] = known[key]
    return found


def _with_settings(config: RegistrationConfig, assignments: Sequence[str]) -> RegistrationConfig:
    """The settings of one pair on top; paths of networks absolute, since the command runs in another folder."""
    from semreg.settings import override

    for assignment in assignments:
        config = override(config, assignment)

    def absolute(name: str | None) -> str | None:
        return str(Path(name).absolute()) if name is not None and Path(name).is_file() else name

    models = tuple(
        replace(model, model=absolute(model.model) or model.model, moving=absolute(model.moving))
        for model in config.models
    )
    return replace(config, models=models)


def default_threads(asked: Asked) -> int:
    """The cores divided by the pairs at once; one on a cluster, whose workers take a task for each of their threads."""
    return 1 if asked.scheduler is not None else max(1, (os.cpu_count() or 1) // asked.jobs)


def make_jobs(pairs: Sequence[Pair], settings: dict[str, RegistrationConfig], asked: Asked, threads: int) -> list[Job]:
    """The commands and fingerprints of all pairs; reads every file once."""
    from semreg.cohort import Digests, JobFlags, make_job
    from semreg.settings import to_dict, to_toml

    flags: JobFlags = JobFlags(threads=threads, device=asked.device, models=asked.models, register=asked.register)
    digest = Digests()
    return [make_job(pair, to_dict(settings[pair.name]), to_toml(settings[pair.name]), flags, digest) for pair in pairs]


def scheduler_of(asked: Asked) -> Scheduler:
    """Where it is to run."""
    from semreg.cohort import DaskScheduler, LocalScheduler

    if asked.scheduler is None:
        return LocalScheduler(asked.jobs)
    if asked.jobs != 1:
        raise ConfigError("expected --jobs or --scheduler, got both: a cluster has as many places as its workers offer")
    return DaskScheduler(asked.scheduler)


def write_summary(pairs: Sequence[Pair], asked: Asked) -> list[dict[str, Any]]:
    """``cohort.csv`` and ``index.html`` about all pairs; the rows."""
    from semreg.cohort import cohort_rows, write_csv, write_page

    rows = cohort_rows(asked.output, [pair.name for pair in pairs])
    write_csv(asked.output / "cohort.csv", rows)
    write_page(asked.output / "index.html", rows, source=asked.source.name or str(asked.source))
    return rows


def show_plan(plan: dict[str, tuple[str, ...]], threads: int, asked: Asked) -> None:
    """What would be run, on the standard output."""
    if asked.as_json:
        print_json({"threads": threads, "pairs": {name: list(steps) for name, steps in plan.items()}})
    elif not asked.quiet:
        show_table(("pair", "to do"), [(name, " and ".join(steps) or "nothing") for name, steps in plan.items()])


def show_result(result: BatchResult, rows: Sequence[dict[str, Any]], asked: Asked) -> None:
    """How many pairs were run, skipped and failed, and where the page is."""
    if asked.as_json:
        named = {"finished": list(result.finished), "skipped": list(result.skipped), "failed": dict(result.failed)}
        print_json({**named, "rows": rows})
        return
    for name, error in result.failed.items():
        typer.echo(f"failed: {name}: {error}", err=True)
    if asked.quiet:
        return
    levels = [row["verdict"] for row in rows if row["verdict"]]
    counts = ", ".join(f"{levels.count(level)} {level}" for level in ("PASS", "LOOK", "FAIL") if level in levels)
    show_rows(
        [
            ("finished", str(len(result.finished))),
            ("done before", str(len(result.skipped))),
            ("failed", str(len(result.failed))),
            *([("verdicts", counts)] if counts else []),
            ("page", str(asked.output / "index.html")),
        ]
    )


class Lines:
    """Shows what happens to the pairs, one line each on the standard error."""

    def __init__(self, total: int) -> None:
        """``total``: number of pairs."""
        self._total = total
        self._ended = 0

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.pair is None:
            return
        self._ended += event.event in {"finished", "failed", "skipped"}
        said = {"skipped": "done before", "finished": f"finished in {event.seconds or 0:.1f} s"}.get(
            event.event, event.event
        )
        why = f": {event.error}" if event.error else ""
        typer.echo(f"[{self._ended}/{self._total}] {event.pair}: {said}{why}", err=True)
