"""A template whose registrations run as batches: in processes, each once, and gone on with where a run was ended.

``start`` holds the alignments, ``rounds/N`` the registrations of a round and the template that they are to, and
``images`` those to the template as it is at last, with their pages. What is done, by the contents of the files, the
settings and the version, is not done again: a round's template follows from the registrations of the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from semreg.batch.batch import BatchOptions, run_batch
from semreg.batch.jobs import Digests, Job, JobFlags, make_job
from semreg.batch.log import OnEvent
from semreg.batch.measures import CohortRow, cohort_rows, write_csv
from semreg.batch.page import write_page
from semreg.batch.pairs import Pair, check_pairs
from semreg.batch.schedulers import Scheduler
from semreg.config import RegistrationConfig
from semreg.core.fields import Field, Volume
from semreg.core.geometry import Matrix
from semreg.errors import ConfigError
from semreg.io.atomic_output import check_output_folder
from semreg.io.bridge import matrix_of, transform_of
from semreg.io.files import write_image, write_sitk_transform
from semreg.io.records import Recorded, stable_json, versions
from semreg.io.result_folder import TRANSFORM
from semreg.registration.result import Registration
from semreg.registration.template import Round, Template, TemplateOptions, for_rounds
from semreg.transforms import read_transform

TEMPLATE, RECORD = "template.nii.gz", "template.json"
START, ROUNDS, IMAGES = "start", "rounds", "images"
"""Folders of the alignments, of the rounds, and of the registrations to the template as it is at last."""
INITIAL = "{}.tfm"
"""What the registrations of an image start from, in ``start``."""


@dataclass(frozen=True)
class Registered(Iterable[Field]):
    """The fields of a round, read from their folders each time they are gone through."""

    folders: Sequence[Path]

    def __iter__(self) -> Iterator[Field]:
        return (Registration.load(folder).field for folder in self.folders)


@dataclass(frozen=True, kw_only=True)
class InBatches:
    """Registers the images of a template as batches in folders below ``output``."""

    files: Sequence[Path]
    names: Sequence[str]
    output: Path
    config: RegistrationConfig
    flags: JobFlags
    scheduler: Scheduler
    rounds: int
    on_batch: Callable[[int], OnEvent] | None = None
    """What listens to a batch of so many jobs."""

    def align(self, start: int) -> Sequence[Matrix]:
        """Linear maps from the image ``start`` to each, homogeneous (E, E) on points in mm."""
        pairs = [
            Pair(name=name, fixed=self.files[start], moving=file, where=str(file))
            for name, file in zip(self.names, self.files, strict=True)
            if file != self.files[start]
        ]
        check_pairs(pairs)
        digest = Digests()
        self._run([_alignment(make_job(pair, self.config, self.flags, digest)) for pair in pairs], START)
        found = {pair.name: matrix_of(read_transform(self.output / START / pair.name / TRANSFORM)) for pair in pairs}
        one = next(iter(found.values()))
        return [found.get(name, np.eye(len(one))) for name in self.names]

    def register(self, template: Volume, number: int, initial: Sequence[Matrix]) -> Iterable[Field]:
        """The fields template → image of a round; those of the last one with their inverse and page."""
        last = number > self.rounds
        folder = IMAGES if last else f"{ROUNDS}/{number}"
        place = check_output_folder(self.output / folder)
        fixed = self.output / TEMPLATE if last else place / TEMPLATE
        write_image(template, fixed)
        pairs = []
        for name, file, matrix in zip(self.names, self.files, initial, strict=True):
            start = self.output / START / INITIAL.format(name)
            write_sitk_transform(transform_of(matrix), start)
            pairs.append(Pair(name=name, fixed=fixed, moving=file, initial=start, where=str(file)))
        check_pairs(pairs)
        config = self.config if last else for_rounds(self.config)
        flags = replace(self.flags, register=("--inverse",)) if last else self.flags
        digest = Digests()
        jobs = [make_job(pair, config, flags, digest) for pair in pairs]
        self._run(jobs if last else [replace(job, steps=job.steps[:1]) for job in jobs], folder)
        return Registered([place / name for name in self.names])

    def _run(self, jobs: Sequence[Job], folder: str) -> None:
        """Run what is left of the jobs (ConfigError where one fails)."""
        told = None if self.on_batch is None else self.on_batch(len(jobs))
        options = BatchOptions(threads=self.flags.threads, source=folder, on_event=told)
        result = run_batch(jobs, check_output_folder(self.output / folder), self.scheduler, options)
        for name, error in result.failed.items():
            raise ConfigError(
                f"expected {len(jobs)} registrations in {self.output / folder}, {len(result.failed)} failed; "
                f"{name}: {error}; leave the image out, or give the same command again"
            )


def _alignment(job: Job) -> Job:
    """The job that finds the linear map alone."""
    registered = job.steps[0]
    words = registered.arguments
    settings = words[words.index("--config") :]
    kept = settings[: settings.index("--device") + 2]
    step = replace(registered, name="align", arguments=("align", *words[1:5], *kept))
    return replace(job, steps=(step,))


@dataclass(frozen=True, kw_only=True)
class TemplateRecord(Recorded):
    """What a template is of, and how its rounds went."""

    images: tuple[str, ...]
    names: tuple[str, ...]
    """Of their folders, in the same order."""
    options: TemplateOptions
    rounds: tuple[Round, ...]
    shape: tuple[int, ...]
    """Voxels of the template, x first."""
    spacing_mm: tuple[float, ...]
    versions: dict[str, str]
    command: tuple[str, ...]

    @classmethod
    def of(cls, found: Template, work: InBatches, options: TemplateOptions, command: tuple[str, ...]) -> TemplateRecord:
        """Of a template and the files that it is of."""
        grid = found.image.grid
        return cls(
            images=tuple(map(str, work.files)), names=tuple(work.names), options=options, rounds=found.rounds,
            shape=grid.size_xyz, spacing_mm=grid.spacing_xyz, versions=versions(), command=command,
        )  # fmt: skip

    def text(self) -> str:
        """As JSON."""
        return stable_json(self)


def names_of(files: Sequence[Path]) -> list[str]:
    """A name for the folder of each image: that of its file, with the folder's in front where files have the same."""
    names = [_stem(file) for file in files]
    if len(set(names)) < len(names):
        names = [f"{file.absolute().parent.name}_{_stem(file)}" for file in files]
    return names


def write_cohort(work: InBatches) -> list[CohortRow]:
    """``cohort.csv`` and ``index.html`` about the registrations to the template; the rows."""
    rows = cohort_rows(work.output / IMAGES, list(work.names))
    write_csv(work.output / IMAGES / "cohort.csv", rows)
    write_page(work.output / IMAGES / "index.html", rows, source=f"{len(rows)} images to their template")
    return rows


def _stem(file: Path) -> str:
    name = file.name.removesuffix(".gz")
    return name if file.is_dir() else Path(name).stem
