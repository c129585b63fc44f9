"""``semreg batch``: all pairs of a table or a BIDS data set, here or on a cluster, and one page about all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from semreg.cli.batch_flags import BatchFlags
from semreg.cli.common import EXIT_INTERRUPTED, check_dtype, check_judged, command_of, leave_by_verdict, print_json
from semreg.cli.grouping import grouped
from semreg.cli.register_flags import SettingFlags, load_config
from semreg.errors import ConfigError
from semreg.runtime.terminal import show_rows, show_table
from semreg.runtime.threads import openmp_threads, usable_cores

if TYPE_CHECKING:
    from semreg.batch import BatchResult, Job, Pair, Scheduler
    from semreg.batch.log import Event
    from semreg.batch.measures import CohortRow
    from semreg.config import RegistrationConfig

EXIT_SOME_FAILED = 1


@grouped
def batch_command(context: typer.Context, flags: BatchFlags) -> None:
    """Register and evaluate all pairs of SOURCE, each in processes of its own; run it again to go on where it ended.

    Pairs that are done, by the contents of their files, their settings and the version, are skipped; a pair that fails
    does not stop the others. Leaves with 0 if all ran, 1 if some failed, 2 for bad input, 3 for a
    verdict that --fail-on names.
    """
    with flags.messages.spoken():
        check_dtype(flags.images.dtype)
        failed, rows = run(replace(flags, command=command_of(context)))
        if failed:
            raise typer.Exit(EXIT_SOME_FAILED)
        leave_by_verdict(flags.fail_on, [row.verdict for row in rows])


def run(flags: BatchFlags) -> tuple[bool, list[CohortRow]]:
    """Read, check, run and show; whether a pair failed, and what became of those that were asked for."""
    from semreg.batch import BatchOptions, plan_batch, run_batch, threads_of

    scheduler = scheduler_of(flags)
    everything = read_pairs(flags)
    pairs = chosen(everything, flags.only)
    if flags.derivatives is not None:
        check_layout(pairs, flags.derivatives, flags)
    found = settings_of(everything, flags.settings)
    for pair in pairs:
        check_judged(flags.fail_on, found[pair.name])
    threads = threads_of(flags.output, flags.threads, default_threads(flags))
    jobs = make_jobs(pairs, found, flags, threads)
    if flags.dry_run:
        show_plan(plan_batch(jobs, flags.output), threads, flags)
        return False, []
    rows: list[CohortRow] = []
    options = BatchOptions(
        threads=threads,
        command=flags.command,
        source=str(flags.source),
        private=flags.private,
        beside=tuple(pair.name for pair in everything if pair not in pairs),
        on_event=None if flags.messages.quiet else Lines(len(jobs)),
        at_end=lambda: rows.extend(write_summary(everything, flags)),
    )
    try:
        result = run_batch(jobs, flags.output, scheduler, options)
    except KeyboardInterrupt:
        typer.echo("interrupted: what is finished is kept; give the same command again to go on", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if flags.derivatives is not None:
        lay_out([pair.name for pair in pairs if pair.name not in result.failed], flags.derivatives, flags)
    show_result(result, rows, flags)
    asked = {pair.name for pair in pairs}
    return bool(result.failed), [row for row in rows if row.name in asked]


def read_pairs(flags: BatchFlags) -> list[Pair]:
    """The pairs of the table or of the BIDS data set, all of them checked (ConfigError)."""
    from semreg.batch import bids_pairs, read_table

    fixed, moving = flags.fixed, flags.moving
    if flags.source.is_dir():
        if fixed is None or moving is None:
            raise ConfigError(
                f"expected --fixed and --moving for the BIDS folder {flags.source}: "
                "say which images, such as --fixed suffix=T1w --moving suffix=T2w"
            )
        return bids_pairs(flags.source, fixed, moving, across=flags.across)
    if fixed is not None or moving is not None or flags.across:
        raise ConfigError(
            f"expected --fixed, --moving and --across with the folder of a BIDS data set, got {flags.source}: "
            "a table names its images"
        )
    return read_table(flags.source)


def check_layout(pairs: Sequence[Pair], folder: Path, flags: BatchFlags) -> None:
    """Refuse what cannot be laid out as BIDS derivatives before anything runs (ConfigError, OutputError)."""
    from semreg.batch import check_derivatives
    from semreg.batch.bids import EXTENSIONS

    if flags.private:
        raise ConfigError(
            "expected --bids-derivatives or --private, got both: names of derivatives are those of images"
        )
    if f".{flags.images.image_format.value}" not in EXTENSIONS:
        raise ConfigError(f"expected --format nii.gz or nii with --bids-derivatives, got {flags.images.image_format}")
    check_derivatives([(pair.fixed, pair.moving) for pair in pairs], folder)


def lay_out(names: Sequence[str], folder: Path, flags: BatchFlags) -> None:
    """Write the derivatives of the pairs that are finished."""
    from semreg.batch import write_derivatives

    if names:
        write_derivatives([flags.output / name for name in names], folder)


def chosen(pairs: Sequence[Pair], only: Sequence[str]) -> list[Pair]:
    """The pairs of ``--only``, in the order of the table; all without it (ConfigError for a name that is none)."""
    import difflib

    from semreg.batch.pairs import same_name

    names = {same_name(pair.name): pair.name for pair in pairs}
    for name in only:
        if same_name(name) not in names:
            nearest = difflib.get_close_matches(name, names.values(), n=1, cutoff=0.0)[0]
            raise ConfigError(f"expected --only with the name of a pair, got {name!r}: did you mean {nearest}?")
    return [pair for pair in pairs if not only or same_name(pair.name) in map(same_name, only)]


def settings_of(pairs: Sequence[Pair], given: SettingFlags) -> dict[str, RegistrationConfig]:
    """The settings of each pair, by its name: a preset or a setting of the table holds over those of the flags."""
    known: dict[tuple[str | None, tuple[str, ...]], RegistrationConfig] = {}
    found = {}
    for pair in pairs:
        key = pair.preset or given.preset, pair.settings
        if key not in known:
            own = replace(given, preset=key[0])
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
    from semreg.runtime.settings import override

    for assignment in assignments:
        config = override(config, assignment)

    def absolute(name: str) -> str:
        return str(Path(name).absolute()) if Path(name).is_file() else name

    models = tuple(
        replace(model, model=absolute(model.model), moving=None if model.moving is None else absolute(model.moving))
        for model in config.models
    )
    members = tuple(map(absolute, config.ensemble.models))
    start = None if config.start is None else absolute(config.start)
    return replace(config, models=models, ensemble=replace(config.ensemble, models=members), start=start)


def default_threads(flags: BatchFlags) -> int:
    """The cores divided by the pairs at once, and no more than OpenMP would take; one on a cluster.

    The workers of a cluster take a task for each of their threads.
    """
    if flags.scheduler is not None:
        return 1
    cores = max(1, usable_cores() // flags.jobs)
    return min(cores, openmp_threads() or cores)


def make_jobs(
    pairs: Sequence[Pair], settings: dict[str, RegistrationConfig], flags: BatchFlags, threads: int
) -> list[Job]:
    """The commands and fingerprints of all pairs; reads every file once."""
    from semreg.batch import Digests, JobFlags, make_job

    given = JobFlags(
        threads=threads, device=flags.device, models=flags.folders, register=flags.further, private=flags.private
    )
    digest = Digests()
    return [make_job(pair, settings[pair.name], given, digest) for pair in pairs]


def scheduler_of(flags: BatchFlags) -> Scheduler:
    """Where it is to run."""
    from semreg.batch import DaskScheduler, LocalScheduler

    if flags.scheduler is None:
        return LocalScheduler(flags.jobs)
    if flags.jobs != 1:
        raise ConfigError("expected --jobs or --scheduler, got both: a cluster has as many places as its workers offer")
    return DaskScheduler(flags.scheduler)


def write_summary(pairs: Sequence[Pair], flags: BatchFlags) -> list[CohortRow]:
    """``cohort.csv`` and ``index.html`` about all pairs; the rows."""
    from semreg.batch import cohort_rows, write_csv, write_page

    rows = cohort_rows(flags.output, [pair.name for pair in pairs])
    write_csv(flags.output / "cohort.csv", rows)
    source = "" if flags.private else flags.source.name or str(flags.source)
    write_page(flags.output / "index.html", rows, source=source)
    return rows


def show_plan(plan: dict[str, tuple[str, ...]], threads: int, flags: BatchFlags) -> None:
    """What would be run, on the standard output."""
    if flags.messages.as_json:
        print_json({"threads": threads, "pairs": {name: list(steps) for name, steps in plan.items()}})
    elif not flags.messages.quiet:
        show_table(("pair", "to do"), [(name, " and ".join(steps) or "nothing") for name, steps in plan.items()])


def show_result(result: BatchResult, rows: Sequence[CohortRow], flags: BatchFlags) -> None:
    """How many pairs were run, skipped and failed, and where the page is."""
    if flags.messages.as_json:
        named = {"finished": list(result.finished), "skipped": list(result.skipped), "failed": dict(result.failed)}
        flat = [{name: v for name, v in (vars(row) | row.numbers).items() if name != "values"} for row in rows]
        print_json({**named, "rows": flat})
        return
    for name, error in result.failed.items():
        typer.echo(f"failed: {name}: {error}", err=True)
    if flags.messages.quiet:
        return
    levels = [row.verdict for row in rows]
    counts = ", ".join(f"{levels.count(level)} {level}" for level in ("PASS", "REVIEW", "FAIL") if level in levels)
    show_rows(
        [
            ("finished", str(len(result.finished))),
            ("done before", str(len(result.skipped))),
            ("failed", str(len(result.failed))),
            *([("verdicts", counts)] if counts else []),
            ("page", str(flags.output / "index.html")),
            *([] if flags.derivatives is None else [("derivatives", str(flags.derivatives))]),
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
