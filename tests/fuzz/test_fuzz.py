"""Whatever comes in ends as a result or as one sentence with exit code 2: files that are nearly right."""

from __future__ import annotations

import importlib

import pytest

from fuzz_harness import FAULTS, Case, counts, run

IN_CI = {
    "transforms": 230, "points": 200, "tables": 180, "settings": 180, "images": 420, "dicom": 240, "models": 140,
}  # fmt: skip
"""How many cases of each kind are run here; ``fuzz.py`` runs more."""


def test_the_harness_notices_each_fault():
    """What ends wrongly is named as what it is, and does not hide what comes after it."""
    outputs = {"not finite": ("out.csv",), "no file": ("out.csv",)}
    cases = [
        Case(
            name=how,
            arguments=("trap", how if how != "refused" else "2"),
            outputs=outputs.get(how, ()),
            refused=how == "accepted",
            taken=how == "refused",
        )
        for how in ("0", *FAULTS, "2")
    ]
    outcomes = run(cases, {}, ("fuzz_traps",), seconds=0.3)
    assert [each.fault.partition(":")[0] or str(each.code) for each in outcomes] == [case.name for case in cases]
    assert counts(outcomes) == dict.fromkeys(sorted(["0", "2", *FAULTS]), 1)


@pytest.mark.parametrize("name", IN_CI)
def test_nearly_right_files_end_in_a_result_or_a_sentence(name):
    """No crash, no traceback, no other exit code, no noise, no lack of memory or time, and no number that is none."""
    kind = importlib.import_module(f"fuzz_{name}").KIND
    outcomes = run(kind.cases(IN_CI[name]), kind.shared(), kind.modules)
    wrong = [f"{each.case.name}: {each.fault}; {each.said[-300:]}" for each in outcomes if each.fault]
    assert wrong == []
    assert {0, 2} <= {each.code for each in outcomes}
