"""Settings, nearly right: TOML for ``--config``, and words for ``--set``."""

from __future__ import annotations

import random

from fuzz_harness import Case
from fuzz_kinds import Kind, Seed
from fuzz_mutations import mutated
from fuzz_transforms import AFFINE, POINTS

TOML = b"""description = "mine"
[refine]
iterations = 40
levels = 2
[checks]
enabled = true
missing = [40, 90]
[align]
transform = "none"
[[models]]
model = "mind"
weight = 1.0
spec = ["radius=1"]
"""
ASSIGNMENTS = ("refine.iterations=40", "checks.missing=40,90", "models.0.weight=2", "align.transform=none", "seed=1")
MEASURE = (
    "evaluate", "../shared/affine.tfm", "--fixed-landmarks", "../shared/points.csv",
    "--moving-landmarks", "../shared/points.csv",
)  # fmt: skip


def shared() -> dict[str, bytes]:
    """What is measured with settings."""
    return {"affine.tfm": AFFINE.encode(), "points.csv": POINTS}


def seeds() -> list[Seed]:
    """A file of settings."""
    arguments = ((*MEASURE, "--config", "my.toml"),)
    return [Seed(name="my.toml", data=TOML, arguments=arguments)]


def known() -> list[Case]:
    """Wrong in ways that were thought of, and assignments that are nearly right."""
    digits = "9" * 5000
    words = {
        "digits": f"refine.iterations={digits}", "digits of a float": f"refine.step_mm={digits}",
        "nothing": "=", "name": "a",
        "deep": "checks.missing=" + "[" * 500 + "]" * 500, "very deep": "checks.missing=" + "[" * 50_000,
        "number": f"models.{digits}.weight=1", "long": "a" * 100_000 + "=1", "numbers": "refine.iterations=nan",
        "lines": "refine.iterations=1\n[[a]]", "none": "seed=none",
    }  # fmt: skip
    cases = [
        Case(name=f"settings/set/{what}", arguments=(*MEASURE, "--set", word), refused=True)
        for what, word in words.items()
    ]
    files = {
        "digits": TOML.replace(b"= 40", b"= " + digits.encode()),
        "deep": TOML.replace(b"[40, 90]", b"[" * 500 + b"]" * 500),
        "tables": b"[a" + b".a" * 500 + b"]\nb = 1\n",
        "folder": None,
        "zeros": bytes(100),
    }
    for what, data in files.items():
        found = {"my.toml/a": b""} if data is None else {"my.toml": data}
        cases.append(
            Case(name=f"settings/file/{what}", arguments=(*MEASURE, "--config", "my.toml"), files=found, refused=True)
        )
    for number in range(40):
        random_ = random.Random(f"settings {number}")  # noqa: S311 - the same cases always
        word = mutated(ASSIGNMENTS[number % len(ASSIGNMENTS)].encode(), random_, text=True).replace(b"\0", b"")
        cases.append(
            Case(name=f"settings/word/{number}", arguments=(*MEASURE, "--set", word.decode(errors="replace")[:100_000]))
        )
    return cases


KIND = Kind(name="settings", shared=shared, seeds=seeds, known=known, modules=("semreg.presets", "semreg.quality"))
