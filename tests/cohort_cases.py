"""Small cohorts: tables of pairs on disk, and a stand-in for ``semreg`` that takes milliseconds.

The stand-in is a process like the real one: it reads the files it is given and writes what they say. ``FIXED`` and
``MOVING`` are text there; ``wait``, ``crash`` or ``refuse`` in the moving one make it do so, and it waits while
there is a file beside it with ``.hold`` after its name.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from conftest import give_header, grid_at, points_of, rotation
from run_records import make_run
from semreg.batch import Digests, JobFlags, Pair, make_job
from semreg.config import RegistrationConfig

STAND_IN = r"""
import hashlib, json, os, pathlib, signal, sys, time
verb, *rest = sys.argv[1:]
def sha(path): return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
if verb == "register":
    fixed, moving, out = rest[0], rest[1], pathlib.Path(rest[rest.index("--output") + 1])
    said = pathlib.Path(moving).read_text(encoding="utf-8")
    if "refuse" in said:
        print("some progress"); print("error: expected better images, got these: take others"); sys.exit(2)
    if "crash" in said:
        (out / ".semreg-half").mkdir(); (out / ".semreg-half" / "field.nii.gz").write_text("half")
        os.kill(os.getpid(), signal.SIGSEGV)
    while "wait" in pathlib.Path(moving).read_text(encoding="utf-8") or os.path.exists(moving + ".hold"):
        time.sleep(0.02)
    (out / "transform.h5").write_text(sha(fixed) + sha(moving))
    if "--inverse" in rest:
        (out / "inverse.h5").write_text("back")
    inputs = {"fixed": {"path": fixed, "sha256": sha(fixed)}, "moving": {"path": moving, "sha256": sha(moving)}}
    (out / "record.json").write_text(json.dumps({**json.loads(RECORD), "inputs": inputs, "time": time.time()}))
else:
    out = pathlib.Path(rest[0])
    points = rest[rest.index("--fixed-landmarks") + 1] if "--fixed-landmarks" in rest else None
    error = float(pathlib.Path(points).read_text(encoding="utf-8")) if points else None
    inputs = {} if points is None else {"fixed_landmarks": [{"path": points, "sha256": sha(points)}]}
    words = ("mean", "sd", "minimum", "median", "p75", "p90", "p95", "maximum")
    errors = {"count": 1, "worse": 0, "points": [], "before": dict.fromkeys(words, 9.0)}
    errors["after"] = dict.fromkeys(words, error)
    found = {"landmarks": None if points is None else errors, "inputs": inputs}
    (out / "evaluation.json").write_text(json.dumps(found))
    (out / "report.html").write_text("report")
"""

RECORD = json.dumps(make_run().to_dict())
"""What it writes beside the inputs."""


def stand_in(step):
    """The command of a step with the stand-in in place of semreg."""
    return [sys.executable, "-c", f"RECORD = {RECORD!r}\n{STAND_IN}", *step.arguments]


def text_pairs(folder: Path, said: dict[str, str]) -> list[Pair]:
    """Pairs of text files for the stand-in: what each moving one says, by name."""
    folder.mkdir(exist_ok=True)
    pairs = []
    for name, text in said.items():
        fixed, moving = folder / f"{name}-fixed.txt", folder / f"{name}-moving.txt"
        fixed.write_text(f"fixed {name}", encoding="utf-8")
        moving.write_text(f"moving {name} {text}", encoding="utf-8")
        pairs.append(Pair(name=name, fixed=fixed, moving=moving))
    return pairs


def jobs_of(pairs, *, threads=1, register=(), config=None):
    """The jobs of pairs with one set of settings."""
    settings = config or RegistrationConfig()
    flags = JobFlags(threads=threads, register=tuple(register))
    digest = Digests()
    return [make_job(pair, settings, flags, digest) for pair in pairs]


def log_of(output: Path) -> list[dict]:
    """The lines of ``batch.log``."""
    return [json.loads(line) for line in (output / "batch.log").read_text(encoding="utf-8").splitlines()]


def names_of(output: Path, event: str) -> list[str]:
    """The pairs of all events of one kind, in order."""
    return [line["pair"] for line in log_of(output) if line["event"] == event]


def write_table(path: Path, rows: list[dict]) -> Path:
    """A CSV table with the columns of all rows."""
    titles = list(dict.fromkeys(title for row in rows for title in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, titles)
        writer.writeheader()
        writer.writerows(rows)
    return path


def image_pair(folder: Path, name: str, seed: int) -> dict[str, str]:
    """A pair of small images on different oblique grids with four landmarks each, as a row of a table."""
    generator = np.random.default_rng(seed)
    fixed = grid_at((3.0, -7.0, 11.0), (17, 15, 13), (1.9, 2.1, 2.8), rotation(3))
    moving = grid_at((4.0, -6.0, 12.0), (18, 16, 15), (1.8, 2.3, 2.4), rotation(3, -21.0))
    shift = generator.uniform(-2, 2, 3)
    middles = np.array([3.0, -7.0, 11.0]) + generator.uniform(-9, 9, (4, 3))
    for kind, grid, points in (("fixed", fixed, middles), ("moving", moving, middles + shift)):
        places = points_of(grid).numpy()
        away = ((places[None] - points[:, :, None, None, None]) ** 2).sum(1)
        values = (np.array([300.0, 900.0, 500.0, 700.0])[:, None, None, None] * np.exp(-away / 40)).sum(0)
        image = give_header(sitk.GetImageFromArray(values.astype(np.float32)), grid)
        sitk.WriteImage(image, str(folder / f"{name}-{kind}.nii.gz"))
        np.savetxt(folder / f"{name}-{kind}.csv", points, delimiter=",", header="x,y,z", comments="")
    images = {kind: f"{name}-{kind}.nii.gz" for kind in ("fixed", "moving")}
    return {"name": name, **images, **{f"{kind}_landmarks": f"{name}-{kind}.csv" for kind in images}}
