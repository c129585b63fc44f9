"""Runs real networks over real volumes with ``semreg infer`` and ``semreg features``: labels, time, memory.

    python infer.py [DATA] [--threads N] [--parts labels memory features]

``labels``: MeshNet over both oasis images, its Dice against FreeSurfer's labels, and its time beside one plain forward
pass of the whole volume. ``memory``: the same with --memory 3GB. ``features``: M730 over 192³ voxels with 2, 4 and
8 GB above an idle process, beside the plain forward passes over the same tiles. Leaves with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import SimpleITK as sitk
import tools
from measure import Usage, measure

import report

LEAST_DICE = 0.78
MOST_TIME = 1.15
"""Times a plain forward pass."""
LEAST_SAME = 0.999
"""Share of voxels with the same label when the memory is limited."""
MOST_PASSES = 1.1
"""Times the plain forward passes over the same tiles."""
MESHNET = ("axes=LIA", "spacing_mm=1", "normalisation.kind=min-max")
FREESURFER = (
    (2, 41), (3, 42), (4, 43), (5, 44), (7, 46), (8, 47), (10, 49), (11, 50), (12, 51), (13, 52), (14,), (15,), (16,),
    (17, 53), (18, 54), (26, 58), (28, 60),
)  # fmt: skip
"""FreeSurfer's numbers of MeshNet's classes, from class 1 on."""


def main() -> None:
    """Run, score, print."""
    given = arguments()
    if not (given.data / "models").exists():
        print(f"skipped: {given.data / 'models'} is needed, and it is not there")
        return
    bars: list[tuple[str, bool, str]] = []
    text = ""
    if "labels" in given.parts or "memory" in given.parts:
        table, more = labels(given)
        text, bars = text + table, bars + more
    if "features" in given.parts:
        table, more = features(given)
        text, bars = text + table, bars + more
    rows = [[what, figure, report.holds(good)] for what, good, figure in bars]
    text += "\n" + report.markdown_table(["bar", "figure", ""], rows)
    print(text)
    if given.report:
        facts = report.machine(given.threads) | {"semreg": report.versions_line(tools.semreg_versions())}
        given.report.write_text(f"# Networks over volumes\n\n{report.bullets(facts)}\n{text}", encoding="utf-8")
    sys.exit(0 if all(good for _, good, _ in bars) else 1)


def arguments() -> argparse.Namespace:
    """What the command was given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("data", type=Path, nargs="?", default=tools.SHARED / "data", help="folder with oasis_pair and models")
    add("--threads", type=int, default=2)
    add("--runs", type=int, default=3, help="of each limit for the features; medians are judged")
    add("--parts", nargs="+", default=["labels", "memory", "features"], choices=["labels", "memory", "features"])
    add("--images", nargs="+", default=["fixed", "moving"], choices=["fixed", "moving"])
    add("--report", type=Path, help="write the tables to this Markdown file too")
    return parser.parse_args()


def labels(given: argparse.Namespace) -> tuple[str, list[tuple[str, bool, str]]]:
    """MeshNet over the oasis images, without and with a limit of memory."""
    model = given.data / "models" / "brainchop_model30chan18cls.pt"
    bars, rows = [], []
    for which in given.images:
        image = given.data / "oasis_pair" / f"{which}_t1.nii.gz"
        truth = read(given.data / "oasis_pair" / f"{which}_freesurfer_seg.nii.gz")
        plain = plain_passes(given, model, [image])
        usage, record = infer(given, image, f"labels-{which}.nii.gz")
        free = read(tools.OUT / "infer" / f"labels-{which}.nii.gz")
        ratio, dice = ratios(record, plain), mean_dice(free, truth)
        rows.append([which, "none", *cells(usage, record), *ratio.values(), f"{dice:.4f}", "-"])
        bars.append((f"{which}: mean Dice at least {LEAST_DICE}", dice >= LEAST_DICE, f"{dice:.4f}"))
        good = float(ratio["CPU"]) <= MOST_TIME
        bars.append((f"{which}: load and run within {MOST_TIME} × a plain pass, CPU seconds", good, ratio["CPU"]))
        if "memory" not in given.parts:
            continue
        usage, record = infer(given, image, f"labels-3GB-{which}.nii.gz", "--memory", "3GB")
        limited = read(tools.OUT / "infer" / f"labels-3GB-{which}.nii.gz")
        same = float((limited == free).mean())
        row = [*ratios(record, plain).values(), f"{mean_dice(limited, truth):.4f}", f"{100 * same:.4f}"]
        rows.append([which, "3GB", *cells(usage, record), *row])
        bars.append((f"{which}: stays below 3 GB", usage.peak_bytes < 3e9, f"{usage.peak_bytes / 1e9:.2f} GB"))
        bars.append((f"{which}: labels as without a limit", same >= LEAST_SAME, f"{100 * same:.4f} %"))
    header = ["image", "--memory", "wall s", "CPU s", "peak GB", "tiles", "× plain, wall", "× plain, CPU", "Dice"]
    return report.markdown_table([*header, "same labels %"], rows) + "\n", bars


def ratios(record: dict[str, Any], plain: dict[str, float]) -> dict[str, str]:
    """Seconds to run the network (reading and writing files left out) over those of plain passes."""
    seconds = record["seconds"]
    wall, cpu = seconds["extraction"] / plain["wall"], seconds["extraction_cpu"] / plain["CPU"]
    return {"wall": f"{wall:.2f}", "CPU": f"{cpu:.2f}"}


