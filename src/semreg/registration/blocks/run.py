"""A blockwise registration from two images in chunks to a folder of results, which goes on where it was ended."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from semreg.config import RegistrationConfig
from semreg.errors import ConfigError, OutputError, SemregError
from semreg.io.atomic_output import OutputFolder, check_output_folder
from semreg.io.bridge.kinds import TransformLike
from semreg.io.image_files import checksum
from semreg.io.records import stable_json, versions
from semreg.io.result_folder import CONFIG, RECORD, TRANSFORM
from semreg.registration.blocks.coarse import is_begun
from semreg.registration.blocks.pipeline import Found, Large, register_in_blocks
from semreg.registration.blocks.plan import Input, LargePlan, Options, make_plan
from semreg.registration.blocks.record import LargeRecord
from semreg.registration.blocks.store import Store
from semreg.registration.blocks.workers import Here, Workers
from semreg.registration.blocks.writing import WARPED, Output, Written, write_spline
from semreg.runtime.events import OnStep
from semreg.runtime.memory import peak_bytes
from semreg.runtime.settings import to_toml

logger = logging.getLogger("semreg")
UNFINISHED = "unfinished"
"""The folder within the output for what a run has computed so far."""


@dataclass(frozen=True)
class Pair:
    """Two images in chunks, and a transform to start from."""

    fixed: Input
    moving: Input
    initial: TransformLike | None = None
    initial_file: Path | None = None
    """Where it was read from; None: it was handed over."""

    def check_output(self, folder: Path) -> None:
        """Refuse a folder in which what is read would be written over (OutputError)."""
        written = [folder / name for name in (CONFIG, RECORD, TRANSFORM, WARPED, UNFINISHED)]
        for path in [Path(self.fixed.path), Path(self.moving.path), *filter(None, [self.initial_file])]:
            read = path.resolve()
            if folder.is_relative_to(read) or any(read.is_relative_to(place) for place in written):
                raise OutputError(f"expected another output folder: {path}, which is read, would be written over")


def register_large(  # noqa: PLR0913 - two images, where to, how, with what, and who is told
    pair: Pair,
    output: str | Path,
    *,
    config: RegistrationConfig,
    options: Options,
    workers: Workers | None = None,
    say: Callable[[str], None] | None = None,
    on_step: OnStep | None = None,
    command: tuple[str, ...] = (),
) -> LargeRecord:
    """Register two images of OME-Zarr of any size and write transform, warped image, settings and record.

    Args:
        pair: the images, each with one channel, chosen if there are more, and a start.
        output: the folder of the results. A run that was ended goes on from what it left there.
        config: the settings; the model is ``mind`` or ``intensity``.
        options: how much memory there is, and how far to go.
        workers: where blocks are computed; None: in this process.
        say: receives lines on how far it is.
        on_step: receives the steps of the part in one piece.
        command: the words of a command line, for the record.

    Returns:
        What was done.

    Raises:
        ImageError: for images that are none, or cannot be used.
        GeometryError: for images without overlap, and axes that cannot be written.
        ConfigError: for settings that blocks cannot have, too little memory, and what another run has left.
        OutputError: for a folder that cannot be written, or in which another process registers.
        DeviceError: for workers that die again and again.
    """
    began, folder = time.perf_counter(), Path(output).resolve()
    pair.check_output(folder)
    plan = make_plan(pair.fixed, pair.moving, config, options)
    new = not folder.exists()
    check_output_folder(folder)
    store = Store(folder / UNFINISHED)
    with _alone(store):
        _check_same(store, identity(pair, config, plan, options))
        run = Large(
            plan, config, store, workers or Here(), options.memory_bytes, pair.initial,
            say=_silent if say is None else say, on_step=on_step,
        )  # fmt: skip
        grid = pair.fixed.open().levels[options.finest].grid
        with _begun_or_nothing(store, folder, new=new):
            found = register_in_blocks(run)
        written = Output(run, found, pair.moving, grid).write()
        seconds = time.perf_counter() - began
        record = replace(_record(pair, config, run, found, written), seconds=seconds, command=command)
        _publish(folder, found, written, config, record)
    shutil.rmtree(store.folder, ignore_errors=True)
    return record


def _silent(line: str) -> None:
    del line


def _record(pair: Pair, config: RegistrationConfig, run: Large, found: Found, written: Written) -> LargeRecord:
    return LargeRecord(
        fixed=pair.fixed.path, moving=pair.moving.path, plan=run.plan.sentences, settings=config,
        coarse=found.coarse.facts.record, levels=found.levels, jacobian=written.folding,
        workers=len(run.peaks), peak_memory_bytes=max([peak_bytes(), *run.peaks.values()]), seconds=0.0,
        outputs=(CONFIG, RECORD, TRANSFORM, WARPED), versions=versions(),
    )  # fmt: skip


def _publish(folder: Path, found: Found, written: Written, config: RegistrationConfig, record: LargeRecord) -> None:
    """Move everything to its place: all of it or nothing."""
    with OutputFolder(folder, record=RECORD) as output:
        write_spline(found.spline, output.stage(TRANSFORM))
        output.stage(CONFIG).write_text(to_toml(config), encoding="utf-8")
        output.stage(RECORD).write_text(stable_json(record), encoding="utf-8")
        before = folder / WARPED
        if before.is_dir():
            output.stale = [each.relative_to(folder).as_posix() for each in before.rglob("*") if each.is_file()]
        written.path.rename(output.stage(WARPED))


def identity(pair: Pair, config: RegistrationConfig, plan: LargePlan, options: Options) -> str:
    """By which a run knows what another one has left: whatever changes the result."""
    images = {
        name: {"path": str(Path(each.path).resolve()), "choice": each.choice, "checksum": checksum(each.path)}
        for name, each in (("fixed", pair.fixed), ("moving", pair.moving))
    }
    start = {"path": str(pair.initial_file or ""), "checksum": checksum(pair.initial_file) if pair.initial_file else ""}
    rest = {"initial": start, "plan": plan.sentences, "memory": options.memory_bytes}
    return stable_json({**images, **rest, "config": config, "versions": versions()})


def _check_same(store: Store, identity: str) -> None:
    if not store.has("identity.json"):
        store.write_text("identity.json", identity)
    elif store.read_text("identity.json") != identity:
        raise ConfigError(
            f"expected {store.folder} of a run with the same images, settings, memory and versions, got that of "
            "another: remove it to begin anew, or choose another --output"
        )
    else:
        logger.info("%s: the run goes on", store.folder)


@contextmanager
def _begun_or_nothing(store: Store, folder: Path, *, new: bool) -> Iterator[None]:
    """What is refused before anything was computed leaves nothing behind, so that the next command can be another."""
    try:
        yield
    except SemregError:
        if not is_begun(store):
            shutil.rmtree(store.folder, ignore_errors=True)
            if new:
                folder.rmdir()
        raise


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """One run at a time: the lock ends with its process, however that ends."""
    from filelock import FileLock, Timeout

    store.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(store.folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(f"expected no other run in {store.folder}, got one: wait for it") from None
    try:
        yield
    finally:
        lock.release()
