"""Sets real networks side by side: their labels against those of the data, their layers as features beside MIND.

    python networks.py [PAIRS.toml] [RESULTS] [--parts labels features guidance] [--only NAME ...] [--report FILE]

``networks/*.toml`` beside this file describe the networks of DATA/models. ``labels``: ``semreg infer --argmax`` and the
Dice of each class. ``features``: every pair that a network is made for, registered with each of its layers in place of
MIND, by each distance, and with MIND and the layer that was best on the network's first pair. ``guidance``: its classes
guide (``--segment``). A run that is in RESULTS is not run again, so a stopped benchmark goes on; ``--tables-only``
prints what is there. Nothing is a bar: the tables are read in docs/features.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import SimpleITK as sitk
import tools
from infer import FREESURFER
from pairs import figure_of, load_scorer, run_pair, tomllib, usage_of

import report

DESCRIPTIONS = Path(__file__).with_name("networks")
NEUROMORPHOMETRICS = (
    (44, 45), tuple(range(100, 208)), (51, 52), (49, 50), (40, 41), (38, 39), (59, 60), (36, 37), (57, 58), (55, 56),
    (4,), (11,), (35,), (47, 48), (31, 32), (23, 30), (61, 62),
)  # fmt: skip
"""The numbers of the labels of malf for MeshNet's classes, from class 1 on."""
TOTALSEGMENTATOR = ((1,), (7,), (3,), (4,), (15,), (5,), (6,), (19,))
"""Those of the CT for OBELISK's classes, from class 1 on."""
ANY = "any"
"""All labels together."""
BRAINS = ("oasis", "malf_1000_1001")
PLAIN_MIND = ("refine.local_correlation=0", "fine.enabled=false")
"""MIND alone at its defaults has the intensities beside it; networks have not."""
Labels = Mapping[int, tuple[int, ...] | str]


@dataclass(frozen=True)
class Truth:
    """An image with labels, and which of them a class stands for."""

    image: str
    labels: str
    classes: Labels
    top_mm: float | None = None
    """So much of the image from its upper end is all that the network is shown."""


@dataclass(frozen=True)
class Entry:
    """A network, what it is made for, and what can be asked of it here."""

    file: str
    outputs: int
    pairs: tuple[str, ...] = ()
    distances: tuple[str, ...] = ("l2", "cosine")
    truths: tuple[Truth, ...] = ()
    guides: bool = False
    half: tuple[str, ...] = field(default=())
    """Pairs of which it is made for one image alone."""


def numbered(groups: Sequence[tuple[int, ...]]) -> dict[int, tuple[int, ...] | str]:
    """Groups of labels by class, from class 1 on."""
    return dict(enumerate(groups, start=1))


def brains(classes: Mapping[str, Labels]) -> tuple[Truth, ...]:
    """The four brains; what a class stands for in the labels of either kind."""
    oasis = [f"oasis_pair/{side}" for side in ("fixed", "moving")]
    return (
        *(Truth(f"{name}_t1.nii.gz", f"{name}_freesurfer_seg.nii.gz", classes["oasis"]) for name in oasis),
        *(Truth(f"malf/{n}_t1.nii.gz", f"malf/{n}_labels.nii.gz", classes["malf"]) for n in (1000, 1001)),
    )


WHOLE = {1: ANY}
NETWORKS = {
    "m730": Entry(
        "M730_1_Layers.pt", 1,
        ("liver_18_cyc_1_10", "liver_18_cyc_3_10", "liver_19_cyc_1_6", "liver_19_cyc_1_9", "lungmr_0004_0006",
         "spine_t2_t1"),
        half=("abdomen_mr_ct",),
    ),
    "brainchop": Entry(
        "brainchop_model30chan18cls.pt", 10, BRAINS, guides=True,
        truths=brains({"oasis": numbered(FREESURFER), "malf": numbered(NEUROMORPHOMETRICS)}),
    ),
    "deepbet": Entry("deepbet_bbox.pt", 5, BRAINS, truths=brains({"oasis": WHOLE, "malf": WHOLE})),
    "hippodeep": Entry(
        "hippodeep_head.pt", 5, BRAINS, truths=brains({"oasis": {0: ANY}, "malf": {0: ANY}})
    ),
    "obelisk": Entry(
        "obeliskhybrid_tcia_fold1.pt", 4, half=("abdomen_mr_ct",),
        truths=(
            Truth("totalseg_ct_mr/ct_3mm.nii.gz", "totalseg_ct_mr/ct_3mm_totalseg117.nii.gz",
                  numbered(TOTALSEGMENTATOR), top_mm=138.0),
            Truth("totalseg_ct_mr/ct_3mm.nii.gz", "totalseg_ct_mr/ct_3mm_totalseg117.nii.gz",
                  numbered(TOTALSEGMENTATOR)),
        ),
    ),
    "r1d2_2d": Entry("R1D2_2D.pt", 1, ("histology_lesion",)),
    "lwnet": Entry("lwnet_drive.pt", 3),
}  # fmt: skip
"""By the name of the description."""


