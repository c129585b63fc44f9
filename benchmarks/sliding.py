"""What does a part that slides give: chests whose inside slides along its wall, and lungs of two persons.

    python sliding.py [PAIRS.toml] [--phantoms N] [--report]

Each chest has an inner body that slides along its wall by 8 to 15 mm, in a direction of its own, while a smooth map
moves all. It is registered as it is and with ``--sliding``; so are chests in which nothing slides. Of the lungs of two
persons the lobes are what slides, and the Dice of the lobes is told, which the mask of the fixed image alone knows of.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from statistics import fmean

import numpy as np
import SimpleITK as sitk
import tools
import torch
from guidance import SIDES, array, dices
from scipy.ndimage import distance_transform_edt

import report
import semreg
from semreg.core.fields import Volume
from semreg.phantom import PhantomPair, make_chests, points_of

SIZE = 64
NEAR_MM = 6.0
SLIDES_MM = (12.0, 12.0, 8.0, 15.0, 10.0, 14.0)
"""Of the phantoms, by their number."""
TUNED = (
    "How strictly both sides are held together was chosen with the first two in view (12 mm), that a search on each "
    "side is kept only where it matches better with all of them: in-sample."
)
"""What is in-sample."""
REAL = "lungmr_0004_0006"
BARS = {"folded on either side": 0.0, "mean gap, mm": 1.0}


def main() -> int:
    """Register, score, print, write; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("pairs", type=Path, nargs="?", default=tools.SHARED / "data" / "pairs.toml", help="list of the pairs")
    add("--phantoms", type=int, default=4, metavar="N", help=f"of each kind, {len(SLIDES_MM)} at most")
    add("--report", action="store_true", help="write the tables to results/sliding.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    table, missed = phantoms_table(given.phantoms)
    parts = [table]
    if given.pairs.exists():
        parts.append(real_table(given.pairs))
    else:
        print(f"skipped: {given.pairs} is not there")
    facts = report.machine(1) | {"semreg": report.versions_line(tools.semreg_versions())}
    text = f"# Parts that slide\n\n`python benchmarks/sliding.py --report`\n\n{report.bullets(facts)}\n" + "\n".join(
        parts
    )
    print(text)
    if given.report:
        (tools.RESULTS / "sliding.md").write_text(text, encoding="utf-8")
    return int(missed)


def phantoms_table(count: int) -> tuple[str, bool]:
    """Errors on both sides of the wall, near it and further away; whether a bar is missed."""
    rows, left = [], []
    for contrasts in (("ct", "ct"), ("ct", "mr")):
        kind = " and ".join(contrast.upper() for contrast in contrasts)
        for slides in (SLIDES_MM[:count], (0.0,) * ((count + 1) // 2)):
            found: dict[str, list[tuple[float, ...]]] = {"as it is": [], "--sliding": []}
            for number, slide in enumerate(slides):
                seed = number if slide else count - 1 - number
                pair = make_chests(size=SIZE, seed=seed, contrasts=contrasts, slide_mm=slide)
                lung = Volume((pair.fixed_labels().data == 1).float(), pair.fixed.grid)
                for way, values in found.items():
                    result = semreg.register(pair.fixed, pair.moving, sliding=lung if way == "--sliding" else None)
                    values.append(scores(pair, result))
                    said = result.record.sliding
                    print(kind, seed, slide, way, *(f"{value:.3f}" for value in values[-1]), said, flush=True)
                    if said is not None:
                        left.append((result.record.jacobian.folded_share, said.gap_mm.mean_mm, said.across_share))
            for way, values in found.items():
                better = sum(value[0] < plain[0] for value, plain in zip(values, found["as it is"], strict=True))
                means = [f"{fmean(column):.2f}" for column in zip(*values, strict=True)]
                word = f"{min(slides):g} to {max(slides):g} mm" if max(slides) else "nothing"
                rows.append([kind, word, way, *means, f"{better} of {len(slides)}"])
    folded, gap, across = ([*column] for column in zip(*left, strict=True))
    bars, missed = [], False
    for (name, limit), value in zip(BARS.items(), (max(folded), max(gap)), strict=True):
        missed |= value > limit
        bars.append(f"* {name}: {value:.2g} at most; bar {limit:g}: {'MISSED' if value > limit else 'met'}")
    bars.append(f"* voxels with a determinant of 0 or below across the wall: {100 * max(across):.2g} % at most")
    header = ["contrasts", "slides by", "way", "inside, mm", "outside, mm", "further, mm", "better inside"]
    title = (
        f"Mean error on chests of {SIZE} voxels an axis: within {NEAR_MM:g} mm of the wall, inside and outside of it, "
        "and further away in the body:"
    )
    text = f"{title}\n\n{report.markdown_table(header, rows)}\n{TUNED}\n\nOver all with `--sliding`:\n\n" + "\n".join(
        bars
    )
    return text, missed


def scores(pair: PhantomPair, result: semreg.Registration) -> tuple[float, ...]:
    """The mean error in mm within ``NEAR_MM`` of the wall, inside and outside, and further away in the body."""
    off = torch.linalg.vector_norm(result.field.mm() - pair.true_field().mm(), dim=0).numpy()
    inside, spacing = pair.fixed_labels().data[0].numpy() == 1, pair.fixed.grid.spacing
    near = np.where(
        inside, distance_transform_edt(inside, sampling=spacing), distance_transform_edt(~inside, sampling=spacing)
    )
    points = points_of(pair.fixed.grid).flatten(1).numpy()
    body = pair.anatomy.region.share(points).reshape(inside.shape) < 1
    places = (near < NEAR_MM) & inside, (near < NEAR_MM) & ~inside & body, (near >= NEAR_MM) & body
    return tuple(float(off[each].mean()) for each in places)


def real_table(listed: Path) -> str:
    """Dice of the lobes of the lungs, without and with."""
    pairs = {pair["name"]: pair for pair in tomllib.loads(listed.read_text(encoding="utf-8"))["pair"]}
    if REAL not in pairs:
        return ""
    pair, root, rows = pairs[REAL], listed.parent, []
    common = [sitk.ReadImage(str(root / pair[f"{side}_labels"]), sitk.sitkInt32) for side in SIDES]
    others = sorted(set(np.unique(array(common[0]))) & set(np.unique(array(common[1]))) - {0})
    lungs = [sitk.Cast(image > 0, sitk.sitkInt32) for image in common]
    for way, given in (("as it is", None), ("--sliding", root / pair["fixed_labels"])):
        result = semreg.register(root / pair["fixed"], root / pair["moving"], sliding=given)
        lobes = fmean(dices(result.transform(), *common, others).values())
        lung = fmean(dices(result.transform(), *lungs, [1]).values())
        said, folded = result.record.sliding, result.record.jacobian.folded_share
        ends = ["-", "-", "-"] if said is None else [
            f"{said.slide_mm.mean_mm:.1f}", f"{said.gap_mm.mean_mm:.2f}", f"{100 * said.across_share:.2g}"
        ]  # fmt: skip
        rows.append([way, f"{lobes:.3f}", f"{lung:.3f}", f"{100 * folded:.2g}", *ends])
        print(rows[-1], flush=True)
    header = ["way", "Dice of lobes", "of both lungs", "folded, %", "slides, mm", "gap, mm", "folded across, %"]
    return f"\n\n`{REAL}`:\n\n" + report.markdown_table(header, rows)


if __name__ == "__main__":
    sys.exit(main())
