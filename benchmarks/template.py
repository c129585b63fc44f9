"""Is the template of several images their mean, and a way between them? Phantoms with a known mean, and real images.

    python template.py [FOLDER] [--report]

Phantoms: eight images of one body, deformed by random fields whose mean is 0, so that the body is the true mean. The
landmarks of a template are the mean of where the registrations carry those of all images. FOLDER holds
images/NAME.nii.gz and labels/NAME.nii.gz of several subjects: labels are carried between all pairs, directly and
through the template.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import numpy as np
import tools
import torch
from propagation import dice

import report
from semreg import RegistrationConfig
from semreg.core.fields import Field, Volume
from semreg.io.bridge import sitk_transform, to_volume
from semreg.io.files import read_image, read_labels
from semreg.registration.pipeline import register
from semreg.registration.template import InProcess, Template, TemplateOptions, build_template, for_rounds
from semreg.transforms.labels import largest_share

sys.path.insert(0, str(tools.ROOT / "tests"))
from cohort_bodies import Cohort, landmark_error, make_cohort

SIZES = {2: 96, 3: 40}
"""Voxels an axis of the phantoms, by dimension."""


def main() -> None:
    """Make both, score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=tools.SHARED / "data" / "hippocampus")
    parser.add_argument("--report", action="store_true", help="write the tables to results/template.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    facts = report.machine(1) | {"semreg": report.versions_line(tools.semreg_versions())}
    parts = [f"# Templates\n\n{report.bullets(facts)}", phantoms(), people(given.folder)]
    text = "\n".join(parts)
    print(text)
    if given.report:
        (tools.RESULTS / "template.md").write_text(text, encoding="utf-8")


def phantoms() -> str:
    """The distance of the template's landmarks from the true mean, in voxels."""
    rows = []
    for dimension, size in SIZES.items():
        cohort = make_cohort(8, size=size, dimension=dimension)
        voxel = cohort.mean.grid.spacing[0]
        made = build_template(cohort.images, options=TemplateOptions(rounds=4))
        singles = [landmark_error(cohort, onto(cohort, image)) / voxel for image in cohort.images]
        error = landmark_error(cohort, made.fields) / voxel
        bars = report.holds(error < 0.5), report.holds(error < min(singles))
        numbers = (error, min(singles), fmean(singles))
        rows.append([f"{dimension}-D, {size} voxels of {voxel:.3g} mm", *map(report.number, numbers), *bars])
        print(rows[-1], [each.residual_mm for each in made.rounds], flush=True)
    header = ["eight phantoms", "template", "best single image", "mean single image", "below 0.5", "below the best"]
    said = (
        "Mean distance of the landmarks from the true mean, in voxels. A single image as the template: all are "
        "registered to it, and its shape is not corrected. Default settings, 4 rounds."
    )
    return f"## Phantoms with a known mean\n\n{said}\n\n{report.markdown_table(header, rows)}"


def onto(cohort: Cohort, image: Volume) -> Iterable[Field]:
    """The fields from one image, as a template without correction, to all of them."""
    own = InProcess(cohort.images, RegistrationConfig(), "cpu")
    return own.register(image, 1, [np.eye(image.grid.dimension + 1)] * len(cohort.images))


def people(folder: Path) -> str:
    """Mean Dice over all ordered pairs, directly and through the template."""
    files = sorted((folder / "images").glob("*.nii.gz"))
    title = "## Labels between all pairs\n\n"
    if len(files) < 3:
        return f"{title}skipped: expected images of three subjects or more below the folder"
    images = [read_image(file).volume for file in files]
    made = build_template(images, options=TemplateOptions(rounds=4))
    between = through(made, images)
    scores: dict[str, list[float]] = {"direct": [], "through the template": []}
    for fixed, moving in itertools.permutations(range(len(files)), 2):
        direct = register(images[fixed], images[moving], config=for_rounds(RegistrationConfig())).field
        known = read_labels(folder / "labels" / files[fixed].name)
        truth = np.array(known.labels)[known.numbers.data[0].long().numpy()]
        for way, field in (("direct", direct), ("through the template", between[fixed, moving])):
            scores[way].append(dice(truth, carried(folder / "labels" / files[moving].name, field)))
        print(files[fixed].name, files[moving].name, *(each[-1] for each in scores.values()), flush=True)
    direct_mean, template_mean = map(fmean, scores.values())
    rows = [[way, report.number(fmean(found)), report.number(min(found))] for way, found in scores.items()]
    bar = f"The template is at least as good as direct pairs: {report.holds(template_mean >= direct_mean)}."
    said = f"{len(files)} subjects, {len(scores['direct'])} ordered pairs; mean over pairs and labels of the Dice."
    return f"{title}{said}\n\n{report.markdown_table(['way', 'Dice', 'worst pair'], rows)}\n{bar}\n"


def through(made: Template, images: list[Volume]) -> dict[tuple[int, int], Field]:
    """The fields from each image to each other one: back to the template and on from there."""
    fields = list(made.fields)
    back = [field.inverse(image.grid) for field, image in zip(fields, images, strict=True)]
    return {(a, b): back[a].then(fields[b]) for a, b in itertools.permutations(range(len(images)), 2)}


def carried(labels: Path, field: Field) -> np.ndarray:
    """Labels read through a field: at each voxel the one with the largest share."""
    numbers = read_labels(labels)
    values = np.array(numbers.labels)
    moved = largest_share(numbers.numbers.to_sitk("int32"), field.grid, sitk_transform(field), 0)
    return values[to_volume(moved).data[0].long().numpy()]


if __name__ == "__main__":
    main()