def main() -> None:
    """Run what is not there, print."""
    given = arguments()
    if not given.pairs.exists() or not given.scorer.exists():
        print(f"skipped: {given.pairs} and {given.scorer} are needed, and they are not both there")
        return
    names = [name for name in NETWORKS if not given.only or name in given.only]
    for name in names:
        model_of(given, name)
    text = overview(names)
    if "labels" in given.parts:
        text += "## Labels\n\n" + labels_table(given, names) + "\n"
    if "features" in given.parts or "guidance" in given.parts:
        text += "## Features\n" + features_tables(given, names)
    print(text)
    if given.report:
        facts = report.machine(given.threads) | {"semreg": report.versions_line(tools.semreg_versions())}
        given.report.write_text(f"# Networks\n\n{report.bullets(facts)}\n{text}", encoding="utf-8")


def arguments() -> argparse.Namespace:
    """What the command was given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, parts = parser.add_argument, ["labels", "features", "guidance"]
    add("pairs", type=Path, nargs="?", default=tools.SHARED / "data" / "pairs.toml", help="list of the pairs")
    add("results", type=Path, nargs="?", default=tools.OUT / "networks", help="folder for the results")
    add("--scorer", type=Path, default=tools.SHARED / "bench" / "score.py", help="the file that scores")
    add("--parts", nargs="+", default=parts, choices=parts)
    add("--only", nargs="+", default=[], metavar="NAME", choices=list(NETWORKS), help="these networks alone")
    add("--only-pairs", nargs="+", default=[], metavar="NAME", help="these pairs alone")
    add("--layers", nargs="+", type=int, default=[], help="run these layers alone")
    add("--distances", nargs="+", default=[], help="run these distances alone")
    add("--tables-only", action="store_true", help="run nothing")
    add("--threads", type=int, default=1)
    add("--report", type=Path, help="write the tables to this Markdown file too")
    return parser.parse_args()


def model_of(given: argparse.Namespace, name: str) -> Path:
    """The network under the name of its description, which lies beside it as a user's would."""
    folder = given.results / "models"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / f"{name}.pt"
    if not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to((given.pairs.parent / "models" / NETWORKS[name].file).resolve())
    link.with_suffix(".toml").write_text((DESCRIPTIONS / f"{name}.toml").read_text(encoding="utf-8"), encoding="utf-8")
    return link


def title_of(name: str) -> str:
    """What the network calls itself."""
    return str(description_of(name)["name"])


def overview(names: Sequence[str]) -> str:
    """What each network is made for, and what of that the data have."""
    rows = []
    for name in names:
        entry, said = NETWORKS[name], description_of(name)
        pairs = ", ".join([*entry.pairs, *(f"{pair} (one image)" for pair in entry.half)])
        truths = len(entry.truths)
        rows.append(
            [said["name"], said["contrast"], str(entry.outputs), pairs or "none", str(truths) if truths else "none"]
        )
    header = ["network", "made for", "outputs", "pairs", "images with labels of its classes"]
    alone = (
        "MIND: at its defaults, which have the intensities beside it. MIND alone: without them, as networks are.\n\n"
    )
    return "## Networks\n\n" + report.markdown_table(header, rows) + "\n" + alone


def description_of(name: str) -> dict[str, Any]:
    """The description as TOML holds it."""
    return tomllib.loads((DESCRIPTIONS / f"{name}.toml").read_text(encoding="utf-8"))


