"""What do rigid parts give: bones of made-up joints whose true motion is known, and labels of real pairs.

    python parts.py [PAIRS.toml] [--phantoms N] [--report]

Each joint has three bones that move rigidly, each its own way, in soft tissue. It is registered as it is, with the
bones stiff (the map of ``--stiffness``, 50 in them), with the bones as rigid parts whose map is the one nearest to the
displacement, and as ``--rigid`` does it. Of real pairs the labels of the fixed image named below are rigid parts, and
the Dice of them and of all others is told, without and with.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import SimpleITK as sitk
import tools
import torch
from guidance import SIDES, array, dices, only
from scipy.ndimage import distance_transform_edt

import report
import semreg
from semreg.core.fields import Volume
from semreg.phantom import PhantomPair, make_bones

SIZE = 64
NEAR_MM = 10.0
TUNED = (
    "How a part is improved on the images was chosen with the first three joints of both kinds in view; "
    "the fourth is new."
)
"""What is in-sample."""
BONY = {"abdomen_mr_ct": ("totalseg_ct_mr/mr_3mm_totalmr50.nii.gz", "totalseg_ct_mr/ct_3mm_totalseg117.nii.gz")}
"""Label maps of the fixed and the moving image with bones in them."""
VERTEBRAE = {"abdomen_mr_ct": ((19,), tuple(range(26, 51)))}
"""The vertebrae in them: of the MR one label for all, of the CT one each."""
BARS = {"residual, mm": 1e-3, "folded": 0.0}


@dataclass(frozen=True)
class Case:
    """A real pair."""

    name: str
    rigid: sitk.Image
    """The rigid parts of its fixed image."""
    fixed: sitk.Image
    """What they are together, 1, in the fixed image."""
    moving: sitk.Image
    """The same in the moving image."""


def main() -> int:
    """Register, score, print, write; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("pairs", type=Path, nargs="?", default=tools.SHARED / "data" / "pairs.toml", help="list of the pairs")
    add("--phantoms", type=int, default=4, metavar="N", help="of each kind")
    add("--report", action="store_true", help="write the tables to results/parts.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    table, missed = phantoms_table(given.phantoms)
    parts = [table]
    if given.pairs.exists():
        parts.append(real_table(given.pairs))
    else:
        print(f"skipped: {given.pairs} is not there")
    facts = report.machine(1) | {"semreg": report.versions_line(tools.semreg_versions())}
    text = f"# Rigid parts\n\n`python benchmarks/parts.py --report`\n\n{report.bullets(facts)}\n" + "\n".join(parts)
    print(text)
    if given.report:
        (tools.RESULTS / "parts.md").write_text(text, encoding="utf-8")
    return int(missed)


def ways(pair: PhantomPair) -> dict[str, semreg.Registration]:
    """What is found each way."""
    labels = pair.fixed_labels()
    stiff = Volume(torch.where(labels.data > 0, 50.0, 1.0), labels.grid)
    fitted = semreg.configure("parts.refine=false")
    return {
        "as it is": semreg.register(pair.fixed, pair.moving),
        "stiff": semreg.register(pair.fixed, pair.moving, stiffness=stiff),
        "nearest rigid map": semreg.register(pair.fixed, pair.moving, rigid=labels, config=fitted),
        "--rigid": semreg.register(pair.fixed, pair.moving, rigid=labels),
    }


def phantoms_table(count: int) -> tuple[str, bool]:
    """Errors in the bones, near them and far away; whether a bar is missed."""
    rows, worst, missed = [], [], False
    for contrasts in (("ct", "ct"), ("ct", "mr")):
        found: dict[str, list[tuple[float, ...]]] = {}
        for seed in range(count):
            pair = make_bones(size=SIZE, seed=seed, contrasts=contrasts)
            for way, result in ways(pair).items():
                found.setdefault(way, []).append(scores(pair, result))
                print(contrasts, seed, way, *(f"{value:.3f}" for value in found[way][-1]), flush=True)
                worst += [] if result.record.parts is None else [(residual(result), folds(result))]
        for way, values in found.items():
            better = sum(value[0] < plain[0] for value, plain in zip(values, found["stiff"], strict=True))
            means = [f"{fmean(column):.2f}" for column in zip(*values, strict=True)]
            kind = " and ".join(contrast.upper() for contrast in contrasts)
            rows.append([kind, way, *means, f"{better} of {count}"])
    largest = [max(column) for column in zip(*worst, strict=True)] or [0.0, 0.0]
    bars = []
    for (name, limit), value in zip(BARS.items(), largest, strict=True):
        missed |= value > limit
        bars.append(f"* {name}: {value:.2g} at most; bar {limit:g}: {'MISSED' if value > limit else 'met'}")
    header = ["contrasts", "bones", "in bones, mm", "within 10 mm, mm", "further, mm", "better in bones than stiff"]
    title = f"Mean error on {count} joints of {SIZE} voxels an axis; bones turn by 7 to 12° and move by 4.4 to 4.7 mm:"
    table = report.markdown_table(header, rows)
    text = f"{title}\n\n{table}\n{TUNED}\n\nOver all that have rigid parts:\n\n" + "\n".join(bars)
    return text, missed


def scores(pair: PhantomPair, result: semreg.Registration) -> tuple[float, ...]:
    """The mean error in mm in the bones, within ``NEAR_MM`` of them in the body, and further away in it."""
    off = torch.linalg.vector_norm(result.field.mm() - pair.true_field().mm(), dim=0).numpy()
    bones = pair.fixed_labels().data[0].numpy() > 0
    away = distance_transform_edt(~bones, sampling=pair.fixed.grid.spacing)
    body = pair.fixed.data[0].numpy() > -500
    places = bones, ~bones & (away < NEAR_MM) & body, (away >= NEAR_MM) & body
    return tuple(float(off[each].mean()) for each in places)


def residual(result: semreg.Registration) -> float:
    """How far any part is from its rigid map, in mm."""
    found = result.record.parts
    return 0.0 if found is None else max(part.residual_mm or 0.0 for part in found.parts)


def folds(result: semreg.Registration) -> float:
    """The share of folded voxels."""
    return result.record.jacobian.folded_share


def real_table(listed: Path) -> str:
    """Dice of what is rigid and of the rest."""
    root, rows = listed.parent, []
    pairs = {pair["name"]: pair for pair in tomllib.loads(listed.read_text(encoding="utf-8"))["pair"]}
    for case in cases(root, pairs):
        pair = pairs[case.name]
        common = [sitk.ReadImage(str(root / pair[f"{side}_labels"]), sitk.sitkInt32) for side in SIDES]
        others = sorted(set(np.unique(array(common[0]))) & set(np.unique(array(common[1]))) - {0})
        cells = []
        for given in (None, case.rigid):
            found = semreg.register(root / pair["fixed"], root / pair["moving"], rigid=given)
            transform = found.transform()
            own = fmean(dices(transform, case.fixed, case.moving, [1]).values())
            rest = fmean(dices(transform, *common, others).values())
            cells.append((f"{own:.3f}", f"{rest:.3f}", f"{found.record.jacobian.folded_share:.4f}"))
            if found.record.parts is not None:
                parts = found.record.parts.parts
                off = max(part.from_rigid_mm.maximum_mm for part in parts)
                rigidity = f"{off:.2f} → {residual(found):.0e}"
                held = f"{min(part.held_share for part in parts):.0%}"
        rows.append([case.name, str(len(parts)), *(f"{a} → {b}" for a, b in zip(*cells, strict=True)), rigidity, held])
        print(rows[-1], flush=True)
    header = [
        "pair",
        "parts",
        "Dice of them",
        "of the labels of the pair",
        "folded",
        "from rigid, mm",
        "least held",
    ]
    return "\n\nReal pairs, without → with:\n\n" + report.markdown_table(header, rows)


def cases(root: Path, pairs: Mapping[str, Any]) -> Iterator[Case]:
    """The pairs with something that may be rigid."""
    if "spine_t2_t1" in pairs:
        paths = [root / pairs["spine_t2_t1"][f"{side}_labels"] for side in SIDES]
        images = [sitk.ReadImage(str(path), sitk.sitkInt32) for path in paths]
        yield Case("spine_t2_t1", sitk.ReadImage(str(root / "sct_spine/t2w_levels.nii.gz")), *images)
    for name, paths in BONY.items():
        if name in pairs:
            images = [sitk.ReadImage(str(root / path), sitk.sitkInt32) for path in paths]
            merged = [same(image, wanted) for image, wanted in zip(images, VERTEBRAE[name], strict=True)]
            pieces = sitk.RelabelComponent(sitk.ConnectedComponent(merged[0]), minimumObjectSize=8)
            yield Case(name, pieces, *merged)


def same(image: sitk.Image, wanted: tuple[int, ...]) -> sitk.Image:
    """These labels as one, 1."""
    return sitk.Cast(only(image, list(wanted)) > 0, sitk.sitkInt32)


if __name__ == "__main__":
    sys.exit(main())