def cells(usage: Usage, record: dict[str, Any]) -> list[str]:
    """What a run took, from the start of its process to its end."""
    peak = f"{usage.peak_bytes / 1e9:.2f}"
    return [f"{usage.wall_seconds:.1f}", f"{usage.cpu_seconds:.1f}", peak, str(record["tiles"])]


def infer(given: argparse.Namespace, image: Path, name: str, *flags: str) -> tuple[Usage, dict[str, Any]]:
    """Labels of MeshNet; what it took, and the record."""
    model = given.data / "models" / "brainchop_model30chan18cls.pt"
    specs = [word for spec in MESHNET for word in ("--spec", spec)]
    command = [sys.executable, "-m", "semreg", "infer", image, "-o", tools.OUT / "infer" / name, "--model", model]
    command += [*specs, "--argmax", "--json", "--device", "cpu", "--threads", str(given.threads), *flags]
    return run(command, given.threads, name)


def run(command: list[Any], threads: int, name: str) -> tuple[Usage, dict[str, Any]]:
    """Run a command that prints a record as JSON."""
    log = tools.OUT / "infer" / f"{name}.log"
    usage = measure(command, threads=threads, log=log)
    text = log.read_text(encoding="utf-8")
    record, _ = json.JSONDecoder().raw_decode(text, text.index("{\n"))
    return usage, dict(record)


def features(given: argparse.Namespace) -> tuple[str, list[tuple[str, bool, str]]]:
    """M730 over 192³ voxels with three limits of memory above an idle process."""
    model = given.data / "models" / "M730_1_Layers.pt"
    image = tools.OUT / "infer" / "noise-192.nii"
    image.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).normal(size=(192, 192, 192)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(image))
    code = "import torch, SimpleITK, numpy, semreg.features.inference, semreg.io.files, semreg.cli"
    idle = measure([sys.executable, "-c", code], threads=given.threads, log=tools.OUT / "infer" / "idle.log").peak_bytes
    bars, rows = [], []
    for extra in (2, 4, 8):
        limit = idle + extra * 10**9
        command = [sys.executable, "-m", "semreg", "features", image, "-o", tools.OUT / "infer" / f"m730-{extra}"]
        command += ["--model", model, "--memory", str(limit), "--format", "nii", "--json", "--device", "cpu"]
        command += ["--threads", str(given.threads)]
        found, peaks, record = [], [], {}
        for _ in range(given.runs):
            usage, record = run(command, given.threads, f"m730-{extra}GB")
            peaks.append(usage.peak_bytes)
            found.append(ratios(record, plain_passes(given, model, record["tile_sizes"])))
        above = (max(peaks) - idle) / 1e9
        wall, cpu = (f"{median(float(ratio[name]) for ratio in found):.2f}" for name in ("wall", "CPU"))
        rows.append([f"{extra} GB", f"{above:.2f}", str(record["tiles"]), wall, cpu])
        bars.append((f"M730: stays below {extra} GB above an idle process", above < extra, f"{above:.2f} GB"))
        bars.append((f"M730, {extra} GB: within {MOST_PASSES} × the plain passes, CPU", float(cpu) <= MOST_PASSES, cpu))
    header = ["--memory above idle", "peak above idle, GB", "tiles", "× plain passes, wall", "× plain passes, CPU"]
    return f"An idle process holds {idle / 1e9:.2f} GB.\n\n" + report.markdown_table(header, rows) + "\n", bars


def plain_passes(given: argparse.Namespace, model: Path, inputs: list[Any]) -> dict[str, float]:
    """Seconds of plain forward passes, in a process of their own: over images, or over tiles of sizes."""
    words = [json.dumps(item if isinstance(item, list) else str(item)) for item in inputs]
    log = tools.OUT / "infer" / "plain.log"
    measure([sys.executable, Path(__file__).resolve(), "--plain", model, *words], threads=given.threads, log=log)
    return dict(json.loads(log.read_text(encoding="utf-8").splitlines()[-1]))


def plain(model: Path, inputs: list[Any]) -> None:
    """As a script: one plain forward pass for each input, and the seconds they took on the standard output."""
    import torch

    network = torch.jit.load(str(model), map_location="cpu").eval()
    wall = cpu = 0.0
    for item in inputs:
        if isinstance(item, list):
            x = torch.randn(1, 1, *item)
        else:
            turned = sitk.DICOMOrient(sitk.ReadImage(item, sitk.sitkFloat32), "LIA")
            array = sitk.GetArrayFromImage(turned).transpose(2, 1, 0)
            x = torch.from_numpy(np.ascontiguousarray((array - array.min()) / np.ptp(array)))[None, None]
        started, begun = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            network(x)
        wall, cpu = wall + time.perf_counter() - started, cpu + time.process_time() - begun
    print(json.dumps({"wall": wall, "CPU": cpu}))


def read(path: Path) -> np.ndarray[Any, Any]:
    """The voxels of an image."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def mean_dice(found: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    """Mean Dice over MeshNet's structures."""
    scores = []
    for label, numbers in enumerate(FREESURFER, start=1):
        here, there = found == label, np.isin(truth, numbers)
        scores.append(2 * float((here & there).sum()) / float(here.sum() + there.sum()))
    return float(np.mean(scores))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plain"]:
        plain(Path(sys.argv[2]), [json.loads(word) for word in sys.argv[3:]])
    else:
        main()