def labels_table(given: argparse.Namespace, names: Sequence[str]) -> str:
    """Labels of every image that has a counterpart, class by class."""
    rows = []
    for name in names:
        classes = description_of(name).get("classes", [])
        for number, truth in enumerate(NETWORKS[name].truths):
            folder = given.results / "labels" / f"{name}-{number}"
            if not (folder / "dice.json").exists():
                if given.tables_only:
                    continue
                label_image(given, name, truth, folder)
            dice = json.loads((folder / "dice.json").read_text(encoding="utf-8"))
            usage = usage_of(folder)
            best_first = sorted(dice.items(), key=lambda item: -item[1])
            each = ", ".join(f"{classes[int(k)] if classes else 'brain'} {v:.3f}" for k, v in best_first)
            what = Path(truth.image).name.partition(".")[0] + (f", upper {truth.top_mm:g} mm" if truth.top_mm else "")
            where = f"{Path(truth.image).parent.name}/{what}"
            cells = [report.number(fmean(dice.values())), report.number(usage.get("CPU s"), 1)]
            rows.append([title_of(name), where, *cells, report.number(usage.get("peak GB"), 2), each])
    return report.markdown_table(["network", "image", "mean Dice", "CPU s", "peak GB", "Dice of each class"], rows)


def label_image(given: argparse.Namespace, name: str, truth: Truth, folder: Path) -> None:
    """Run the network over the image, compare, keep what was found."""
    folder.mkdir(parents=True, exist_ok=True)
    root = given.pairs.parent
    image, path = sitk.ReadImage(str(root / truth.image)), root / truth.image
    known = sitk.ReadImage(str(root / truth.labels), sitk.sitkInt32)
    if truth.top_mm is not None:
        count = round(truth.top_mm / image.GetSpacing()[2])
        image, known, path = image[:, :, -count:], known[:, :, -count:], folder / "image.nii.gz"
        sitk.WriteImage(image, str(path))
    command = [sys.executable, "-m", "semreg", "infer", path, "-o", folder / "labels.nii.gz", "--argmax", "--quiet"]
    command += ["--model", model_of(given, name), "--device", "cpu", "--threads", str(given.threads)]
    if not (folder / "labels.nii.gz").exists():
        run_pair(command, folder, given.threads)
    found = array(sitk.ReadImage(str(folder / "labels.nii.gz")))
    values = array(known)
    dice = {}
    for number, labels in truth.classes.items():
        there = values > 0 if isinstance(labels, str) else np.isin(values, labels)
        here = found == number
        if there.any():
            dice[number] = float(2 * (here & there).sum() / (here.sum() + there.sum()))
    (folder / "dice.json").write_text(json.dumps(dice) + "\n", encoding="utf-8")
    print(f"labels: {name}, {truth.image}: {fmean(dice.values()):.3f}", flush=True)


@dataclass(frozen=True, eq=False)
class Way:
    """One choice of models: the name of its row, the entries of ``models`` in the settings, other settings, flags."""

    title: str
    models: tuple[Mapping[str, Any], ...]
    changed: tuple[str, ...] = ()
    flags: tuple[str | Path, ...] = ()


MIND: dict[str, Any] = {"model": "mind"}


def features_tables(given: argparse.Namespace, names: Sequence[str]) -> str:
    """A table for each pair: MIND as it is, MIND without intensities, each layer, MIND and the best, guidance."""
    score = load_scorer(given.scorer)
    pairs = {pair["name"]: pair for pair in tomllib.loads(given.pairs.read_text(encoding="utf-8"))["pair"]}
    text = ""
    for pair in dict.fromkeys(pair for name in names for pair in pairs_of(name)):
        if given.only_pairs and pair not in given.only_pairs:
            continue
        rows: dict[str, dict[str, float]] = {}
        for way in (Way("MIND", (MIND,)), Way("MIND alone", (MIND,), PLAIN_MIND)):
            add_run(given, pairs[pair], way, score, rows)
        for name in (name for name in names if pair in pairs_of(name)):
            for way in ways_of(given, name) if "features" in given.parts else ():
                add_run(given, pairs[pair], way, score, rows)
            for way in joined(given, name):
                add_run(given, pairs[pair], way, score, rows)
        if rows:
            text += f"\n### {pair}: {pairs[pair]['what']}\n\n{half_note(pair)}{pair_table(rows)}"
    return text


def pairs_of(name: str) -> tuple[str, ...]:
    """The pairs that a network is tried on; on the first one its best layer is chosen."""
    return (*NETWORKS[name].pairs, *NETWORKS[name].half)


def joined(given: argparse.Namespace, name: str) -> Iterator[Way]:
    """MIND with the row that was best on the network's first pair, of those that are there, and with its labels."""
    first = given.results / "pairs" / pairs_of(name)[0]
    files = {way: first / folder_name(way.title) / "scores.json" for way in ways_of(given, name)}
    known = {way.title: json.loads(file.read_text(encoding="utf-8")) for way, file in files.items() if file.exists()}
    if known and "features" in given.parts:
        best = next(way for way in files if way.title == better(known))
        yield Way(f"MIND + {best.title}", (MIND, *best.models))
    if NETWORKS[name].guides and "guidance" in given.parts:
        yield Way(f"MIND, guided by {title_of(name)}", (MIND,), (), ("--segment", model_of(given, name)))


