"""Labels of several real images carried onto one: every fusion beside the best and the mean of single atlases.

    python propagation.py [FOLDER] [--report]

FOLDER holds images/NAME.nii.gz and labels/NAME.nii.gz of several subjects. Each is labelled by all others. Mean Dice
over the labels that both have, by SimpleITK.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

import numpy as np
import SimpleITK as sitk
import tools
import torch

import report
from semreg.registration.propagation import Fusion, Propagated, fuse, propagate, weights_of


def main() -> None:
    """Propagate, score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=tools.SHARED / "data" / "hippocampus")
    parser.add_argument("--report", action="store_true", help="write the table to results/propagation.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = sorted(path.name for path in (given.folder / "images").glob("*.nii.gz"))
    if len(names) < 3:
        print(f"skipped: expected images of three subjects or more below {given.folder}")
        return
    rows = []
    for name in names:
        atlases = [(given.folder / "images" / n, given.folder / "labels" / n) for n in names if n != name]
        found = propagate(given.folder / "images" / name, atlases, fusion=Fusion.LOCAL)
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(given.folder / "labels" / name)))
        singles = [dice(truth, each.numpy()) for each in found.each]
        fused = {fusion: dice(truth, again(found, given.folder / "images" / name, fusion)) for fusion in Fusion}
        rows.append([name.split(".")[0], fmean(singles), max(singles), *fused.values()])
        print(rows[-1], flush=True)
    rows.append(["mean", *(fmean(row[column] for row in rows) for column in range(1, len(rows[0])))])
    header = ["image", "single atlas, mean", "best single one", *Fusion]
    table = report.markdown_table(header, [[row[0], *(report.number(value) for value in row[1:])] for row in rows])
    facts = report.machine(1) | {"semreg": report.versions_line(tools.semreg_versions())}
    said = "Mean Dice; every image is labelled by all others."
    text = f"# Propagation of labels\n\n{report.bullets(facts)}\n{said}\n\n{table}"
    print(text)
    if given.report:
        (tools.RESULTS / "propagation.md").write_text(text, encoding="utf-8")


def again(found: Propagated, image: Path, fusion: Fusion) -> np.ndarray:
    """The labels by another fusion, without registering again."""
    stack = torch.stack([each.data[0] for each in found.each]).long()
    weights = weights_of(image, found.registrations) if fusion == Fusion.LOCAL else None
    return fuse(stack, fusion, weights)[0].numpy()


def dice(truth: np.ndarray, found: np.ndarray) -> float:
    """Mean over the labels of the truth."""
    labels = [label for label in np.unique(truth) if label]
    pairs = [(truth == label, found == label) for label in labels]
    return fmean(2 * int((a & b).sum()) / int(a.sum() + b.sum()) for a, b in pairs)


if __name__ == "__main__":
    main()