def half_note(pair: str) -> str:
    """Which networks know one of the two images alone."""
    known = [title_of(name) for name, entry in NETWORKS.items() if pair in entry.half]
    return f"Made for one of the two images alone: {', '.join(known)}.\n\n" if known else ""


def ways_of(given: argparse.Namespace, name: str) -> Iterator[Way]:
    """Each layer of a network with each distance, in place of MIND."""
    entry = NETWORKS[name]
    for layer in range(entry.outputs):
        for distance in entry.distances:
            which = f", layer {layer}" if entry.outputs > 1 else ""
            model = {"model": str(model_of(given, name)), "layers": [layer], "distance": [distance]}
            yield Way(f"{title_of(name)}{which}, {distance}", (model,))


def skipped(given: argparse.Namespace, way: Way) -> bool:
    """Whether the row is not asked for now."""
    models = [model for model in way.models if "layers" in model]
    left_out = [
        (given.layers and len(way.models) == 1 and model["layers"][0] not in given.layers)
        or (given.distances and len(way.models) == 1 and model["distance"][0] not in given.distances)
        for model in models
    ]
    return given.tables_only or any(left_out)


def add_run(
    given: argparse.Namespace, pair: Mapping[str, Any], way: Way, score: Any, rows: dict[str, dict[str, float]]
) -> None:
    """One pair registered one way, unless that was done: its scores and what it took, into ``rows``."""
    root = given.pairs.parent
    folder = given.results / "pairs" / pair["name"] / folder_name(way.title)
    kept = folder / "scores.json"
    if not kept.exists():
        if skipped(given, way):
            return
        config = settings(way.models, folder / "settings.toml")
        command = tools.semreg_command(
            root / pair["fixed"], root / pair["moving"], folder / "out", given.threads, way.changed
        )
        run_pair([*command, "--config", config, "--no-report", *way.flags], folder, given.threads)
        found = {k: v for k, v in score(pair, root, folder / "out").items() if isinstance(v, float)}
        kept.write_text(json.dumps(found | usage_of(folder)) + "\n", encoding="utf-8")
        for written in (folder / "out").glob("*.nii.gz"):  # fields of all runs would fill a disk
            written.unlink()
    rows[way.title] = json.loads(kept.read_text(encoding="utf-8"))
    figure = figure_of(rows[way.title])
    print(f"{pair['name']}: {way.title}: {figure} {rows[way.title][figure]:.4f}", flush=True)


def folder_name(title: str) -> str:
    """The title of a row as the name of a folder."""
    return "".join(letter if letter.isalnum() else "-" for letter in title)


def settings(models: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """A file of settings with these models; JSON's texts, numbers and lists are TOML's."""
    tables = ["\n".join(["[[models]]", *[f"{k} = {json.dumps(v)}" for k, v in model.items()]]) for model in models]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    return path


def better(rows: Mapping[str, Mapping[str, float]]) -> str:
    """The row with the least landmark error, else with the largest Dice."""
    figure = figure_of(next(iter(rows.values())))
    chosen = min if figure == "TRE" else max
    return str(chosen(rows, key=lambda title: rows[title][figure]))


def pair_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """One choice of models a line, best first; MIND alone has no intensities beside it, as networks have none."""
    figure = figure_of(next(iter(rows.values())))
    base = rows.get("MIND alone", {}).get(figure)
    cells = []
    for title in sorted(rows, key=lambda title: rows[title][figure], reverse=figure == "Dice"):
        row = rows[title]
        other = ("TRE p95", 3) if figure == "TRE" else ("Dice before", 3)
        change = "-" if base is None else f"{row[figure] - base:+.3f}"
        cells.append(
            [title, report.number(row[figure]), change, report.number(row.get(other[0]), other[1]),
             report.number(row["folded %"], 4), report.number(row["CPU s"], 1), report.number(row["peak GB"], 2)]
        )  # fmt: skip
    before = "p95" if figure == "TRE" else "before"
    return report.markdown_table(["features", figure, "to MIND alone", before, "folded %", "CPU s", "peak GB"], cells)


def array(image: sitk.Image) -> np.ndarray:
    """The voxels."""
    return np.asarray(sitk.GetArrayFromImage(image))


if __name__ == "__main__":
    main()
